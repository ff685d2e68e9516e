"""What is needed of Slurm: daemons that answer, sufficient privileges, and a hook that it can call."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Callable, Mapping

from agent.check.finding import NotWell
from agent.check.shell_commands import RESTART_HINT, chmod, set_key, then_restart
from agent.check.wiring import Call, version_of
from agent.config import SYSTEM_SPOOL, Config
from agent.install_paths import is_missing
from agent.localtime import DAY_SECONDS
from agent.regular_file import read_regular
from agent.slurm.controller_hosts import controls
from agent.slurm.sacctmgr import parse_range
from agent.slurm.slurm import Slurm
from agent.slurm.slurm_conf import Conf, controllers_of
from agent.wording import count, span

_SPOOL_LINE = re.compile(r'^: "\$\{SLURM_USAGE_HISTORY_SPOOL:=(.*)\}"$', re.MULTILINE)
#: In a script that calls the hook once for each instance; adapt writes it, and admins extend it.
_CALL_LINE = re.compile(r"^\s*(?:SLURM_USAGE_HISTORY_SPOOL=(\S+)\s+)?\S*/jobcomp\.sh\b", re.MULTILINE)
_PATH_LINE = re.compile(r"^export PATH=(.*)$", re.MULTILINE)
#: The PATH under cron; systemd's lacks the last two.
SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def slurm_user(settings: Mapping[str, str]) -> str:
    """The name of slurm.conf's SlurmUser.

    >>> slurm_user({"SlurmUser": "slurm(64030)"})
    'slurm'
    """
    return settings.get("SlurmUser", "").partition("(")[0]


def check_commands(config: Config, found: Callable[[str], str | None] = shutil.which, *, alone: bool = False) -> str:
    """Whether the services find Slurm's commands, and not only the user who runs the check.

    :param found: finds a command in this process's PATH.
    :param alone: whether sacct is enough, because the cluster is on other hosts.
    """
    needed = [("sacct", config.sacct)] + ([] if alone else [("scontrol", config.scontrol)])
    for key, command in needed:
        if not shutil.which(command, path=SERVICE_PATH):
            raise NotWell(
                f"the services do not find {command}: {Path(found(command) or command).parent} is not in their PATH",
                hint=f'set {key} = "{found(command) or command}" in {config.path}',
                run=set_key(config.path, key, found(command) or command) if config.path else "",
            )
    return f"the services find {' and '.join(command for _, command in needed)}"


def is_elsewhere(config: Config, conf: Conf) -> bool:
    """Whether this host does not control ``slurm_cluster``, so that its jobs come from slurmdbd alone.

    :param conf: this host's slurm.conf, empty if there is none.
    """
    return config.slurm_cluster is not None and not controls(controllers_of(conf), config.slurm_cluster)


def check_cluster(config: Config, settings: Mapping[str, str]) -> str:
    """The cluster's name on the dashboard and in Slurm."""
    name = config.slurm_cluster or settings.get("ClusterName", "")
    if not config.cluster_name or config.cluster_name == name:
        return name
    return f"{config.cluster_name} on the dashboard, {name} in Slurm"


def check_slurmdbd(slurm: Slurm, settings: Mapping[str, str], clock: Callable[[], float] = time.time) -> str:
    """Whether sacct returns jobs of the right cluster from slurmdbd.

    :param settings: slurmctld's; empty if it does not answer, or this host has none.
    """
    storage = settings.get("AccountingStorageType", "")
    if settings and not storage.endswith("slurmdbd"):
        raise NotWell(
            f"AccountingStorageType is {storage or 'not set'}: Slurm does not store finished jobs",
            hint="set up slurmdbd, and set AccountingStorageType=accounting_storage/slurmdbd in slurm.conf",
        )
    began = clock()
    query = slurm.sacct.ask_window(int(began) - DAY_SECONDS, int(began))
    rows = sum(1 for _ in query.answer())  # parsing them checks each row's cluster
    hours = round((query.end - query.start) / 3600)
    ended = "in the last 24 hours" if hours == DAY_SECONDS // 3600 else f"within {count(hours, 'hour')} of the last day"
    return f"sacct returned {count(rows, 'job')} that ended {ended}, in {span(clock() - began)}"


def check_privileges(slurm: Slurm, user: str, settings: Mapping[str, str]) -> str:
    """Whether this user sees all users' jobs. Without that privilege sacct returns only their own, and exits 0.

    squeue likewise, if slurm.conf hides jobs: a preempted job that is still COMPLETING would look forgotten.

    :param settings: slurmctld's; empty if it does not answer, or this host has none.
    """
    database = slurm.sacctmgr.read_accounting_config()
    if user in {"root", slurm_user(database)}:
        return f"{user} sees all jobs"
    level = slurm.sacctmgr.admin_level(user)
    if level in {"Operator", "Administrator"}:
        return f"{user} sees all jobs, as {level}"
    file, visibility = "slurmdbd.conf", "hides"
    if not _hides_jobs(database):
        if user != slurm_user(settings) and _hides_jobs(settings):
            file = "slurm.conf"
        elif _keeps_to_itself(database):
            visibility = f"may hide (slurmdbd {database['SLURMDBD_VERSION']} does not report it)"
        else:
            return f"{user} sees all jobs, because PrivateData hides none{_limit(database)}"
    change = f"modify user {user} set" if level else f"add user {user} DefaultAccount=root"
    raise NotWell(
        f"PrivateData in {file} {visibility} other users' jobs from {user}",
        hint=f"sacctmgr {change} AdminLevel=Operator",
        run=f"sacctmgr -i {change} AdminLevel=Operator",
    )


