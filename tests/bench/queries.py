"""How many queries of MariaDB a delivered job costs, counted in its general log."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from . import bare
from .measure import Figure, expect, run
from .site import MONTH, Site

FLUSHED = 1000
FEW = 100
_QUERY = re.compile(r"^\S*(?:\s+\S+)?\s+\d+ Query\t", re.MULTILINE)


def figures(site: Site, rounds: int) -> list[Figure]:
    """flush of 1,000 and of 100 jobs, a reconcile of a week, and what the alternatives cost."""
    jobs = site.ended(MONTH, 2 * FLUSHED + FEW)[::-1]
    flushes = []
    with site.agent(MONTH) as agent:
        for first, count in ((0, FLUSHED), (FLUSHED, FLUSHED), (2 * FLUSHED, FEW)):
            with _counting(site) as queries:
                agent.queue(jobs[first : first + count])
                agent.run("flush")
            expect(site.receiver.take_jobs(), count, "jobs delivered by flush")
            flushes.append(queries[0] / count)
    with site.agent(MONTH) as agent, _counting(site) as queries:
        agent.run("reconcile")
    replayed = queries[0] / site.receiver.take_jobs()
    with _counting(site) as queries:
        for job in jobs[:FEW]:
            bare.ask_jobs(site, MONTH, [job])
    one_by_one = queries[0] / FEW
    with _counting(site) as queries:
        ids = ",".join(str(job.job_id) for job in jobs)
        run(["sacct", "-a", "--local", "-P", "-j", ids], site.env(MONTH))
    with_steps = queries[0] / FLUSHED
    return [
        Figure(f"flush of {FLUSHED:,} jobs", flushes[1:2], "queries a job", "fewer than 0.02", 0.02),
        Figure(f"the very first flush of {FLUSHED:,} jobs", flushes[:1], "queries a job"),
        Figure(f"flush of {FEW} jobs", flushes[2:], "queries a job"),
        Figure("reconcile of a week", [replayed], "queries a job"),
        Figure("instead: one sacct for each job", [one_by_one], "queries a job"),
        Figure(f"instead: one sacct for {FLUSHED:,} jobs, with their steps", [with_steps], "queries a job"),
    ]


@contextmanager
def _counting(site: Site) -> Iterator[list[int]]:
    """Yields a list that contains the number of queries after the block."""
    log = Path(site.folder) / "queries.log"
    log.unlink(missing_ok=True)
    counted: list[int] = []
    site.sql(f"set global general_log_file = '{log}'; set global general_log = 1")
    try:
        yield counted
    finally:
        site.sql("set global general_log = 0")
    # The last one is our own.
    counted.append(len(_QUERY.findall(log.read_text(errors="replace"))) - 1)
