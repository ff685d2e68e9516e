"""The one rule of which runs form a job. Pure.

Seen on 20.11 to 26.05: a requeue or a resize ends a row and starts another under the same JobID. The next row's Submit
is the moment when COMPLETING ends, which a slow Epilog or a hung node can delay by minutes or hours. The earlier row is
then REQUEUED or RESIZING; or PREEMPTED or NODE_FAIL, which can also be a job's last state. Only 26.05 leaves it
COMPLETED (FAILED, ...) when a job is requeued after its end, and there Restarts shows it. All other rows of a JobID
belong to an earlier owner: IDs are reused after 67 million jobs, or when slurmctld loses its state.
"""

from __future__ import annotations

from typing import Collection, Iterable, Iterator, List, Sequence

from agent.jobs.run import CONTINUED_STATES, REQUEUEABLE_STATES, REVOKED, UNKNOWN, Run

#: A run counts if it ended at most this long before the job's newest end. An older one may belong to an earlier owner
#: of the ID, and asking for it would make slurmdbd read years of rows.
LOOKBACK_SECONDS = 365 * 86_400
#: A JobID is never reused this soon after an end.
SOONEST_REUSE_SECONDS = 600

#: All runs of one job, oldest first.
Runs = List[Run]


def own_runs(rows: Iterable[Run]) -> Runs:
    """The runs of the newest job among the rows of one raw ID, without those of the ID's earlier owners."""
    jobs = _split_by_job(rows)
    return _within_reach(jobs[-1]) if jobs else []


def runs_with(run: Run, others: Iterable[Run]) -> Runs:
    """The runs of the job that a row belongs to, which need not be the newest job of its raw ID.

    :param run: one that has ended.
    :param others: the other rows of the raw ID. A copy of the same row among them takes precedence.
    """
    jobs = _split_by_job([run, *others])
    return _within_reach(next(job for job in jobs if any(own.submit == run.submit for own in job)))


def is_whole(runs: Sequence[Run]) -> bool:
    """Whether these runs are certainly all of a job. They come from a range of time and from the remembered runs.

    An earlier run may be missing, which Restarts reveals on versions that have it. And between two runs that are far
    apart the job may have ended and its ID been reused: final rows are not remembered.
    """
    if len(runs) == 1:
        return not runs[0].restarts
    requeued = sum(run.state != "RESIZING" for run in runs[:-1])
    gaps = (later.submit - (earlier.end or 0) for earlier, later in zip(runs, runs[1:]))
    return requeued >= (runs[-1].restarts or 0) and max(gaps, default=0) <= SOONEST_REUSE_SECONDS


def runs_again(run: Run, others: Iterable[Run]) -> bool:
    """Whether a task ran again under another raw ID, as happens when slurmctld is killed before it saves the first ID.

    :param others: the rows with the same displayed JobID.
    """
    return any(
        other.raw_id != run.raw_id
        and (other.submit, other.end is None, other.end or 0) > (run.submit, run.end is None, run.end or 0)
        for other in others
    )


def runs_here(runs: Sequence[Run]) -> Sequence[Run]:
    """The runs except the revoked ones, which ran on another cluster of the federation."""
    return [run for run in runs if run.state != REVOKED]


def ever_started(runs: Sequence[Run]) -> bool:
    """Whether any run of a job started on this cluster, even one that ``requeued_runs`` does not count."""
    return not all(run.never_started for run in runs_here(runs))


def _without_abandoned(rows: Collection[Run]) -> Iterator[Run]:
    """The rows except those that slurmctld has abandoned.

    A slurmctld that is killed before it saves a requeue, or its backup, runs the job again under the previous Submit.
    The row of the requeue never ends (seen on 22.05): another run ended after its Submit, which no other way of getting
    a newer row allows.
    """
    last_end = max(
        (run.end or 0 for run in rows if run.ended and run.state not in {*CONTINUED_STATES, REVOKED}), default=0
    )
    return (run for run in rows if run.ended or run.submit >= last_end)


def _split_by_job(rows: Iterable[Run]) -> list[Runs]:
    """The rows of one raw ID grouped into jobs, oldest first. Of two copies of a row the later one counts."""
    jobs: list[Runs] = []
    for run in sorted(_without_abandoned({run.submit: run for run in rows}.values()), key=lambda run: run.submit):
        if jobs and _continues_in(jobs[-1][-1], run):
            jobs[-1].append(run)
        else:
            jobs.append([run])
    return jobs


def _continues_in(earlier: Run, later: Run) -> bool:
    """Whether a row belongs to the same job as the previous one."""
    if earlier.end is None or _are_different_users(earlier, later):
        return False
    if earlier.state in CONTINUED_STATES or earlier.state == REVOKED:  # it may come back from the other cluster
        return True
    if later.restarts or earlier.restarts:
        return (later.restarts or 0) > (earlier.restarts or 0)
    # 0 is the first run of another job, or was written before slurmdbd was upgraded to a version that counts restarts.
    return earlier.state in REQUEUEABLE_STATES and not _are_different_tasks(earlier, later)


def _are_different_users(earlier: Run, later: Run) -> bool:
    """Whether a raw ID now belongs to another user. On 22.05 a half-written row always has root's uid."""
    return earlier.uid != later.uid and UNKNOWN not in {earlier.partition, later.partition}


def _are_different_tasks(earlier: Run, later: Run) -> bool:
    """Whether a raw ID now belongs to another task, or to a plain job. A half-written row lacks its array."""
    return earlier.job_id != later.job_id and UNKNOWN not in {earlier.partition, later.partition}


def _within_reach(runs: Runs) -> Runs:
    last_end = runs[-1].end
    if len(runs) == 1 or last_end is None:
        return runs
    return [run for run in runs if (run.end or 0) >= last_end - LOOKBACK_SECONDS]
