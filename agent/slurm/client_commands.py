"""Slurm's client commands: where they are, and calls of them that should return at once."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

from agent.config import Config
from agent.errors import SlurmUnreachable
from agent.slurm.environment import make_environment
from agent.slurm.process import Output, run

#: The time limit of such a call, unless ``sacct_timeout`` is shorter.
QUICK_SECONDS = 30


class ClientCommands:
    """Finds and runs the commands.

    :param environ: the caller's environment, of which they inherit only a few variables.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._known = (config.sacct, config.scontrol)
        self._timeout = min(QUICK_SECONDS, config.sacct_timeout)
        self._environment = make_environment(environ)

    def locate(self, command: str) -> str:
        """The path of another command: beside sacct, or beside scontrol if this sacct is a wrapper elsewhere."""
        beside_sacct, beside_scontrol = (
            str(Path(known).with_name(command)) if "/" in known else command for known in self._known
        )
        is_there = "/" not in beside_sacct or Path(beside_sacct).exists()
        return beside_sacct if is_there else beside_scontrol

    def attempt(self, *argv: str) -> Output:
        """Runs a command to its end, whatever its exit status."""
        return run(argv, environment=self._environment, timeout=self._timeout)

    def run(self, *argv: str) -> Output:
        """Runs a command to its end.

        :raises SlurmUnreachable: if it fails.
        """
        output = self.attempt(*argv)
        if output.returncode:
            words = output.stderr.strip().splitlines()
            raise SlurmUnreachable(
                f"{' '.join(argv[:3])} failed: {words[0][:300] if words else 'no error message'}",
                hint="check that slurm.conf exists, and that munge, slurmctld and slurmdbd are running: scontrol ping",
            )
        return output


def parse_settings(text: str) -> dict[str, str]:
    """The settings that ``scontrol show config`` and ``sacctmgr show configuration`` print.

    >>> parse_settings("ClusterName             = lab\\nHashPlugin = (null)")
    {'ClusterName': 'lab', 'HashPlugin': '(null)'}
    """
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}
