"""The time from a job's end to the dashboard, on a real Slurm with the hook, for both ways of starting flush.

The units themselves are tested in a booted systemd (tests/install). Here a loop replaces
them: it flushes some seconds after the queue appears, like the path unit with its countdown, or at intervals, like the
timer.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

from .measure import Figure, expect
from .site import Agent, Site

JOBS = 60


class Case(NamedTuple):
    """A way of starting flush, and the seconds that jobs run."""

    what: str
    interval: float
    counts_from_queue: bool
    job_seconds: float
    goal: float | None


CASES = (
    Case("path unit with its interval set to 5 s", 5.0, True, 8.0, 8.0),
    # For up to five seconds, slurmdbd has only half of such a short job's record.
    Case("path unit with its interval set to 5 s, jobs of 0.2 s", 5.0, True, 0.2, None),
    Case("path unit as installed, 30 s", 30.0, True, 0.2, 35.0),
    Case("5-minute timer", 300.0, False, 0.2, 315.0),
)


def figures(site: Site, rounds: int) -> list[Figure]:
    """The age on arrival of 60 jobs that end at various moments of two intervals."""
    result = []
    for case in CASES:
        ages = sorted(_ages(site, case))
        goal_words = f"99 % within {case.goal:.0f} s" if case.goal else ""
        nearly_all = ages[-1 - len(ages) // 100]
        result += [
            Figure(f"{case.what}: all jobs", ages, "s"),
            Figure(f"{case.what}: 99th percentile", [nearly_all], "s", goal_words, case.goal),
        ]
    return result


def _ages(site: Site, case: Case) -> list[float]:
    interval = case.interval
    with Slurm(nodes=1, jobcomp=True) as slurm, tempfile.TemporaryDirectory(prefix="bench-agent-") as folder:
        env = {name: value for name, value in slurm.env.items() if name != "SLURM_USAGE_HISTORY_SPOOL"}
        agent = Agent(Path(folder), env, slurm.cluster, site.receiver.url, spool=slurm.spool)
        over = threading.Event()
        unit = _path_unit if case.counts_from_queue else _timer
        worker = threading.Thread(target=unit, args=(agent, interval, over))
        worker.start()
        try:
            for _ in range(JOBS):
                slurm.sbatch(command=f"sleep {case.job_seconds:g}")
                time.sleep(2 * interval / JOBS)
            wait_for(lambda: len(_delivered(agent)) == JOBS, "every job delivered", limit_seconds=2 * interval + 60)
        finally:
            over.set()
            worker.join()
        expect(site.receiver.take_jobs(), JOBS, "jobs at the dashboard")
        return _delivered(agent)


def _path_unit(agent: Agent, interval: float, over: threading.Event) -> None:
    while not over.is_set():
        if not (agent.spool / "queue").exists():
            over.wait(0.05)
            continue
        over.wait(interval)
        agent.run("flush")


def _timer(agent: Agent, interval: float, over: threading.Event) -> None:
    while not over.wait(interval):
        agent.run("flush")


def _delivered(agent: Agent) -> list[float]:
    """Seconds from End, which Slurm gives in whole seconds, to the answer of the dashboard."""
    path = agent.spool / "ledger.db"
    if not path.exists():
        return []
    ledger = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [row[0] for row in ledger.execute("select delivered_at - ended from delivered")]
    except sqlite3.OperationalError:  # the first flush creates its tables
        return []
    finally:
        ledger.close()
