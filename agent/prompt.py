"""What `setup` asks the admin for: a key, and whether it may replace another. The only module that reads a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.config import is_exposed, warn_of_readers
from agent.logger import Logger
from agent.options import SetupOptions

logger = Logger(__name__)


def read_key(wanted: SetupOptions) -> str:
    """The deploy key or the API key, from standard input or a file.

    Root reads only files that were named on the command line.

    :raises ConfigError: if the file of an API key cannot be read, or holds no key.
    :raises UsageError: if the deploy key can't be read, or can't be one.
    """
    from agent.admin.setup import read_api_key, read_deploy_key  # noqa: PLC0415

    if wanted.deploy_key == "-":
        return _read_secret("deploy key: ")
    if wanted.api_key_file:
        key = read_api_key(wanted.api_key_file)
        _warn_if_exposed(wanted.api_key_file, "API key")
    else:
        file = Path(wanted.deploy_key or "")
        key = read_deploy_key(file)
        _warn_if_exposed(file, "deploy key")
    return key


def _warn_if_exposed(file: Path, key: str) -> None:
    if file.is_file() and is_exposed(file):
        logger.warning("%s", warn_of_readers(file, key))


def _read_secret(prompt: str) -> str:
    from getpass import getpass  # noqa: PLC0415

    from agent.admin.setup import check_key  # noqa: PLC0415

    try:
        secret = getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()
    except ValueError:  # undecodable bytes
        secret = ""
    return check_key(secret.lstrip("\ufeff").strip(), "standard input")


def confirm_replacement(fact: str) -> bool:
    """Whether the admin agrees; without a terminal, nobody does."""
    return sys.stdin.isatty() and input(f"{fact}. Replace it? [y/N] ").strip().lower() in {"y", "yes"}
