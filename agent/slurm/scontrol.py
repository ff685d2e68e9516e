"""Asks slurmctld: for its configuration, and for the states of jobs."""

from __future__ import annotations

from typing import Mapping, Sequence

from agent.slurm.controller_hosts import Controllers, parse_controllers
from agent.slurm.quick_call import QuickCalls, locate, parse_settings
from agent.slurm.squeue import make_squeue_argv, parse_states


class Scontrol:
    """Calls scontrol and squeue.

    :param scontrol: the command or its path.
    :param sacct: likewise; squeue is expected in the folder of one of them.
    :param timeout: see :class:`QuickCalls`.
    :param environ: likewise.
    :param cluster: Slurm's name of the cluster to ask about, None for the one in this host's slurm.conf.
    """

    def __init__(
        self, scontrol: str, sacct: str, *, timeout: float, environ: Mapping[str, str], cluster: str | None = None
    ) -> None:
        self._scontrol = scontrol
        self._squeue = locate("squeue", scontrol, sacct)
        self._cluster = cluster
        self._calls = QuickCalls(timeout=timeout, environ=environ)

    def read_config(self) -> dict[str, str]:
        """The settings of ``scontrol show config``: slurm.conf as slurmctld last read it.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return parse_settings(self._calls.run(self._scontrol, "show", "config").text)

    def controllers(self) -> Controllers:
        """The controllers of the cluster, according to slurmctld.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return parse_controllers(self.read_config())

    def job_states(self, raw_ids: Sequence[int]) -> dict[int, str]:
        """The states, such as COMPLETING, of the given jobs that slurmctld knows, by raw ID.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return parse_states(self._calls.attempt(*make_squeue_argv(self._squeue, raw_ids, self._cluster)))
