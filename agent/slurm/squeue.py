"""Asks slurmctld how it is with some jobs. Pure: an argv, and what the answer means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Sequence

from agent.errors import SlurmUnreachable

if TYPE_CHECKING:
    from agent.slurm.process import Output

#: What squeue says of a single job that slurmctld has forgotten, or never knew; of several it lists the others.
_NOT_KNOWN = "Invalid job id specified"
_LINE = re.compile(r"([0-9]+)\|([A-Z_]+)", re.ASCII)


def make_squeue_argv(squeue: str, raw_ids: Sequence[int], cluster: str | None = None) -> list[str]:
    """The call that answers with the state of some jobs.

    :param cluster: Slurm's name of the cluster, None for the one whose slurm.conf this host has.
    :param raw_ids: for an array's own ID it answers with all of its tasks, each under its raw ID.
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
    """The state of each job that slurmctld knows, such as COMPLETING, by its raw ID.

    Seen on 22.05: a preempted job is COMPLETING until its Epilog has ended, whether it goes on or not; then PENDING if
    it was requeued, even seconds before slurmdbd has the new row, else PREEMPTED until MinJobAge has passed.

    :raises SlurmUnreachable: where slurmctld did not answer.
    """
    if output.returncode and _NOT_KNOWN not in output.stderr:
        lines = output.stderr.strip().splitlines()
        raise SlurmUnreachable(
            f"squeue failed with exit status {output.returncode}: {lines[-1][:300] if lines else 'it said nothing'}",
            hint="see that slurmctld answers: scontrol ping",
        )
    found = (_LINE.fullmatch(line.strip()) for line in output.text.splitlines())
    return {int(match[1]): match[2] for match in found if match}
