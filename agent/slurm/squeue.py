"""The states of jobs: the command line of squeue, and what its answer means."""

from __future__ import annotations

import re
from typing import Sequence

from agent.errors import SlurmUnreachable
from agent.slurm.process import Output

#: squeue's error for a single job that slurmctld does not know. Given several jobs, it just omits the unknown ones.
_NOT_KNOWN = "Invalid job id specified"
_LINE = re.compile(r"([0-9]+)\|([A-Z_]+)", re.ASCII)


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
    """The state, such as COMPLETING, of each job that slurmctld knows, by raw ID.

    Seen on 22.05: a preempted job is COMPLETING until its Epilog ends, whether it is requeued or not. Then it is
    PENDING if it was requeued, even seconds before slurmdbd has the new row; otherwise PREEMPTED until MinJobAge has
    passed.

    :raises SlurmUnreachable: where slurmctld did not answer.
    """
    if output.returncode and _NOT_KNOWN not in output.stderr:
        lines = output.stderr.strip().splitlines()
        raise SlurmUnreachable(
            f"squeue failed with exit status {output.returncode}: {lines[-1][:300] if lines else 'no error message'}",
            hint="check that slurmctld responds: scontrol ping",
        )
    found = (_LINE.fullmatch(line.strip()) for line in output.text.splitlines())
    return {int(match[1]): match[2] for match in found if match}
