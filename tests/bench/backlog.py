"""A million queued jobs after an outage of the dashboard: how fast they drain, and in how much memory."""

from __future__ import annotations

import time
from typing import Sequence

from . import bare
from .measure import Figure, expect, watch_memory
from .site import CHECKOUT, YEAR, Job, Site

BACKLOG = 1_000_000
#: How many of its jobs one bare call requests, to see what sacct itself can do.
SAMPLE = 10_000


def figures(site: Site, rounds: int) -> list[Figure]:
    """One run of ``flush``, once."""
    count = min(BACKLOG, site.scaled(BACKLOG))
    jobs = site.ended(YEAR, count)
    by_id = [SAMPLE / bare.ask_jobs(site, YEAR, jobs[:SAMPLE]).seconds for _ in range(rounds)]
    by_time = [_rows_a_second(site, jobs) for _ in range(rounds)]
    with site.agent(YEAR) as agent:
        agent.queue(jobs)
        started = time.perf_counter()
        peaks = watch_memory(agent.argv("flush"), agent.env, cwd=CHECKOUT)
        seconds = time.perf_counter() - started
        expect(site.receiver.take_jobs(), count, "jobs of the backlog delivered")
    return [
        Figure(f"jobs a second, a backlog of {count:,}", [count / seconds], "/s", "at least 5,000", 5000, True),
        Figure(f"bare sacct -j of {SAMPLE:,} of them", by_id, "/s"),
        Figure("bare sacct of a tenth of the time in which they ended", by_time, "/s"),
        Figure("peak memory of flush", [peaks["itself"]], "MiB", "at most 60 MB", 60e6 / 2**20),
        Figure("peak memory of sacct meanwhile", [peaks["sacct"]], "MiB"),
    ]


def _rows_a_second(site: Site, jobs: Sequence[Job]) -> float:
    end, start = jobs[0].end, jobs[-1].end
    outcome = bare.ask_window(site, YEAR, end - (end - start) // 10, end)
    return (outcome.stdout.count("\n") - 1) / outcome.seconds
