"""What has to start the runs: systemd's timers, or cron."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Mapping, Sequence

from agent.check.finding import NotWell
from agent.config import NAME
from agent.errors import SlurmUnreachable
from agent.slurm.process import Output

RECONCILE = NAME
FLUSH = f"{NAME}-flush"
CRON = Path("/etc/cron.d") / NAME
_UNITS = (f"{RECONCILE}.timer", f"{RECONCILE}.service", f"{FLUSH}.timer", f"{FLUSH}.service", f"{FLUSH}.path")
_PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,LastTriggerUSec,Result,ExecMainStatus,ReadWritePaths"

#: Runs a command; raises SlurmUnreachable where there is none.
Run = Callable[[Sequence[str]], Output]


class Units:
    """The exporter's units, as systemd knows them.

    :param properties: of each unit that is there, by its name.
    :param manager: how systemctl is called for them.
    """

    def __init__(self, properties: Mapping[str, Mapping[str, str]], manager: str = "systemctl") -> None:
        self._properties = properties
        self.manager = manager

    def __getitem__(self, unit: str) -> Mapping[str, str]:
        return self._properties.get(unit, {})

    def __contains__(self, unit: str) -> bool:
        return unit in self._properties


def read_units(run: Run) -> Units:
    """The units of the system, else the user's own, else none."""
    for manager in (("systemctl",), ("systemctl", "--user")):
        try:
            output = run([*manager, "show", *_UNITS, f"--property={_PROPERTIES}"])
        except SlurmUnreachable:  # no systemctl at all
            break
        units = parse_units(output.text)
        if units:
            return Units(units, " ".join(manager))
    return Units({})


def parse_units(text: str) -> dict[str, dict[str, str]]:
    """The properties of the units that are there, from what ``systemctl show`` prints."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if block.get("LoadState") == "loaded"}


def check_timer(units: Units, name: str, cron: Path = CRON) -> str:
    """Whether a timer is active, and stays so, and how its last run ended."""
    timer, service = f"{name}.timer", f"{name}.service"
    if timer not in units:
        if cron.exists():
            return f"cron, by {cron}"
        raise NotWell(f"there is neither {timer} nor {cron}", hint="run install.sh again")
    unit, enable = units[timer], f"{units.manager} enable --now {timer}"
    if unit["ActiveState"] != "active":
        raise NotWell(f"{timer} is {unit['ActiveState']}", hint=enable)
    if unit["UnitFileState"] != "enabled":
        raise NotWell(f"{timer} will be gone after a reboot", hint=enable)
    _check_last_run(units, service)
    ran = unit["LastTriggerUSec"]
    return f"active, last ran {ran}" if ran else "active, has not run yet"


def _check_last_run(units: Units, service: str) -> None:
    result, status = units[service].get("Result", "success"), units[service].get("ExecMainStatus", "0")
    if result != "success":
        journal = "journalctl --user" if "--user" in units.manager else "journalctl"
        raise NotWell(
            f"the last run of {service} failed: {result}, exit status {status}",
            hint=f"{journal} -u {service} -n 20",
        )


def check_path_unit(units: Units) -> str:
    """Whether the path unit watches, where it is wanted."""
    unit = units[f"{FLUSH}.path"]
    state = unit.get("ActiveState", "inactive")
    if state == "active":
        return "active: a flush within seconds of a job's end"
    if state == "failed" or unit.get("UnitFileState") == "enabled":
        raise NotWell(f"{FLUSH}.path is {state}", hint=f"{units.manager} restart {FLUSH}.path")
    return "not enabled, which is fine: the timer flushes"
