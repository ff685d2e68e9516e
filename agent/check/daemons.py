"""Which daemon is down, where one of Slurm's commands fails: they complain of the symptom, not of the cause."""

from __future__ import annotations

from typing import Mapping

from agent.check.finding import NotWell
from agent.errors import SlurmUnreachable
from agent.slurm.process import RunCommand

#: In the order in which they need one another.
DAEMONS = ("munge", "mariadb", "mysql", "mysqld", "slurmdbd", "slurmctld")
_DATABASES = ("mariadb", "mysql", "mysqld")


def read_daemons(run: RunCommand) -> dict[str, str]:
    """ActiveState of the daemons that systemd has a unit for on this host, by name."""
    names = [f"{name}.service" for name in DAEMONS]
    try:
        output = run(["systemctl", "show", *names, "--property=Id,LoadState,ActiveState"])
    except SlurmUnreachable:  # no systemctl
        return {}
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.text.split("\n\n")
    ]
    return {
        block["Id"].partition(".")[0]: block.get("ActiveState", "")
        for block in blocks
        if block.get("LoadState") == "loaded" and "Id" in block
    }


def explain(error: SlurmUnreachable, daemons: Mapping[str, str], *needed: str) -> SlurmUnreachable | NotWell:
    """What to tell instead of an error of Slurm's commands, where the cause is on this host.

    :param needed: the daemons that the command needs beside munge, the first in need first.
    """
    if "munge" in str(error).lower():
        state = daemons.get("munge", "")
        verb = "restart" if state == "active" else "start"
        return NotWell(
            f"munge does not answer{_state(state)}, and without it no command of Slurm works: {error}",
            hint=f"{verb} munge, and see its log, /var/log/munge/munged.log",
            run=f"systemctl {verb} munge" if state else "",
        )
    for name in needed:
        databases = [database for database in _DATABASES if database in daemons] if name == "database" else [name]
        for daemon in databases:
            state = daemons.get(daemon, "active")
            if state not in {"active", "reloading"}:
                return NotWell(
                    f"{daemon}.service is {state} on this host: {error}",
                    hint=f"start it; journalctl -u {daemon} -n 20 shows why it ended",
                    run=f"systemctl start {daemon}",
                )
    return error


def _state(state: str) -> str:
    return "" if state in {"", "active"} else f" (munge.service is {state})"
