"""Whether the spool is private to its owner, on a local disk with free space, and intact."""

from __future__ import annotations

import os
import shlex
import stat
import time
from pathlib import Path
from typing import Callable

from agent.check.finding import NotWell
from agent.check.host import is_roots_choice, is_users_own, own_name
from agent.check.mounts import mount_of
from agent.check.shell_commands import set_key, stays
from agent.errors import LedgerDamaged
from agent.privilege import CALLER, name_of
from agent.spool.ledger import view_ledger
from agent.spool.lock import LONGEST_RUN_SECONDS, QUEUE_LOCK, RUN_LOCK, held_seconds, lock_holder
from agent.spool.owner import check_agreement, check_spool
from agent.wording import count, span

#: With less free space than this the ledger has no room to grow.
LEAST_FREE_BYTES = 100 << 20
LEAST_FREE_FILES = 1000
#: Holding the queue's lock for longer is a fault: a hook holds it for milliseconds.
STUCK_SECONDS = 1.0
_SHARED = (
    *("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "9p", "virtiofs", "afs", "gluster"),
    *("orangefs", "pvfs2", "panfs", "wekafs", "gfs2", "ocfs2"),
)
_VOLATILE = ("tmpfs", "ramfs")


def check_spool_folder(spool: Path, slurm_user: str, config: Path | None = None) -> str:
    """Whether the spool exists and belongs to the user that runs the hook, if that user is known.

    :param slurm_user: empty if no hook is expected.
    :param config: the configuration; outside /etc it is a user's own.
    """
    try:
        return _look_at_spool(spool, slurm_user, config)
    except NotWell as error:
        if not (is_roots_choice(spool, config) and stays(spool)):
            error.run = ""
        raise


def _look_at_spool(spool: Path, slurm_user: str, config: Path | None) -> str:
    user = slurm_user or own_name()
    if not spool.is_dir():
        raise NotWell(
            f"the folder {spool} does not exist",
            hint="create it, or set spool_dir if it has moved; the next reconcile delivers what was queued in it",
            run=f"install -d -o {shlex.quote(user)} -m 750 {shlex.quote(str(spool))}",
        )
    mode = spool.stat().st_mode
    if mode & stat.S_IWOTH:
        raise NotWell(f"{spool} is world-writable", hint="restrict it", run=f"chmod 750 {shlex.quote(str(spool))}")
    owner = name_of(spool.stat().st_uid)
    if slurm_user and owner != slurm_user:
        raise _of_another(spool, owner, slurm_user, config)
    if config and CALLER == 0:
        check_agreement(config, spool)
    check_spool(spool)
    for file in spool.iterdir():
        if file.lstat().st_uid != spool.stat().st_uid:
            raise NotWell(
                f"{file} belongs to {name_of(file.lstat().st_uid)}, so {owner} may be unable to use it",
                hint=f"give it to {owner}",
                run=f"chown -hR {owner} {shlex.quote(str(spool))}",
            )
    return f"{spool}, owned by {owner}"


def _of_another(spool: Path, owner: str, slurm_user: str, config: Path | None) -> NotWell:
    """A spool in a user's home stays that user's: the hook cannot write there, and need not."""
    if config is None or not is_users_own(config) or owner == "root":
        return NotWell(
            f"{spool} belongs to {owner}, but the hook runs as {slurm_user}",
            hint=f"give it to {slurm_user}",
            run=f"chown -R {shlex.quote(slurm_user)} {shlex.quote(str(spool))}",
        )
    sign = ":" if config.suffix == ".json" else " ="
    return NotWell(
        f"the hook runs as {slurm_user} and cannot write to {owner}'s own spool: the daily reconcile delivers all jobs",
        hint=f"set status_coverage_percent{sign} [0, 0] in {config} to expect no hook",
        run=set_key(config, "status_coverage_percent", [0, 0]),
    )


def check_space(spool: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> str:
    """Whether the spool has enough free space."""
    disk = statvfs(spool)
    free = disk.f_bavail * disk.f_frsize
    text = f"{free / 1e9:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        raise NotWell(f"only {text} in {spool}", hint="free some space: on a full disk the hook cannot queue anything")
    if disk.f_files and disk.f_favail < LEAST_FREE_FILES:
        raise NotWell(f"only {count(disk.f_favail, 'inode')} free in {spool}", hint="delete files on that filesystem")
    return text


def check_filesystem(spool: Path, mounts: str) -> str:
    """Whether the spool is on a local disk.

    :param mounts: the text of /proc/self/mounts.
    """
    kind = mount_of(spool.resolve(), mounts).kind
    hint = "move the spool to a local disk, with SLURM_USAGE_HISTORY_SPOOL=DIR ./install.sh"
    if kind.startswith(_SHARED):
        raise NotWell(
            f"{spool} is on {kind}, a shared filesystem: if its server hangs, the hook hangs and slurmctld cannot stop,"
            " and two hosts must not share a spool",
            hint=hint,
        )
    if kind.startswith("fuse"):
        raise NotWell(
            f"{spool} is on {kind}, a FUSE filesystem: if its process hangs, the hook hangs and slurmctld cannot stop",
            hint=hint,
        )
    if kind in _VOLATILE:
        raise NotWell(f"{spool} is on {kind}, which is lost at reboot", hint="move the spool to a disk")
    return kind


def check_locks(
    spool: Path,
    holder: Callable[[Path, str], int | None] = lock_holder,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Whether the queue's lock is stuck, and which process is running."""
    first = holder(spool, QUEUE_LOCK)
    if first:
        sleep(STUCK_SECONDS)
        if holder(spool, QUEUE_LOCK) == first:
            raise NotWell(
                f"process {first} has held {spool}/{QUEUE_LOCK} for more than {STUCK_SECONDS:g} s",
                hint=f"find out what it is: ps -p {first} -o args; meanwhile the hook writes to files beside the queue",
            )
    worker = holder(spool, RUN_LOCK)
    held = held_seconds(spool)
    if worker and held > LONGEST_RUN_SECONDS:
        raise NotWell(
            f"process {worker} has held {spool}/{RUN_LOCK} for {span(held)}, longer than a run may take",
            hint=f"find out what it is: ps -p {worker} -o args; end it, unless it is a long replay that you started",
        )
    return f"held by a run, process {worker}" if worker else "free"


def check_ledger(path: Path, flush: str = "") -> str:
    """Whether the ledger can be read, and how many jobs are waiting or rejected.

    :param flush: a shell command that runs a flush.
    """
    try:
        ledger = view_ledger(path)
    except LedgerDamaged as error:
        raise NotWell(str(error), hint=error.hint, run=flush) from error
    try:
        waiting, _ = ledger.waiting.count()
        return f"{waiting:,} waiting, {ledger.rejected.count():,} rejected"
    finally:
        ledger.close()
