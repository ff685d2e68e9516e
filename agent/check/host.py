"""What this host has to have: Python, a configuration that is kept secret, and a sound spool."""

from __future__ import annotations

import os
import platform
import pwd
import re
import shlex
import stat
import sys
import time
from pathlib import Path
from typing import Callable

from agent.check.finding import NotWell
from agent.config import (
    NAME,
    PLACEHOLDER,
    PLAIN_HTTP,
    PLAIN_HTTP_HINT,
    SYSTEM_FOLDER,
    SYSTEM_SPOOL,
    Config,
    is_exposed,
    is_plain_http,
    passed_over,
)
from agent.errors import LedgerDamaged
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


def check_python() -> str:
    """Which Python this is: it runs, so it will do."""
    return f"{platform.python_version()}, {sys.executable}"


def check_configuration(config: Config) -> str:
    """Whether the configuration, which has been read, is the only one and has been filled in."""
    beside = passed_over(config.path) if config.path else None
    if beside:
        raise NotWell(f"{beside} is ignored because {config.path} takes precedence", hint="remove one of the two")
    if config.api_key == PLACEHOLDER:
        raise NotWell(f"{config.path} still has the example's API key", hint=f"fill it in, or run `{NAME} setup`")
    if is_plain_http(config.api_url) and not config.allow_http:
        raise NotWell(PLAIN_HTTP.format(config.api_url), hint=PLAIN_HTTP_HINT)
    return str(config.path)


def check_secrecy(config: Config) -> str:
    """Whether the Slurm user, as whom the check runs by now, can read the configuration, and nobody else can."""
    for path in filter(None, (config.path, config.api_key_file)):
        if not os.access(path, os.R_OK):
            if path != config.path and not is_roots_choice(path, config.path):
                raise NotWell(f"{own_name()} can't read {path}", hint="name a file of that user's own as api_key_file")
            raise NotWell(
                f"{own_name()} can't read {path}",
                hint=f"chown {own_name()} {path}",
                run=f"chown {own_name()} {shlex.quote(str(path))}",
            )
        if is_exposed(path):
            raise NotWell(
                f"{path} holds the API key, but other users can read or write it",
                hint=f"chmod 600 {path}",
                run=f"chmod 600 {shlex.quote(str(path))}",
            )
    return f"only {own_name()} can read it"


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


def is_roots_choice(path: Path, config: Path | None) -> bool:
    """Whether root may be asked to change a file or a folder that the configuration names.

    The configuration is the Slurm user's: it could name /etc, for root to give away.
    """
    if path.parent == SYSTEM_SPOOL.parent and path.name.partition("@")[0] == NAME:
        return True
    if config is None or not config.exists():
        return True
    return config.stat().st_uid in {0, path.stat().st_uid if path.exists() else 0}


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


def is_users_own(config: Path) -> bool:
    """Whether a configuration belongs to an installation that a user has made for himself: the host's are in /etc."""
    return Path("/etc") not in config.resolve().parents


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
    kind = filesystem_of(spool.resolve(), mounts)
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


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the filesystem that a path is on.

    >>> filesystem_of(Path("/var/spool"), "a / ext4 rw 0 0\\nb /var nfs4 rw 0 0\\nc /va xfs rw 0 0")
    'nfs4'
    """
    best = (0, "unknown")
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split()
        place = Path(point.replace("\\040", " "))
        if place == path or place in path.parents:
            best = max(best, (len(place.parts), kind), key=lambda found: found[0])
    return best[1]


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


def check_metrics(config: Config, sandbox: str) -> str:
    """Whether the metrics can be written, as far as that can be told from outside the services' sandbox.

    :param sandbox: the flush service's ReadWritePaths, empty where it has none.
    """
    if not config.metrics_file:
        return "not asked for"
    folder = config.metrics_file.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotWell(f"{own_name()} can't write to {folder}", hint=f"make {folder} writable for {own_name()}")
    allowed = [Path(place.lstrip("-+")) for place in sandbox.split()]
    if allowed and not any(place == folder or place in folder.parents for place in allowed):
        raise NotWell(
            f"the services' sandbox keeps them from writing to {folder}",
            hint=f"systemctl edit {NAME}.service {NAME}-flush.service: [Service], ReadWritePaths={folder}",
            run=_open_sandbox(folder),
        )
    return str(config.metrics_file)


def _open_sandbox(folder: Path) -> str:
    """A line of shell that does what ``systemctl edit`` would."""
    form = shlex.quote("[Service]\nReadWritePaths=%s\n")
    place = "/etc/systemd/system/$unit.service.d"
    return (
        f"for unit in {NAME} {NAME}-flush; do mkdir -p {place} &&"
        f" printf {form} {shlex.quote(str(folder))} >{place}/metrics.conf; done; systemctl daemon-reload"
    )


def find_hook(
    environment: Path = Path(sys.prefix), package: Path = Path(__file__).parents[1], *, instance: str = ""
) -> str:
    """Where the hook lies: where a package puts it, beside install.sh's virtual environment, or in the checkout.

    An instance's is the script that adapt has made for it.
    """
    if instance:
        return str(SYSTEM_FOLDER / instance / "jobcomp.sh")
    packaged = [Path("/usr/libexec") / NAME / "jobcomp.sh"] if package.parent == Path("/usr/share") / NAME else []
    for path in (*packaged, environment.parent / "bin" / "jobcomp.sh", package.parent / "hooks" / "jobcomp.sh"):
        if _may_be_there(path):
            return str(path)
    return "/path/to/jobcomp.sh"


def _may_be_there(path: Path) -> bool:
    return path.exists() if os.access(path.parent, os.X_OK) else path.parent.is_dir()


def own_name() -> str:
    """The user that this process runs as."""
    return name_of(os.geteuid())


def name_of(uid: int) -> str:
    """A user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