def _hides_jobs(settings: Mapping[str, str]) -> bool:
    return bool({"jobs", "all"} & set(settings.get("PrivateData", "").lower().split(",")))


def _limit(database: Mapping[str, str]) -> str:
    """A note on MaxQueryTimeRange, which applies to users below Operator."""
    widest = parse_range(database.get("MaxQueryTimeRange", ""))
    return f", up to {span(widest)} at a time (MaxQueryTimeRange); an Operator has no such limit" if widest else ""


def check_gpus(settings: Mapping[str, str]) -> str:
    """Whether the accounting tracks the cluster's GPUs. If it does not, no job has GPU-hours."""
    tracked = [tres.strip() for tres in settings.get("AccountingStorageTRES", "").lower().split(",")]
    gpus = [tres for tres in tracked if tres.partition(":")[0] == "gres/gpu"]
    if gpus:
        return f"tracked by {', '.join(gpus)} in AccountingStorageTRES"
    if "gpu" not in {name.strip() for name in settings.get("GresTypes", "").lower().split(",")}:
        return "none in GresTypes"
    raise NotWell(
        "GresTypes has gpu, but AccountingStorageTRES lacks gres/gpu: the accounting tracks no GPU-hours",
        hint=f"add gres/gpu to AccountingStorageTRES in slurm.conf, and {RESTART_HINT}; it tracks GPUs from then on",
    )


def _keeps_to_itself(database: Mapping[str, str]) -> bool:
    """Whether this slurmdbd reports PrivateData = none whatever its value. Seen on 26.05.5, not on 24.11.5."""
    return version_of(database.get("SLURMDBD_VERSION", "")) >= (26, 5)


def check_hook(call: Call, spool: Path, installed: str) -> str:
    """Whether the Slurm user, as whom the check runs, can run the hook, and the hook writes to the agent's spool.

    :param installed: the path of the hook that should be called.
    """
    for script in (call.script, call.hook):
        _check_runs(script, installed)
    try:
        text = read_regular(call.hook)
    except OSError as error:
        raise NotWell(f"cannot read {call.hook}: {error.strerror}", hint="run install.sh again") from error
    path = _PATH_LINE.search(text)
    if not shutil.which("flock", path=path.group(1) if path else SERVICE_PATH):
        raise NotWell("flock, which the hook needs, is not installed", hint="install util-linux")
    spools = find_spools(text)
    if spools and spool not in spools:
        targets = " and ".join(map(str, spools))
        raise NotWell(f"the hook writes to {targets}, but the configured spool is {spool}", hint=_move(text, spool))
    through = "" if call.script == call.hook else f", called by {call.script}"
    return f"writes to {' and '.join(map(str, spools or [SYSTEM_SPOOL]))}{through}"


def find_spools(text: str) -> list[Path]:
    """The spool that a hook writes to; for a script that calls it for several instances, all their spools.

    >>> find_spools("SLURM_USAGE_HISTORY_SPOOL=/var/spool/one /opt/jobcomp.sh\\n/opt/jobcomp.sh")
    [PosixPath('/var/spool/one'), PosixPath('/var/spool/slurm-usage-history-exporter')]
    """
    own = _SPOOL_LINE.search(text)
    if own:
        return [Path(own[1])]
    return [Path(spool) if spool else SYSTEM_SPOOL for spool in _CALL_LINE.findall(text)]


def _move(text: str, spool: Path) -> str:
    if _SPOOL_LINE.search(text):
        return f"run SLURM_USAGE_HISTORY_SPOOL={spool} ./install.sh again"
    return f"add a line with SLURM_USAGE_HISTORY_SPOOL={spool} to the script that slurmctld calls"


def _check_runs(script: Path, installed: str) -> None:
    if os.access(script, os.R_OK | os.X_OK):
        return
    if is_missing(script):
        raise NotWell(f"{script} does not exist", hint=f"run install.sh again, and {RESTART_HINT}")
    closed = next((path for path in reversed(script.parents) if not os.access(path, os.X_OK)), None)
    mode, path = ("a+x", closed) if closed else ("a+rx", script)
    # slurmctld, run by the Slurm user, may report any other path: /root/jobcomp.sh, or a link to /etc/shadow.
    line = chmod(mode, path) if str(script) == installed else ""
    verb = "enter" if closed else "read and execute"
    raise NotWell(
        f"the Slurm user cannot {verb} {path}",
        hint=f"{line or f'let that user {verb} it'}, and {RESTART_HINT}",
        run=then_restart(line),
    )
