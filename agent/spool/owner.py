"""Whose the spool is; run by root, the agent becomes that user first."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from agent.errors import ConfigError, SpoolError
from agent.privilege import become, group_can_write, name_of, refuse_strangers
from agent.spool.disk import explained


def check_spool(spool: Path) -> None:
    """Makes sure that the spool is there and nobody else can write to it.

    :raises SpoolError: where it is not so.
    """
    if spool.exists() and not spool.is_dir():
        raise SpoolError(f"the spool {spool} is no folder", hint="move away what lies there")
    with explained(spool):
        spool.mkdir(mode=0o750, parents=True, exist_ok=True)
        info = spool.stat()
    if info.st_mode & stat.S_IWOTH:
        raise SpoolError(f"the spool {spool} can be written by everybody", hint=f"chmod 750 {spool}")
    # The group of a volume in a container is the Slurm user's, and its owner root.
    own = {_primary_group(uid) for uid in (info.st_uid, os.geteuid())}
    if all(group_can_write(spool, info, gid) for gid in own):
        raise SpoolError(f"the spool {spool} can be written by a group", hint=f"chmod g-w {spool}")
    if not os.access(spool, os.W_OK | os.X_OK):
        is_own = info.st_uid == os.geteuid()
        hint = f"chmod u+rwx {spool}" if is_own else "run as root, or as the spool's owner"
        raise SpoolError(f"the spool {spool} can't be written", hint=hint)


def _primary_group(uid: int) -> int:
    """The user's own group; -1, which is nobody's, where the user has no name."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return -1


def step_down(spool: Path) -> None:
    """Run by root, the agent becomes the spool's owner: a file of root's there would stop the hook.

    Root stays root only for a spool of root's. It makes none: the hook of another user could not write there.

    :raises SpoolError: where there is no spool, others can replace it, root may not become its owner here, or the owner
        can't read this program.
    """
    if os.geteuid() != 0:
        return
    try:
        uid = spool.stat().st_uid
    except OSError as error:
        hint = "install.sh makes it, and `check` says what is missing"
        raise SpoolError(f"there is no spool {spool}", hint=hint) from error
    refuse_strangers(spool.parent, uid, SpoolError)
    if uid != 0:
        become(uid, f"the spool {spool}", SpoolError)


def check_agreement(config: Path, spool: Path) -> None:
    """Makes sure, once root has become the configuration's owner, that the spool is not a third user's.

    :raises ConfigError: where they belong to two users.
    """
    try:
        owner = spool.stat().st_uid
    except OSError:  # whoever opens it says so
        return
    if os.geteuid() not in {0, owner}:
        one, other = name_of(os.geteuid()), name_of(owner)
        raise ConfigError(
            f"the configuration {config} belongs to {one}, and the spool {spool} to {other}",
            hint="both must be the Slurm user's: see whose they should be, and which folder spool_dir should name",
        )
