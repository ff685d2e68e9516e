"""When a job is final: the only place that decides it. Pure.

Slurm's accounting does not always say whether a job goes on; then slurmctld's word decides, as long as it has one.
"""

from __future__ import annotations

import enum
from typing import Container, Sequence

from agent.jobs.job import runs_here
from agent.jobs.run import CONTINUED_STATES, ENDED_STATES, REQUEUEABLE_STATES, REVOKED, UNKNOWN, Run

#: What is still half a row after this long stays so. A slurmctld that was killed before it reported the rest runs the
#: job again when it is back, as seen on 22.05, and only then is it known by which JobID it goes.
HALF_WRITTEN_SECONDS = 86_400
#: Up to this age of its end slurmctld is asked whether a preempted job goes on. It forgets a job soon after it has
#: ended for good, and its ID may be another's later.
ASK_SLURMCTLD_SECONDS = 7 * 86_400
#: How long a job waits for a slurmctld that does not answer. Its later runs, if any, replace what is sent then.
UNANSWERED_SECONDS = 86_400


class Stage(enum.Enum):
    """How far a job has come, by the rows of its runs."""

    LIVE = "pending or running"
    GOES_ON = "requeued or resized"
    HALF_WRITTEN = "record half written"
    IN_DOUBT = "may be requeued"
    ELSEWHERE = "ran on another cluster"
    FINAL = "ended"


def stage(runs: Sequence[Run], now: float) -> Stage:
    """How far a job has come, as these rows alone tell.

    However long ago a run was PREEMPTED or lost its node: the job may be held, or run again, and of that the rows that
    ended in some range say nothing.

    :param runs: as :func:`agent.jobs.job.own_runs` gives them.
    :param now: epoch seconds.
    """
    newest = runs[-1]
    if newest.state == REVOKED:  # the job went on elsewhere; what ran here before that counts here
        return Stage.FINAL if any(run.elapsed_seconds for run in runs_here(runs)) else Stage.ELSEWHERE
    if not newest.ended:
        return Stage.LIVE
    if newest.state in CONTINUED_STATES:
        return Stage.GOES_ON
    if is_half_written(newest, now):
        return Stage.HALF_WRITTEN
    if newest.state in REQUEUEABLE_STATES:
        return Stage.IN_DOUBT
    return Stage.FINAL


def stage_by_slurmctld(runs: Sequence[Run], now: float, alive: Container[int] | None) -> Stage:
    """The same where the accounting, asked for the job by its ID, leaves it open whether it goes on.

    :param alive: the raw IDs of which slurmctld says that they are pending, running or COMPLETING, asked for after the
        rows; None where it does not answer.
    """
    told = stage(runs, now)
    if told is Stage.IN_DOUBT:
        if _age(runs[-1], now) >= ASK_SLURMCTLD_SECONDS:
            return Stage.FINAL
        if alive is None:
            return told if _age(runs[-1], now) < UNANSWERED_SECONDS else Stage.FINAL
        return told if runs[-1].raw_id in alive else Stage.FINAL
    if told is Stage.GOES_ON and alive is not None and _age(runs[-1], now) >= UNANSWERED_SECONDS:
        # A slurmctld that lost its state has forgotten the job: there will be no next run.
        return told if runs[-1].raw_id in alive else Stage.FINAL
    return told


def is_for_slurmctld(runs: Sequence[Run], now: float) -> bool:
    """Whether slurmctld's word decides about a job."""
    told = {stage_by_slurmctld(runs, now, alive) for alive in ((), (runs[-1].raw_id,))}
    return len(told) > 1


def is_half_written(run: Run, now: float) -> bool:
    """Whether slurmdbd may know no more of a run than its end.

    Seen on 20.11 and 22.05: a run of a few seconds is written at its end first, without partition and QOS and without
    its array ("3" for "3_1"); what its start tells is filled in up to five seconds later.
    """
    return run.partition == UNKNOWN and _age(run, now) < HALF_WRITTEN_SECONDS


def _age(run: Run, now: float) -> float:
    """Seconds since a run has ended."""
    return now - (run.end or 0)


def is_alive(state: str) -> bool:
    """Whether a job goes on, by the word that squeue has for its state; COMPLETING and unknown words say so, too."""
    return state not in ENDED_STATES
