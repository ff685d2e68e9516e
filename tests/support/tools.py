"""What tests require of this machine, and what happens if it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NoReturn, Sequence

import pytest


def cannot_run(reason: str) -> NoReturn:
    """Skips the test, or fails it in CI, which must run every test."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to run every test, but: {reason}")
    pytest.skip(reason)


def need(program: str) -> str:
    """Requires a program, and returns its path. Daemons may be outside a user's PATH."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not found:
        cannot_run(f"there is no {program}: tests/support/provision.sh installs what the tests need")
    return found


def need_to_run(argv: Sequence[str], what: str) -> None:
    """Requires that a command succeeds, which this machine may forbid.

    :param what: the purpose, for the message.
    """
    need(argv[0])
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        cannot_run(f"{what}: {done.stderr.strip()}")
