"""A hundred thousand queued jobs after an outage of the dashboard: how fast they drain, and in how much memory."""

from __future__ import annotations

import time

from . import bare
from .measure import Figure, expect, watch_memory
from .site import CHECKOUT, YEAR, Site

BACKLOG = 100_000
#: So many jobs of it are asked for in one bare call, to see what sacct itself is capable of.
SAMPLE = 10_000


def figures(site: Site, rounds: int) -> list[Figure]:
    """One run of ``flush``, once."""
    count = min(BACKLOG, site.scaled(BACKLOG))
    jobs = site.ended(YEAR, count)
    theirs = [SAMPLE / bare.ask_jobs(site, YEAR, jobs[:SAMPLE]).seconds for _ in range(rounds)]
    with site.agent(YEAR) as agent:
        agent.queue(jobs)
        started = time.perf_counter()
        peaks = watch_memory(agent.argv("flush"), agent.env, cwd=CHECKOUT)
        seconds = time.perf_counter() - started
        expect(site.receiver.take_jobs(), count, "jobs of the backlog delivered")
    return [
        Figure(f"jobs a second, a backlog of {count:,}", [count / seconds], "/s", "at least 5,000", 5000, True),
        Figure(f"bare sacct -j of {SAMPLE:,} of them", theirs, "/s"),
        Figure("peak memory of flush", [peaks["itself"]], "MiB", "at most 60 MB", 60e6 / 2**20),
        Figure("peak memory of sacct under it", [peaks["sacct"]], "MiB"),
    ]
