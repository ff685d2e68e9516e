"""Root becomes a file's owner before reading it, and refuses files that others can change."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from pathlib import Path
from typing import Sequence

from agent.errors import ConfigError, ExporterError
from agent.logger import Logger

#: Imported late: one of our modules, one of a dependency and one of Python's.
LATE_IMPORTS = ("agent.status.metrics", "requests", "email")
#: The user that started this process; root may have become another user since.
CALLER = os.geteuid()
_LONGEST_CHAIN = 40  # symbolic links to follow, the kernel's limit
_ACL = "system.posix_acl_access"

logger = Logger(__name__)


def become_owner_of(config: Path) -> None:
    """Run by root, the process becomes the owner of a configuration, unless that is root. For other users a no-op.

    :raises ConfigError: if others could change it, or root may not become that user here.
    :raises OSError: if it is missing. Root must not read it then: its owner could create it at that moment.
    """
    if os.geteuid() != 0:
        return
    info = config.stat()
    refuse_strangers(config, info.st_uid, ConfigError)
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"the configuration {config} is not a regular file", hint="move it away")
    if info.st_uid != 0:
        become(info.st_uid, f"the configuration {config}", ConfigError)


def refuse_strangers(path: Path, uid: int, error: type[ExporterError]) -> None:
    """Ensures that only root and one other user can change what a path leads to.

    :raises ExporterError: of the given type, naming the first component of the path that others could change.
    """
    stranger = find_stranger(path, {0, uid})
    if stranger is not None:
        raise error(
            f"root does not use {path}: users other than root and {name_of(uid)} can change {stranger}",
            hint=f"see who can write to it (ls -ld {stranger}) and revoke that: chmod go-w, chown, setfacl -b",
        )


def find_stranger(path: Path, uids: set[int]) -> Path | None:
    """The first component (file, folder or link) of a path that users other than these can change, or None."""
    todo, way, links = list(reversed(path.absolute().parts[1:])), Path("/"), 0
    while todo:
        part = todo.pop()
        if part == "..":
            way = way.parent
            continue
        here = way / part
        try:
            info = here.lstat()
        except OSError:  # missing: reading it will report that
            return None
        if not _is_only_theirs(here, info, uids):
            return here
        if not stat.S_ISLNK(info.st_mode):
            way = here
            continue
        links += 1
        if links > _LONGEST_CHAIN:
            return here
        target = Path(os.readlink(here))
        way = Path("/") if target.is_absolute() else way
        todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return None


def _is_only_theirs(path: Path, info: os.stat_result, uids: set[int]) -> bool:
    if info.st_uid not in uids:
        return False
    if stat.S_ISLNK(info.st_mode):
        return True
    if stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX and info.st_uid == 0:
        return True  # as in /tmp: users can change only their own files, and the next component is checked, too
    return not info.st_mode & stat.S_IWOTH and not group_can_write(path, info, 0)


def group_can_write(path: Path, info: os.stat_result, own_gid: int) -> bool:
    """Whether a group other than ``own_gid`` can write, or a user named in an ACL: its mask is in the group's bits."""
    if not info.st_mode & stat.S_IWGRP:
        return False
    return info.st_gid != own_gid or _has_acl(path)


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError:
        return False


def become(uid: int, whose: str, error: type[ExporterError]) -> None:
    """Permanently gives up root and takes the user's groups from the user database.

    :param whose: what belongs to that user, for the message.
    :raises ExporterError: of the given type, if root may not do that here or that user cannot read this program.
    """
    logger.real()  # while it can still be imported: that user may be unable to read this program
    try:
        account = pwd.getpwuid(uid)
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(uid, uid, uid)
    except (KeyError, OSError) as failure:
        raise error(
            f"cannot become the owner of {whose}, uid {uid}: {failure}",
            hint=f"run as that user, or chown {whose} to the Slurm user",
        ) from failure
    os.environ["HOME"] = account.pw_dir
    if not _can_import(LATE_IMPORTS):
        raise error(
            f"{account.pw_name}, the owner of {whose}, cannot read this program or its Python ({sys.executable})",
            hint=f"move {Path(__file__).parents[1]} to where {account.pw_name} can read it,"
            " or install it with install.sh",
        )


def _can_import(names: Sequence[str]) -> bool:
    try:
        from importlib.util import find_spec  # noqa: PLC0415  # slow to import, and rarely needed

        return all(map(find_spec, names))
    except (ImportError, OSError):  # this user cannot read Python itself, or cannot open a zipapp
        return False


def name_of(uid: int) -> str:
    """A user's name, or the uid if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
