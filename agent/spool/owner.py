"""The owner of the spool; started by root, the agent becomes that user first."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from agent.errors import ConfigError, SpoolError
from agent.privilege import become, group_can_write, name_of, refuse_strangers
from agent.spool.disk import explained


def check_spool(spool: Path) -> None:
    """Creates the spool if necessary, and makes sure that nobody else can write to it.

    :raises SpoolError: if that fails.
    """
    if spool.exists() and not spool.is_dir():
        raise SpoolError(f"the spool {spool} is not a folder", hint="move that file away")
    with explained(spool):
        spool.mkdir(mode=0o750, parents=True, exist_ok=True)
        info = spool.stat()
    if info.st_mode & stat.S_IWOTH:
        raise SpoolError(f"the spool {spool} is writable by everyone", hint=f"chmod 750 {spool}")
    # A container's volume belongs to root and to the Slurm user's group.
    own = {_primary_group(uid) for uid in (info.st_uid, os.geteuid())}
    if all(group_can_write(spool, info, gid) for gid in own):
        raise SpoolError(f"the spool {spool} is writable by a group", hint=f"chmod g-w {spool}")
    if not os.access(spool, os.W_OK | os.X_OK):
        is_own = info.st_uid == os.geteuid()
        hint = f"chmod u+rwx {spool}" if is_own else "run as root, or as the spool's owner"
        raise SpoolError(f"the spool {spool} is not writable", hint=hint)


def _primary_group(uid: int) -> int:
    """The user's primary group; -1, which matches none, if the user has no name."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return -1


def step_down(spool: Path) -> None:
    """Started by root, the agent becomes the spool's owner: files owned by root there would block the hook.

    It stays root only if root owns the spool. It creates no spool as root: the hook of another user could not write
    there.

    :raises SpoolError: if there is no spool, others can replace it, root may not become its owner here, or the owner
        can't read this program.
    """
    if os.geteuid() != 0:
        return
    try:
        uid = spool.stat().st_uid
    except OSError as error:
        hint = "install.sh creates it, and `check` shows what is missing"
        raise SpoolError(f"there is no spool {spool}", hint=hint) from error
    refuse_strangers(spool.parent, uid, SpoolError)
    if uid != 0:
        become(uid, f"the spool {spool}", SpoolError)


def check_agreement(config: Path, spool: Path) -> None:
    """Makes sure, once root has become the configuration's owner, that the spool belongs to the same user.

    :raises ConfigError: if they belong to different users.
    """
    try:
        owner = spool.stat().st_uid
    except OSError:  # reported when it is opened
        return
    if os.geteuid() not in {0, owner}:
        one, other = name_of(os.geteuid()), name_of(owner)
        raise ConfigError(
            f"the configuration {config} belongs to {one}, and the spool {spool} to {other}",
            hint="both must belong to the Slurm user: check their owners, and that spool_dir names the right folder",
        )
