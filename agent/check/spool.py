"""What the spool has to be: its owner's alone, on a disk of this host with room on it, and sound."""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from pathlib import Path
from typing import Callable

from agent.check.finding import NotWell
from agent.check.host import is_roots_choice, is_users_own, own_name
from agent.check.mounts import mount_of
from agent.errors import LedgerDamaged
from agent.privilege import name_of
from agent.spool.ledger import LEFT, view_ledger
from agent.spool.lock import LONGEST_RUN_SECONDS, QUEUE_LOCK, RUN_LOCK, held_seconds, lock_holder
from agent.spool.owner import check_spool
from agent.wording import count, span

#: Less than this is no room for a ledger to grow in.
LEAST_FREE_BYTES = 100 << 20
LEAST_FREE_FILES = 1000
#: A hook holds the queue's lock for milliseconds.
STUCK_SECONDS = 1.0
_SHARED = (
    *("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "9p", "virtiofs", "afs", "gluster"),
    *("orangefs", "pvfs2", "panfs", "wekafs", "gfs2", "ocfs2"),
)
_VOLATILE = ("tmpfs", "ramfs")


def check_spool_folder(spool: Path, slurm_user: str, config: Path | None = None) -> str:
    """Whether the spool is there and belongs to the user that runs the hook, where that user is known.

    :param slurm_user: empty where nobody asks for a hook.
    :param config: the configuration; outside /etc it is one that a user has made for himself.
    """
    try:
        return _look_at_spool(spool, slurm_user, config)
    except NotWell as error:
        if not is_roots_choice(spool, config):
            error.run = ""
        raise


def _look_at_spool(spool: Path, slurm_user: str, config: Path | None) -> str:
    user = slurm_user or own_name()
    if not spool.is_dir():
        raise NotWell(
            f"there is no folder {spool}",
            hint="make it, or set spool_dir where it has moved; what was queued in it comes with the next reconcile",
            run=f"install -d -o {user} -m 750 {shlex.quote(str(spool))}",
        )
    mode = spool.stat().st_mode
    if mode & stat.S_IWOTH:
        raise NotWell(
            f"{spool} can be written by everybody", hint="close it", run=f"chmod 750 {shlex.quote(str(spool))}"
        )
    owner = name_of(spool.stat().st_uid)
    if slurm_user and owner != slurm_user:
        raise _of_another(spool, owner, slurm_user, config)
    check_spool(spool)
    for file in spool.iterdir():
        if file.lstat().st_uid != spool.stat().st_uid:
            raise NotWell(
                f"{file} belongs to {name_of(file.lstat().st_uid)}, so that {owner} may not be able to use it",
                hint=f"give it to {owner}",
                run=f"chown -hR {owner} {shlex.quote(str(spool))}",
            )
    return f"{spool}, of {owner}"


def _of_another(spool: Path, owner: str, slurm_user: str, config: Path | None) -> NotWell:
    """A spool in a user's home stays his: the hook can't write there, and need not."""
    if config is None or not is_users_own(config) or owner == "root":
        return NotWell(
            f"{spool} belongs to {owner}, but the hook runs as {slurm_user}",
            hint=f"give it to {slurm_user}",
            run=f"chown -R {slurm_user} {shlex.quote(str(spool))}",
        )
    line = "status_coverage_percent = [0, 0]"
    text = config.read_text(encoding="utf-8")
    is_plain = config.suffix == ".toml" and not re.search(r"^\s*status_coverage_percent", text, re.MULTILINE)
    return NotWell(
        f"the hook runs as {slurm_user} and can't write to {owner}'s own spool: the daily reconcile brings all jobs",
        hint=f"set {line.replace(' = ', ': ') if config.suffix == '.json' else line} in {config}, and no hook is asked"
        " for",
        run=f"sed -i {shlex.quote(f'1i {line}')} {shlex.quote(str(config))}" if is_plain else "",
    )


def check_space(spool: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> str:
    """Whether the spool has room for some more."""
    disk = statvfs(spool)
    free = disk.f_bavail * disk.f_frsize
    text = f"{free / 1e9:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        raise NotWell(f"only {text} in {spool}", hint="make room: without it the hook can queue nothing")
    if disk.f_files and disk.f_favail < LEAST_FREE_FILES:
        raise NotWell(f"only {count(disk.f_favail, 'file')} can be made in {spool}", hint="remove some files there")
    return text


def check_filesystem(spool: Path, mounts: str) -> str:
    """Whether the spool is on a disk of this host's.

    :param mounts: as /proc/self/mounts has them.
    """
    kind = mount_of(spool.resolve(), mounts).kind
    hint = "move the spool to a local disk, with SLURM_USAGE_HISTORY_SPOOL=DIR ./install.sh"
    if kind.startswith(_SHARED):
        raise NotWell(
            f"{spool} is on {kind}, a shared filesystem: when its server hangs, so do the hook and the stopping of"
            " slurmctld, and no two hosts may use one spool",
            hint=hint,
        )
    if kind.startswith("fuse"):
        raise NotWell(
            f"{spool} is on {kind}, a FUSE filesystem: when the process behind it hangs, so do the hook and the"
            " stopping of slurmctld",
            hint=hint,
        )
    if kind in _VOLATILE:
        raise NotWell(f"{spool} is on {kind}, which a reboot empties", hint="move the spool to a disk")
    return kind


def check_locks(
    spool: Path,
    holder: Callable[[Path, str], int | None] = lock_holder,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Whether nobody sits on the queue's lock, and who is at work."""
    first = holder(spool, QUEUE_LOCK)
    if first:
        sleep(STUCK_SECONDS)
        if holder(spool, QUEUE_LOCK) == first:
            raise NotWell(
                f"process {first} has held {spool}/{QUEUE_LOCK} for more than {STUCK_SECONDS:g} s",
                hint=f"see what it is: ps -p {first} -o args; the hook writes beside the queue meanwhile",
            )
    worker = holder(spool, RUN_LOCK)
    held = held_seconds(spool)
    if worker and held > LONGEST_RUN_SECONDS:
        raise NotWell(
            f"process {worker} has held {spool}/{RUN_LOCK} for {span(held)}, longer than a run may last",
            hint=f"see what it is: ps -p {worker} -o args; end it, unless it replays years by hand",
        )
    return f"process {worker} is at work" if worker else "free"


def check_ledger(path: Path, flush: str = "") -> str:
    """Whether the ledger can be read, and what it says is still to be done.

    :param flush: a line of shell that runs a flush.
    """
    try:
        ledger = view_ledger(path)
    except LedgerDamaged as error:
        raise NotWell(str(error), hint=LEFT, run=flush) from error
    try:
        waiting, _ = ledger.waiting.count()
        return f"{waiting:,} waiting, {ledger.rejected.count():,} rejected"
    finally:
        ledger.close()
