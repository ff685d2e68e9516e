"""The runs of a JobID become a :class:`Job`, and that the dashboard's record. Pure.

Which rows belong to one job was seen on 20.11 to 26.05: a requeue or a resize ends a row and begins the next in the
same breath, so the Submit of the later row is the End of the earlier one. The earlier one is then REQUEUED, RESIZING,
PREEMPTED or NODE_FAIL; only 26.05 leaves it COMPLETED (FAILED, ...) where a job is requeued after its end, and there
Restarts tells. All other rows of a JobID are an earlier owner's: IDs are reused after 67 million jobs or a reset.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple

from agent.jobs.run import CONTINUED_STATES, REQUEUEABLE_STATES, REVOKED, UNKNOWN, Run

#: How far the Submit of a run may lie from the End of the run before it. Measured: 0 or 1 s.
LINK_SECONDS = 600
#: A run that ended PREEMPTED or NODE_FAIL may have been requeued without a new row yet. Measured: some seconds.
GRACE_SECONDS = 120
#: What is still half a row after so long stays so. A slurmctld that was killed before it told the rest runs the job
#: again when it is back, as seen on 22.05, and only then is it known by which JobID it goes.
HALF_WRITTEN_SECONDS = 86_400
SECONDS_PER_HOUR = 3600.0


class Job(NamedTuple):
    """A job whose newest run has ended, with what all its counted runs used."""

    run: Run  # the newest
    cpu_seconds: int
    gpu_seconds: int
    ever_started: bool


def own_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs of the newest job among the rows of one raw ID, oldest first: earlier owners of the ID left out."""
    jobs = _split_by_owner(runs)
    return jobs[-1] if jobs else []


def runs_with(run: Run, others: Iterable[Run]) -> list[Run]:
    """The runs of the job that one row belongs to, oldest first, whoever owned its raw ID before or after.

    :param others: the other rows of the raw ID; where the same row is among them, it stands as it is there.
    """
    jobs = _split_by_owner([run, *others])
    return next(job for job in jobs if any(own.submit == run.submit for own in job))


def _split_by_owner(runs: Iterable[Run]) -> list[list[Run]]:
    """The rows of one raw ID as jobs, oldest first. Of a row that is given twice the last one stands."""
    jobs: list[list[Run]] = []
    for run in sorted({run.submit: run for run in runs}.values(), key=lambda run: run.submit):
        if jobs and _is_continued(jobs[-1][-1], run):
            jobs[-1].append(run)
        else:
            jobs.append([run])
    return jobs


def _is_continued(earlier: Run, later: Run) -> bool:
    if earlier.end is None or earlier.user != later.user:
        return False
    if later.restarts and later.submit >= earlier.end:
        return True
    goes_on = earlier.state in CONTINUED_STATES or earlier.state in REQUEUEABLE_STATES
    return goes_on and abs(later.submit - earlier.end) <= LINK_SECONDS


def may_be_requeued(run: Run, now: float) -> bool:
    """Whether the newest run ended so lately, and in such a way, that the row of its next one may yet come."""
    return run.state in REQUEUEABLE_STATES and run.end is not None and now - run.end < GRACE_SECONDS


def is_half_written(run: Run, now: float) -> bool:
    """Whether slurmdbd may know no more of a run than its end.

    Seen on 20.11 and 22.05: a run of a few seconds is written at its end first, without partition and QOS and without
    its array ("3" for "3_1"); what its start tells is filled in up to five seconds later.
    """
    return run.partition == UNKNOWN and run.end is not None and now - run.end < HALF_WRITTEN_SECONDS


def is_settled(run: Run, now: float) -> bool:
    """Whether what the accounting says of the newest run will stay so."""
    return not may_be_requeued(run, now) and not is_half_written(run, now)


def is_final(run: Run) -> bool:
    """Whether the newest run of a job is its last, as far as Slurm knows today, and ran here."""
    return run.ended and run.state not in CONTINUED_STATES and run.state != REVOKED


def has_all_runs(runs: list[Run]) -> bool:
    """Whether no earlier run of a job is missing, as far as this version of Slurm tells.

    :param runs: as :func:`own_runs` gives them.
    """
    requeued = sum(run.state != "RESIZING" for run in runs[:-1])
    return requeued >= (runs[-1].restarts or 0)


def fold(runs: list[Run], *, requeued_runs: str = "sum") -> Job:
    """Makes one job of its runs.

    :param runs: as :func:`own_runs` gives them, the last one final.
    :param requeued_runs: ``"sum"`` counts the hours of all of them, ``"last"`` those of the last run, which is the
        last row and the RESIZING segments straight before it.
    """
    counted = runs if requeued_runs == "sum" else _last_run(runs)
    cpu_seconds = gpu_seconds = 0
    ever_started = False
    for run in counted:
        if not run.never_started:
            ever_started = True
            cpu_seconds += run.elapsed_seconds * run.cpus
            gpu_seconds += run.elapsed_seconds * run.gpus
    return Job(runs[-1], cpu_seconds, gpu_seconds, ever_started)


def _last_run(runs: list[Run]) -> list[Run]:
    first = len(runs) - 1
    while first > 0 and runs[first - 1].state == "RESIZING":
        first -= 1
    return runs[first:]


def newest_run(runs: Iterable[Run]) -> Run | None:
    """The row with the latest Submit, None where there is no row."""
    return max(runs, key=lambda run: run.submit, default=None)
