"""The bare sacct calls that ours are measured against: the same rows and fields, printed and discarded."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple, Sequence

from agent.localtime import day_end, day_start, local_day
from agent.slurm.row import FIELDS

from .measure import Outcome, run
from .site import Job, Site

LONG_AGO = 365 * 86_400
ENDED = "BF,CA,CD,DL,F,NF,OOM,PR,TO,RQ,RS"


def ask_jobs(site: Site, cluster: str, jobs: Sequence[Job], *, since: int | None = None) -> Outcome:
    """One ``sacct -j`` of some jobs.

    :param since: epoch seconds; a year before the oldest of the jobs if absent.
    :raises RuntimeError: if it does not print all of them.
    """
    since = min(job.submit for job in jobs) - LONG_AGO if since is None else since
    outcome = _sacct(site, cluster, "-S", f"uts{since}", "-j", ",".join(str(job.job_id) for job in jobs))
    if _rows(outcome) != len(jobs):
        raise RuntimeError(f"the bare sacct -j printed {_rows(outcome)} rows, not {len(jobs)}")
    return outcome


class Spent(NamedTuple):
    """The total cost of several calls."""

    seconds: float
    cpu: float  # seconds of processor time


def ask_days(site: Site, cluster: str, start: int, end: int) -> Spent:
    """The cost of one call for each day between two instants.

    :raises RuntimeError: if nothing ended on a day, except on the last one, which may just have begun.
    """
    seconds = cpu = 0.0
    day = local_day(start)
    while day_start(day) <= end:
        outcome = ask_window(site, cluster, day_start(day), min(day_end(day), end))
        if not _rows(outcome) and day_end(day) < end:
            raise RuntimeError(f"the bare sacct found nothing on {day}")
        seconds += outcome.seconds
        cpu += outcome.own_cpu
        day += timedelta(days=1)
    return Spent(seconds, cpu)


def ask_window(site: Site, cluster: str, start: int, end: int) -> Outcome:
    """One call for the jobs that ended between two instants, inclusive."""
    return _sacct(site, cluster, "-s", ENDED, "-S", f"uts{start}", "-E", f"uts{end}")


def ask_plainly(site: Site, cluster: str, days: int) -> float:
    """The seconds that the obvious call takes: ``sacct -a -X -P`` of the last days."""
    outcome = run(["sacct", "-a", "-X", "-P", "-S", f"now-{days}days", "-E", "now"], site.env(cluster))
    if not _rows(outcome):
        raise RuntimeError("the plain sacct found nothing")
    return outcome.seconds


def _sacct(site: Site, cluster: str, *selection: str) -> Outcome:
    argv = ["sacct", "-a", "--local", "-D", "-X", "-P", "--noconvert", "-o", ",".join(FIELDS), *selection]
    return run(argv, {**site.env(cluster), "SLURM_TIME_FORMAT": "%s"})


def _rows(outcome: Outcome) -> int:
    return outcome.stdout.count("\n") - 1
