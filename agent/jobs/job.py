"""Which runs are one job, and when a job is final: the only place that decides either. Pure.

What was seen on 20.11 to 26.05: a requeue or a resize ends a row and begins the next one under the same JobID. The
Submit of the next row is the moment at which COMPLETING ends, which a slow Epilog or a hung node puts off by minutes
or hours. The row before is then REQUEUED or RESIZING, or PREEMPTED or NODE_FAIL, which may also be a job's last. Only
26.05 leaves it COMPLETED (FAILED, ...) where a job is requeued after its end, and there Restarts tells. All other rows
of a JobID are those of an earlier owner: IDs are reused after 67 million jobs, or when slurmctld loses its state.
"""

from __future__ import annotations

import enum
from typing import Container, Iterable, List, NamedTuple, Sequence

from agent.jobs.run import CONTINUED_STATES, ENDED_STATES, REQUEUEABLE_STATES, REVOKED, UNKNOWN, Run

#: A run counts with the job's newest if it ended no longer before the newest one's end. What lies further back may be
#: an earlier owner's, and asking for it would make slurmdbd read years of rows.
LOOKBACK_SECONDS = 365 * 86_400
#: What is still half a row after this long stays so. A slurmctld that was killed before it reported the rest runs the
#: job again when it is back, as seen on 22.05, and only then is it known by which JobID it goes.
HALF_WRITTEN_SECONDS = 86_400
#: Up to this age of its end slurmctld is asked whether a preempted job goes on. It forgets a job soon after it has
#: ended for good, and its ID may be another's later.
ASK_SLURMCTLD_SECONDS = 7 * 86_400
#: How long a job waits for a slurmctld that does not answer. Its later runs, if any, replace what is sent then.
UNANSWERED_SECONDS = 86_400
#: No JobID is used again so soon after an end.
CLOSE_SECONDS = 600
SECONDS_PER_HOUR = 3600.0

#: All runs of one job, oldest first.
Runs = List[Run]


class Stage(enum.Enum):
    """How far a job has come, by the rows of its runs."""

    LIVE = "pending or running"
    GOES_ON = "requeued or resized"
    HALF_WRITTEN = "record half written"
    IN_DOUBT = "may be requeued"
    ELSEWHERE = "ran on another cluster"
    FINAL = "ended"


class Usage(NamedTuple):
    """What the counted runs of a job used."""

    cpu_seconds: int
    gpu_seconds: int


def own_runs(rows: Iterable[Run]) -> Runs:
    """The runs of the newest job among the rows of one raw ID; those of earlier owners of the ID are left out."""
    jobs = _split_by_job(rows)
    return _within_reach(jobs[-1]) if jobs else []


def runs_with(run: Run, others: Iterable[Run]) -> Runs:
    """The runs of the job that one row belongs to, whoever owned its raw ID before or after.

    :param others: the other rows of the raw ID; where the same row is among them, it stands as it is there.
    """
    jobs = _split_by_job([run, *others])
    return _within_reach(next(job for job in jobs if any(own.submit == run.submit for own in job)))


def stage(runs: Sequence[Run], now: float) -> Stage:
    """How far a job has come, as these rows alone tell.

    However long ago a run was PREEMPTED or lost its node: the job may be held, or run again, and of that the rows that
    ended in some range say nothing.

    :param runs: as :func:`own_runs` gives them.
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


def is_whole(runs: Sequence[Run]) -> bool:
    """Whether the rows that ended in some range, and the remembered ones of jobs that went on, surely make a job.

    An earlier run may be missing, as Restarts tells where this version of Slurm has it. And between two runs that lie
    far apart the job may have ended, and another have got its ID: rows that ended for good are not remembered.
    """
    requeued = sum(run.state != "RESIZING" for run in runs[:-1])
    gaps = (later.submit - (earlier.end or 0) for earlier, later in zip(runs, runs[1:]))
    return requeued >= (runs[-1].restarts or 0) and max(gaps, default=0) <= CLOSE_SECONDS


def runs_again(run: Run, others: Iterable[Run]) -> bool:
    """Whether a task was run again under another raw ID, as a slurmctld does that was killed before it noted the first.

    :param others: the rows of the same JobID.
    """
    return any(
        other.raw_id != run.raw_id
        and (other.submit, other.end is None, other.end or 0) > (run.submit, run.end is None, run.end or 0)
        for other in others
    )


def runs_here(runs: Sequence[Run]) -> Sequence[Run]:
    """The runs without those that were revoked, which ran on another cluster of the federation."""
    return [run for run in runs if run.state != REVOKED]


def ever_started(runs: Sequence[Run]) -> bool:
    """Whether any run of a job has started here, whichever of them count."""
    return not all(run.never_started for run in runs_here(runs))


def usage(runs: Sequence[Run], *, requeued_runs: str) -> Usage:
    """What the counted runs of a job used, without suspension.

    :param requeued_runs: ``"sum"`` counts all of them, ``"last"`` the last run alone, which is the last row and the
        RESIZING segments straight before it.
    """
    if len(runs) == 1:
        (run,) = runs
        return (
            Usage(0, 0) if run.never_started else Usage(run.elapsed_seconds * run.cpus, run.elapsed_seconds * run.gpus)
        )
    counted = runs if requeued_runs == "sum" else _last_run(runs)
    started = [run for run in counted if not run.never_started]
    return Usage(
        sum(run.elapsed_seconds * run.cpus for run in started), sum(run.elapsed_seconds * run.gpus for run in started)
    )


def _split_by_job(rows: Iterable[Run]) -> list[Runs]:
    """The rows of one raw ID as jobs, oldest first. Of a row that is given twice the last one stands."""
    jobs: list[Runs] = []
    for run in sorted({run.submit: run for run in rows}.values(), key=lambda run: run.submit):
        if jobs and _goes_on_in(jobs[-1][-1], run):
            jobs[-1].append(run)
        else:
            jobs.append([run])
    return jobs


def _goes_on_in(earlier: Run, later: Run) -> bool:
    """Whether a row belongs to the same job as the one before it."""
    if earlier.end is None or earlier.uid != later.uid:
        return False
    if earlier.state in CONTINUED_STATES or earlier.state == REVOKED:  # it may come back from the other cluster
        return True
    if later.restarts or earlier.restarts:
        return (later.restarts or 0) > (earlier.restarts or 0)
    # 0 may be the first run of another job, or have been written before slurmdbd was upgraded to one that counts.
    return earlier.state in REQUEUEABLE_STATES and not _are_different_tasks(earlier, later)


def _are_different_tasks(earlier: Run, later: Run) -> bool:
    """Whether a raw ID was given to another task or a plain job; a half-written row lacks its array."""
    return earlier.job_id != later.job_id and UNKNOWN not in {earlier.partition, later.partition}


def _within_reach(runs: Runs) -> Runs:
    last_end = runs[-1].end
    if len(runs) == 1 or last_end is None:
        return runs
    return [run for run in runs if (run.end or 0) >= last_end - LOOKBACK_SECONDS]


def _last_run(runs: Sequence[Run]) -> Sequence[Run]:
    first = len(runs) - 1
    while first > 0 and runs[first - 1].state == "RESIZING":
        first -= 1
    return runs[first:]


def _age(run: Run, now: float) -> float:
    """Seconds since a run has ended."""
    return now - (run.end or 0)


def is_alive(state: str) -> bool:
    """Whether a job goes on, by the word that squeue has for its state; COMPLETING and unknown words say so, too."""
    return state not in ENDED_STATES
