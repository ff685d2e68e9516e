"""Whether systemd's timers, or cron, start the runs."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Callable, Mapping, NamedTuple

from agent.check.daemons import is_running, parse_units
from agent.check.finding import NotWell
from agent.config import NAME
from agent.errors import ConfigError, KeyRefused, RecordsRejected, SlurmUnreachable, Unreachable
from agent.slurm.process import RunCommand
from agent.wording import moment, name_instance

RECONCILE = NAME
FLUSH = f"{NAME}-flush"
CRON = Path("/etc/cron.d") / NAME
LINGER = Path("/var/lib/systemd/linger")
_UNITS = (f"{RECONCILE}.timer", f"{RECONCILE}.service", f"{FLUSH}.timer", f"{FLUSH}.service", f"{FLUSH}.path")
_PROPERTIES = (
    "Id,LoadState,ActiveState,UnitFileState,LastTriggerUSec,Result,ExecMainStatus,ExecMainExitTimestamp,ReadWritePaths"
)
#: How systemd prints a time that has not occurred.
_NEVER = {"", "n/a", "0"}
_CRON_DAEMONS = {"cron", "crond", "fcron", "cronie", "dcron", "busybox-crond"}
#: Failures whose cause the other checks test, by exit status.
_TESTED = {
    Unreachable.exit_code: "the dashboard or Slurm was unreachable",
    KeyRefused.exit_code: "the dashboard refused the API key",
    ConfigError.exit_code: "the configuration was wrong",
}


class Units:
    """The exporter's units, as systemd reports them.

    :param properties: of each unit that exists, by its name.
    :param manager: the systemctl command for them.
    :param silent: whether the units are installed, but the user's own systemd cannot be reached.
    """

    def __init__(
        self, properties: Mapping[str, Mapping[str, str]], manager: str = "systemctl", *, silent: bool = False
    ) -> None:
        self._properties = properties
        self.manager = manager
        self.silent = silent

    def __getitem__(self, unit: str) -> Mapping[str, str]:
        return self._properties.get(unit, {})

    def __contains__(self, unit: str) -> bool:
        return unit in self._properties


class Cron(NamedTuple):
    """Where a crontab may list the runs, and whether a cron daemon is running."""

    file: Path = CRON
    processes: Path = Path("/proc")
    run: RunCommand | None = None
    instance: str = ""

    def table(self) -> str:
        """The crontab that lists the exporter; empty if there is none."""
        if self.instance:
            files = sorted(self.file.parent.glob("*"))
            return next((str(file) for file in files if self._is_named_in(_read(file))), "")
        if self.file.exists():
            return str(self.file)
        try:
            listed = self.run(["crontab", "-l"]).text if self.run else ""
        except SlurmUnreachable:  # no crontab
            return ""
        lines = [line for line in listed.splitlines() if NAME in line and not line.lstrip().startswith("#")]
        return "crontab -l" if lines else ""

    def _is_named_in(self, text: str) -> bool:
        return f"{NAME} --instance {self.instance} " in text

    def is_alive(self) -> bool:
        """Whether a cron daemon is running."""
        return is_running(_CRON_DAEMONS, self.processes)


def read_units(
    run: RunCommand, environ: Mapping[str, str], instance: str = "", *, own_folder: Path | None = None
) -> Units:
    """The system's units, otherwise the user's own. An instance's are returned under the plain units' names.

    :param own_folder: ~/.config of a user with an installation of their own; the system's units are not theirs.
    """
    names = [name_instance(unit, instance) for unit in _UNITS]
    managers = [["systemctl"], ["systemctl", "--user"]]
    for manager in managers if own_folder is None else managers[1:]:
        try:
            output = run([*manager, "show", *names, f"--property={_PROPERTIES}"])
        except SlurmUnreachable:  # no systemctl at all
            return Units({})
        found = parse_units(output.text)
        units = {unit: found[name] for unit, name in zip(_UNITS, names) if name in found}
        if units:
            return Units(units, " ".join(manager))
    folder = own_folder or Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
    units_there = os.path.exists(folder / "systemd" / "user" / _UNITS[0])  # noqa: PTH110  # raises nothing
    return Units({}, "systemctl --user", silent=units_there)


def is_wanted(units: Units, name: str) -> bool:
    """Whether a timer is active or enabled."""
    unit = units[f"{name}.timer"]
    return unit.get("ActiveState") == "active" or unit.get("UnitFileState") == "enabled"


def check_timer(
    units: Units, name: str, cron: Cron, user: str, *, rest_is_well: bool = False, linger: Path = LINGER
) -> str:
    """Whether a timer is active and enabled, and how its last run ended.

    :param user: the user whose systemd it is, if it is not the system's.
    :param rest_is_well: whether all other checks have just passed.
    """
    timer, service = f"{name}.timer", f"{name}.service"
    if timer not in units:
        return _check_cron(units, timer, cron, user)
    unit, enable = units[timer], f"{units.manager} enable --now {timer}"
    if unit["ActiveState"] != "active":
        raise NotWell(f"{timer} is {unit['ActiveState']}", hint="enable it", run=enable)
    if unit["UnitFileState"] != "enabled":
        raise NotWell(f"{timer} is not enabled and will not start at boot", hint="enable it", run=enable)
    if "--user" in units.manager and not os.path.exists(linger / user):  # noqa: PTH110  # raises nothing
        raise NotWell(
            f"{timer} stops when {user} logs out",
            hint="enable lingering; if you are not allowed to, root can",
            run=f"loginctl enable-linger {user}",
        )
    reported = _check_last_run(units, service, rest_is_well=rest_is_well)
    ran = unit["LastTriggerUSec"]
    return reported or (f"active, last ran {ran}" if ran not in _NEVER else "active, has not run yet")


def _check_cron(units: Units, timer: str, cron: Cron, user: str) -> str:
    table = cron.table()
    if table and cron.is_alive():
        return f"cron, from {table}"
    if table:
        raise NotWell(
            f"{table} lists the runs, but no cron daemon is running",
            hint="install and start one (Debian: cron, EL: cronie), or run install.sh without --no-systemd",
            run="systemctl enable --now cron || systemctl enable --now crond",
        )
    if units.silent:
        raise NotWell(
            f"{timer} is installed, but {user}'s own systemd is unreachable: {user} has no session, or only one opened"
            " by su or sudo",
            hint="enable lingering (root can, if you are not allowed to) and log in by ssh; without a login:"
            f" export XDG_RUNTIME_DIR=/run/user/{os.geteuid()}",
            run=f"loginctl enable-linger {user}",
        )
    raise NotWell(f"neither {timer} nor {cron.file} exists", hint="run install.sh again")


def _check_last_run(units: Units, service: str, *, rest_is_well: bool, now: Callable[[], float] = time.time) -> str:
    """A note on a failure that is over; empty if there was none. Raises a failure that persists."""
    result, status = units[service].get("Result", "success"), units[service].get("ExecMainStatus", "0")
    if result == "success":
        return ""
    ended = parse_timestamp(units[service].get("ExecMainExitTimestamp", ""))
    when = f" at {moment(ended, now())}" if ended else ""
    why = _TESTED.get(int(status)) if result == "exit-code" and status.isdigit() else None
    start = f"{units.manager} start {service}"
    if why and rest_is_well:
        return f"active; its last run{when} failed because {why}. That is fixed; the next run should succeed: {start}"
    if result == "exit-code" and status == str(RecordsRejected.exit_code):
        raise NotWell(
            f"the dashboard refused records in the last run of {service}{when}; the others were delivered",
            hint=f"list them with `{NAME} queue list`; fix the cause, then have the next flush send them again",
            run=f"{NAME} queue retry && {start}",
        )
    journal = "journalctl --user" if "--user" in units.manager else "journalctl"
    raise NotWell(
        f"the last run of {service}{when} failed: {result}, exit status {status}{f' ({why})' if why else ''}",
        hint=f"see why with {journal} -u {service} -n 20; fix that, then start it",
        run=start,
    )


def check_path_unit(units: Units) -> str:
    """Whether the path unit is watching, if it is enabled."""
    unit = units[f"{FLUSH}.path"]
    state = unit.get("ActiveState", "inactive")
    if state == "active":
        return "active: flushes within seconds of a job's end"
    if state == "failed" or unit.get("UnitFileState") == "enabled":
        raise NotWell(f"{FLUSH}.path is {state}", hint="restart it", run=f"{units.manager} restart {FLUSH}.path")
    return "not enabled (optional): the timer flushes"


def parse_timestamp(text: str) -> float | None:
    """Parses a time as systemctl prints it, ``Mon 2026-11-23 02:11:09 UTC``; None if it is not one."""
    words = text.split()
    if len(words) < 3:
        return None
    try:
        return datetime.strptime(" ".join(words[1:3]), "%Y-%m-%d %H:%M:%S").timestamp()  # local
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # for example a process that has ended
        return ""
