"""Asks slurmctld and slurmdbd for everything except job records: configuration, clusters, rights, states of jobs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Mapping, Sequence

from agent.errors import SlurmUnreachable
from agent.slurm.controllers import Controllers, parse_controllers
from agent.slurm.environment import make_environment
from agent.slurm.process import Output, run
from agent.slurm.squeue import ask_states

#: The time limit of a call that should return at once.
QUICK_SECONDS = 30
_DAYS_AND_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", re.ASCII)


class Scontrol:
    """Calls scontrol, squeue and sacctmgr.

    :param scontrol: the command or its path.
    :param sacct: likewise; the other commands are expected in its folder.
    :param timeout: seconds for one call, if shorter than :data:`QUICK_SECONDS`.
    :param environ: the caller's environment, of which the commands inherit only a few variables.
    :param cluster: Slurm's name of the cluster to ask about, None for the one in this host's slurm.conf.
    """

    def __init__(
        self, scontrol: str, sacct: str, *, timeout: float, environ: Mapping[str, str], cluster: str | None = None
    ) -> None:
        self._scontrol = scontrol
        self._sacct = sacct
        self._cluster = cluster
        self._timeout = min(QUICK_SECONDS, timeout)
        self._environment = make_environment(environ)

    def read_config(self) -> dict[str, str]:
        """The settings of ``scontrol show config``: slurm.conf as slurmctld last read it.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return _parse_settings(self._print(self._scontrol, "show", "config"))

    def controllers(self) -> Controllers:
        """The controllers of the cluster, according to slurmctld.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return parse_controllers(self.read_config())

    def job_states(self, raw_ids: Sequence[int]) -> dict[int, str]:
        """The states, such as COMPLETING, of the given jobs that slurmctld knows, by raw ID.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return ask_states(
            self._beside_sacct("squeue"),
            raw_ids,
            cluster=self._cluster,
            environment=self._environment,
            timeout=self._timeout,
        )

    def read_accounting_config(self) -> dict[str, str]:
        """slurmdbd's own settings, from ``sacctmgr show configuration``.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        printed = self._print(self._beside_sacct("sacctmgr"), "show", "configuration")
        _, _, text = printed.partition("SlurmDBD configuration:")
        return _parse_settings(text)

    def widest_range(self) -> int | None:
        """slurmdbd's MaxQueryTimeRange in seconds, which limits users who are not Operators; None if unlimited.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        return parse_range(self.read_accounting_config().get("MaxQueryTimeRange", ""))

    def clusters(self) -> set[str]:
        """The names of the clusters that slurmdbd knows.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        return self.list_clusters()[0]

    def list_clusters(self) -> tuple[set[str], str]:
        """The names of the clusters that slurmdbd knows, and what sacctmgr printed on standard error.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        selection = ("--noheader", "--parsable2", "show", "cluster", "format=Cluster")
        output = self._run(self._beside_sacct("sacctmgr"), *selection)
        return set(output.text.split()), output.stderr

    def admin_level(self, user: str) -> str:
        """The user's AdminLevel: None, Operator or Administrator; empty for a user that slurmdbd does not know.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        selection = ("--noheader", "--parsable2", "show", "user", f"user={user}", "format=AdminLevel")
        return self._print(self._beside_sacct("sacctmgr"), *selection).strip()

    def _beside_sacct(self, command: str) -> str:
        """The path of another Slurm command, in the folder of sacct."""
        return str(Path(self._sacct).with_name(command)) if "/" in self._sacct else command

    def _print(self, *argv: str) -> str:
        """The standard output of a command."""
        return self._run(*argv).text

    def _run(self, *argv: str) -> Output:
        """Runs a command that should return at once.

        :raises SlurmUnreachable: where it fails.
        """
        output = run(argv, environment=self._environment, timeout=self._timeout)
        if output.returncode:
            words = output.stderr.strip().splitlines()
            raise SlurmUnreachable(
                f"{' '.join(argv[:3])} failed: {words[0][:300] if words else 'no error message'}",
                hint="check that slurm.conf exists, and that munge, slurmctld and slurmdbd are running: scontrol ping",
            )
        return output


def parse_range(text: str) -> int | None:
    """A MaxQueryTimeRange, as sacctmgr prints it, in seconds; None for UNLIMITED and anything that is not a time.

    >>> parse_range("7-00:00:00"), parse_range("12:00:00"), parse_range("UNLIMITED")
    (604800, 43200, None)
    """
    match = _DAYS_AND_TIME.fullmatch(text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _parse_settings(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}
