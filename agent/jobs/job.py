"""Which runs are one job: the only place that decides it. Pure.

What was seen on 20.11 to 26.05: a requeue or a resize ends a row and begins the next one under the same JobID. The
Submit of the next row is the moment at which COMPLETING ends, which a slow Epilog or a hung node puts off by minutes
or hours. The row before is then REQUEUED or RESIZING, or PREEMPTED or NODE_FAIL, which may also be a job's last. Only
26.05 leaves it COMPLETED (FAILED, ...) where a job is requeued after its end, and there Restarts tells. All other rows
of a JobID are those of an earlier owner: IDs are reused after 67 million jobs, or when slurmctld loses its state.
"""

from __future__ import annotations

from typing import Iterable, List, Sequence

from agent.jobs.run import CONTINUED_STATES, REQUEUEABLE_STATES, REVOKED, UNKNOWN, Run

#: A run counts with the job's newest if it ended no longer before the newest one's end. What lies further back may be
#: an earlier owner's, and asking for it would make slurmdbd read years of rows.
LOOKBACK_SECONDS = 365 * 86_400
#: No JobID is used again so soon after an end.
SOONEST_REUSE_SECONDS = 600

#: All runs of one job, oldest first.
Runs = List[Run]


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


def is_whole(runs: Sequence[Run]) -> bool:
    """Whether the rows that ended in some range, and the remembered ones of jobs that went on, surely make a job.

    An earlier run may be missing, as Restarts tells where this version of Slurm has it. And between two runs that lie
    far apart the job may have ended, and another have got its ID: rows that ended for good are not remembered.
    """
    if len(runs) == 1:
        return not runs[0].restarts
    requeued = sum(run.state != "RESIZING" for run in runs[:-1])
    gaps = (later.submit - (earlier.end or 0) for earlier, later in zip(runs, runs[1:]))
    return requeued >= (runs[-1].restarts or 0) and max(gaps, default=0) <= SOONEST_REUSE_SECONDS


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
