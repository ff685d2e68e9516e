"""Root becomes whoever a file belongs to before it reads a byte of it, and obeys nothing that others can change."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from pathlib import Path
from typing import Sequence

from agent.errors import ConfigError, ExporterError

#: Imported late: a module of ours, of a package's and of Python's.
LATE_IMPORTS = ("agent.status.metrics", "requests", "email")
_LONGEST_CHAIN = 40  # of links, as the kernel has it
_ACL = "system.posix_acl_access"


def become_owner_of(config: Path) -> None:
    """Run by root, the process becomes the owner of a configuration; otherwise, or where it is root's, nothing happens.

    :raises ConfigError: where others could change it, or root may not become that user here.
    """
    if os.geteuid() != 0:
        return
    try:
        info = config.stat()
    except OSError:  # the reader says what is wrong
        return
    refuse_strangers(config, info.st_uid, ConfigError)
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"the configuration {config} is no file", hint="move away what lies there")
    if info.st_uid != 0:
        become(info.st_uid, f"the configuration {config}", ConfigError)


def refuse_strangers(path: Path, uid: int, error: type[ExporterError]) -> None:
    """Makes sure that nobody but root and one other user can change what a path leads to.

    :raises ExporterError: the given one, which names the first place on the way that others could change.
    """
    stranger = find_stranger(path, {0, uid})
    if stranger is not None:
        raise error(
            f"root does not use {path}: {stranger} can be changed by others than root and {name_of(uid)}",
            hint=f"see who may write it (ls -ld {stranger}), and take that right away: chmod go-w, chown, setfacl -b",
        )


def find_stranger(path: Path, uids: set[int]) -> Path | None:
    """The first file, folder or link on the way to a file that others than these users can change; None without any."""
    todo, way, links = list(reversed(path.absolute().parts[1:])), Path("/"), 0
    while todo:
        part = todo.pop()
        if part == "..":
            way = way.parent
            continue
        here = way / part
        try:
            info = here.lstat()
        except OSError:  # what is not there has no owner, and the reader will say so
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
        return True  # as in /tmp: each may change what is his own, and that is looked at next
    return not info.st_mode & stat.S_IWOTH and not group_can_write(path, info, 0)


def group_can_write(path: Path, info: os.stat_result, own_gid: int) -> bool:
    """Whether another group than ``own_gid`` can write, or whoever an ACL names: its mask is in the group's bits."""
    if not info.st_mode & stat.S_IWGRP:
        return False
    return info.st_gid != own_gid or _has_acl(path)


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError:
        return False


def become(uid: int, whose: str, error: type[ExporterError]) -> None:
    """Gives up root for good: the user's own groups, with the primary one that the system's users have it.

    :param whose: the thing that belongs to him, for the message.
    :raises ExporterError: the given one, where root may not do that here, or that user can't read this program.
    """
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
            hint=f"move {Path(__file__).parents[1]} to where {account.pw_name} can read it, "
            "or install it with install.sh",
        )


def _can_import(names: Sequence[str]) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415  # slow to load, and most runs begin as this user

    try:
        return all(map(find_spec, names))
    except OSError:  # a zipapp that can't be opened any more
        return False


def name_of(uid: int) -> str:
    """A user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
