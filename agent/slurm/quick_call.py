"""Calls of Slurm's commands that should return at once."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

from agent.errors import SlurmUnreachable
from agent.slurm.environment import make_environment
from agent.slurm.process import Output, run

#: Their time limit.
QUICK_SECONDS = 30


class QuickCalls:
    """Runs such commands.

    :param timeout: seconds for one call, if shorter than :data:`QUICK_SECONDS`.
    :param environ: the caller's environment, of which the commands inherit only a few variables.
    """

    def __init__(self, *, timeout: float, environ: Mapping[str, str]) -> None:
        self._timeout = min(QUICK_SECONDS, timeout)
        self._environment = make_environment(environ)

    def attempt(self, *argv: str) -> Output:
        """Runs a command to its end, whatever its exit status."""
        return run(argv, environment=self._environment, timeout=self._timeout)

    def run(self, *argv: str) -> Output:
        """Runs a command to its end.

        :raises SlurmUnreachable: where it fails.
        """
        output = self.attempt(*argv)
        if output.returncode:
            words = output.stderr.strip().splitlines()
            raise SlurmUnreachable(
                f"{' '.join(argv[:3])} failed: {words[0][:300] if words else 'no error message'}",
                hint="check that slurm.conf exists, and that munge, slurmctld and slurmdbd are running: scontrol ping",
            )
        return output


def locate(command: str, scontrol: str, sacct: str) -> str:
    """The path of another of Slurm's commands: beside sacct, or beside scontrol if this sacct is a wrapper elsewhere.

    >>> locate("squeue", "/opt/slurm/bin/scontrol", "/site/sacct"), locate("squeue", "scontrol", "sacct")
    ('/opt/slurm/bin/squeue', 'squeue')
    """
    path = _beside(sacct, command)
    return path if "/" not in path or Path(path).exists() else _beside(scontrol, command)


def _beside(known: str, command: str) -> str:
    return str(Path(known).with_name(command)) if "/" in known else command


def parse_settings(text: str) -> dict[str, str]:
    """The settings that ``scontrol show config`` and ``sacctmgr show configuration`` print.

    >>> parse_settings("ClusterName             = lab\\nHashPlugin = (null)")
    {'ClusterName': 'lab', 'HashPlugin': '(null)'}
    """
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}
