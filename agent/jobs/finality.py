"""The one rule of when a job is final. Pure.

Slurm's accounting cannot always tell whether a job continues. Then slurmctld decides, for as long as it knows the job.
"""

from __future__ import annotations

import enum
from typing import Container, Sequence

from agent.jobs.job import runs_here
from agent.jobs.run import CONTINUED_STATES, ENDED_STATES, REQUEUEABLE_STATES, REVOKED, UNKNOWN, Run

#: A row that is incomplete for longer than this is never completed. A slurmctld killed before it reported the rest
#: runs the job again after its restart (seen on 22.05), and only then is the job's displayed JobID known.
HALF_WRITTEN_SECONDS = 86_400
#: slurmctld is asked whether a preempted job continues until its end is this old. It forgets a job soon after its last
#: end, and later the ID may belong to another job.
ASK_SLURMCTLD_SECONDS = 7 * 86_400
#: How long a job waits for an unresponsive slurmctld. It is sent afterwards; a later run replaces that record.
UNANSWERED_SECONDS = 86_400


class Stage(enum.Enum):
    """How far a job has come, by the rows of its runs."""

    LIVE = "pending or running"
    CONTINUES = "requeued or resized"
    HALF_WRITTEN = "record half written"
    IN_DOUBT = "may be requeued"
    ELSEWHERE = "ran on another cluster"
    FINAL = "ended"


def stage(runs: Sequence[Run], now: float) -> Stage:
    """How far a job has come, judging by these rows alone.

    A run that was PREEMPTED or lost its node leaves the job in doubt, however long ago that was: the job may be held or
    running again, which rows selected by their End do not show.

    :param runs: as :func:`agent.jobs.job.own_runs` gives them.
    :param now: epoch seconds.
    """
    newest = runs[-1]
    if newest.state == REVOKED:  # the job continued on another cluster; what ran here before counts here
        return Stage.FINAL if any(run.elapsed_seconds for run in runs_here(runs)) else Stage.ELSEWHERE
    if not newest.ended:
        return Stage.LIVE
    if newest.state in CONTINUED_STATES:
        return Stage.CONTINUES
    if is_half_written(newest, now):
        return Stage.HALF_WRITTEN
    if newest.state in REQUEUEABLE_STATES:
        return Stage.IN_DOUBT
    return Stage.FINAL


def stage_by_slurmctld(runs: Sequence[Run], now: float, alive: Container[int] | None) -> Stage:
    """How far a job has come, judging by all its rows and by slurmctld.

    :param alive: the raw IDs that slurmctld reports as pending, running or COMPLETING, asked for after the rows were
        read; None if it does not answer.
    """
    by_rows = stage(runs, now)
    if by_rows is Stage.IN_DOUBT:
        if _age(runs[-1], now) >= ASK_SLURMCTLD_SECONDS:
            return Stage.FINAL
        if alive is None:
            return by_rows if _age(runs[-1], now) < UNANSWERED_SECONDS else Stage.FINAL
        return by_rows if runs[-1].raw_id in alive else Stage.FINAL
    if by_rows is Stage.CONTINUES and alive is not None and _age(runs[-1], now) >= UNANSWERED_SECONDS:
        # A slurmctld that lost its state has forgotten the job: there will be no next run.
        return by_rows if runs[-1].raw_id in alive else Stage.FINAL
    return by_rows


def is_for_slurmctld(runs: Sequence[Run], now: float) -> bool:
    """Whether the answer of slurmctld makes a difference for this job."""
    stages = {stage_by_slurmctld(runs, now, alive) for alive in ((), (runs[-1].raw_id,))}
    return len(stages) > 1


def is_half_written(run: Run, now: float) -> bool:
    """Whether slurmdbd may have stored only the end of a run so far.

    Seen on 20.11 and 22.05: the row of a run of a few seconds is first written at its end, without partition, QOS and
    array ("3" for "3_1"). The details of its start follow up to five seconds later.
    """
    return run.partition == UNKNOWN and _age(run, now) < HALF_WRITTEN_SECONDS


def _age(run: Run, now: float) -> float:
    """Seconds since a run ended."""
    return now - (run.end or 0)


def is_alive(state: str) -> bool:
    """Whether a job continues, by its state in squeue's output. COMPLETING and unknown states count as alive."""
    return state not in ENDED_STATES
