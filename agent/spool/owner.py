"""Whose the spool is; run by root, the agent becomes that user first."""

from __future__ import annotations

import logging
import os
import pwd
import stat
import sys
from pathlib import Path
from typing import Sequence

from agent.errors import SpoolError
from agent.spool.disk import explained

#: Imported late: a module of ours, of a package's and of Python's.
LATE_IMPORTS = ("agent.status.metrics", "requests", "email")

logger = logging.getLogger(__name__)


def check_spool(spool: Path) -> None:
    """Makes sure that the spool is there and nobody else can write to it.

    :raises SpoolError: where it is not so.
    """
    if spool.exists() and not spool.is_dir():
        raise SpoolError(f"the spool {spool} is no folder", hint="move away what lies there")
    with explained(spool):
        spool.mkdir(mode=0o750, parents=True, exist_ok=True)
        mode = spool.stat().st_mode
    if mode & stat.S_IWOTH:
        raise SpoolError(f"the spool {spool} can be written by everybody", hint=f"chmod 750 {spool}")
    if not os.access(spool, os.W_OK | os.X_OK):
        is_own = spool.stat().st_uid == os.geteuid()
        hint = f"chmod u+rwx {spool}" if is_own else "run as root, or as the spool's owner"
        raise SpoolError(f"the spool {spool} can't be written", hint=hint)


def step_down(spool: Path) -> None:
    """Run by root, the agent becomes the spool's owner: a file of root's there would stop the hook.

    :raises SpoolError: where root may not do that here, or the owner can't read this program.
    """
    if os.geteuid() != 0 or not spool.is_dir() or spool.stat().st_uid == 0:
        return
    info = spool.stat()
    try:
        name = pwd.getpwuid(info.st_uid).pw_name
        os.initgroups(name, info.st_gid)
        os.setgid(info.st_gid)
        os.setuid(info.st_uid)
    except (KeyError, OSError) as error:
        raise SpoolError(
            f"cannot become the owner of the spool {spool}, uid {info.st_uid}: {error}",
            hint=f"run as that user, or chown the spool {spool} to the Slurm user",
        ) from error
    if not _can_import(LATE_IMPORTS):
        raise SpoolError(
            f"{name}, the owner of the spool {spool}, cannot read this program or its Python ({sys.executable})",
            hint=f"move {Path(__file__).parents[2]} to where {name} can read it, or install it with install.sh",
        )
    logger.debug("runs as %s, the spool's owner", name)


def _can_import(names: Sequence[str]) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415  # slow to load, and most runs begin as this user

    try:
        return all(map(find_spec, names))
    except OSError:  # a zipapp that can't be opened any more
        return False
