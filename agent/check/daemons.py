"""The daemons on this host. If one is down, the Slurm command that fails for it reports only the symptom."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Container, Mapping

from agent.check.finding import NotWell
from agent.errors import SlurmUnreachable
from agent.slurm.process import RunCommand

DATABASES = ("mariadb", "mysql", "mysqld")
#: In the order in which they depend on one another.
DAEMONS = ("munge", *DATABASES, "slurmdbd", "slurmctld")


def read_daemons(run: RunCommand) -> dict[str, str]:
    """The ActiveState of each daemon that has a systemd unit on this host, by name."""
    names = [f"{name}.service" for name in DAEMONS]
    try:
        output = run(["systemctl", "show", *names, "--property=Id,LoadState,ActiveState"])
    except SlurmUnreachable:  # no systemctl
        return {}
    return {unit.partition(".")[0]: found.get("ActiveState", "") for unit, found in parse_units(output.text).items()}


def parse_units(text: str) -> dict[str, dict[str, str]]:
    """The properties of the units that exist, from the output of ``systemctl show``."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if block.get("LoadState") == "loaded" and "Id" in block}


def is_running(names: Container[str], processes: Path = Path("/proc")) -> bool:
    """Whether a process with one of these names runs on this host."""
    for name in processes.glob("[0-9]*/comm"):
        with suppress(OSError):  # for example a process that has ended
            if name.read_text(encoding="utf-8", errors="replace").strip() in names:
                return True
    return False


def explain(error: SlurmUnreachable, daemons: Mapping[str, str], *needed: str) -> SlurmUnreachable | NotWell:
    """Replaces an error of a Slurm command with its cause, if that is on this host.

    :param needed: the daemons that the command depends on besides munge, the nearest first.
    """
    if "munge" in str(error).lower():
        state = daemons.get("munge", "")
        verb = "restart" if state == "active" else "start"
        down = "" if state in {"", "active"} else f" (munge.service is {state})"
        return NotWell(
            f"munge does not answer{down}, and no Slurm command works without it: {error}",
            hint=f"{verb} munge, and read its log, /var/log/munge/munged.log",
            run=f"systemctl {verb} munge" if state else "",
        )
    for daemon in needed:
        state = daemons.get(daemon, "active")
        if state not in {"active", "reloading"}:
            return NotWell(
                f"{daemon}.service is {state} on this host: {error}",
                hint=f"start it; journalctl -u {daemon} -n 20 shows why it stopped",
                run=f"systemctl start {daemon}",
            )
    return error
