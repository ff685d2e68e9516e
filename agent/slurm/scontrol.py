"""Asks slurmctld: for its configuration, and for the states of jobs."""

from __future__ import annotations

import re
from typing import Mapping, Sequence

from agent.config import Config
from agent.errors import SlurmUnreachable
from agent.slurm.client_commands import ClientCommands, parse_settings
from agent.slurm.controller_hosts import Controllers, parse_controllers
from agent.slurm.process import Output

#: squeue's error for a single job that slurmctld does not know. Given several jobs, it just omits the unknown ones.
_NOT_KNOWN = "Invalid job id specified"
_STATE_LINE = re.compile(r"([0-9]+)\|([A-Z_]+)", re.ASCII)


class Scontrol:
    """Calls scontrol and squeue. Each method raises SlurmUnreachable if slurmctld does not answer."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._config = config
        self._commands = ClientCommands(config, environ)

    def read_config(self) -> dict[str, str]:
        """The settings of ``scontrol show config``: slurm.conf as slurmctld last read it."""
        return parse_settings(self._commands.run(self._config.scontrol, "show", "config").text)

    def controllers(self) -> Controllers:
        """The controllers of the cluster, according to slurmctld."""
        return parse_controllers(self.read_config())

    def job_states(self, raw_ids: Sequence[int]) -> dict[int, str]:
        """The states, such as COMPLETING, of the given jobs that slurmctld knows, by raw ID."""
        argv = make_squeue_argv(self._commands.locate("squeue"), raw_ids, self._config.slurm_cluster)
        return parse_states(self._commands.attempt(*argv))


def make_squeue_argv(squeue: str, raw_ids: Sequence[int], cluster: str | None = None) -> list[str]:
    """The command line for the states of jobs.

    :param cluster: Slurm's name of the cluster, None for the one in this host's slurm.conf.
    :param raw_ids: for an array's own ID squeue lists all of its tasks, each under its raw ID.
    """
    return [
        squeue,
        f"--clusters={cluster}" if cluster else "--local",  # not the other clusters of a federation
        "--noheader",
        "--states=all",
        "--format=%A|%T",
        f"--jobs={','.join(map(str, raw_ids))}",
    ]


def parse_states(output: Output) -> dict[int, str]:
    """The state of each job that squeue lists, by raw ID.

    Seen on 22.05: a preempted job is COMPLETING until its Epilog ends, whether it is requeued or not. Then it is
    PENDING if it was requeued, even seconds before slurmdbd has the new row; otherwise PREEMPTED until MinJobAge has
    passed.

    :raises SlurmUnreachable: if slurmctld did not answer.
    """
    if output.returncode and _NOT_KNOWN not in output.stderr:
        lines = output.stderr.strip().splitlines()
        raise SlurmUnreachable(
            f"squeue failed with exit status {output.returncode}: {lines[-1][:300] if lines else 'no error message'}",
            hint="check that slurmctld responds: scontrol ping",
        )
    found = (_STATE_LINE.fullmatch(line.strip()) for line in output.text.splitlines())
    return {int(match[1]): match[2] for match in found if match}
