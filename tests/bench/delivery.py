"""flush and reconcile, compared with the bare sacct calls that they need."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Sequence

from agent.localtime import day_start, local_day

from . import bare
from .measure import Figure, Outcome, expect, ratios, watch_memory
from .site import CHECKOUT, MONTH, YEAR, Site
from .workload import ended_jobs

WINDOW_DAYS = 7
FLUSHED = 1000


def flush_figures(site: Site, rounds: int) -> list[Figure]:
    """``flush`` of 1,000 queued jobs against one bare ``sacct -j`` of the same."""
    jobs = site.ended(MONTH, FLUSHED * (rounds + 1))[::-1]
    ours, theirs = [], []
    with site.agent(MONTH) as agent:
        for number in range(rounds + 1):
            part = jobs[number * FLUSHED : (number + 1) * FLUSHED]
            seconds = bare.ask_jobs(site, MONTH, part).seconds
            agent.queue(part)
            took = agent.run("flush").seconds
            expect(site.receiver.take_jobs(), len(part), "jobs delivered by flush")
            if number:  # the first round warms up caches
                theirs.append(seconds)
                ours.append(took)
            else:
                first = took
    beyond = [took - 1.3 * seconds for took, seconds in zip(ours, theirs)]
    return [
        Figure(f"bare sacct -j of {FLUSHED:,} jobs", theirs, "s"),
        Figure(f"flush of {FLUSHED:,} jobs, with their delivery", ours, "s"),
        Figure(f"the very first flush of {FLUSHED:,} jobs", [first], "s"),
        Figure("flush minus 1.3 × the bare sacct -j", beyond, "s", goal="at most 0.2 s", limit=0.2),
    ]


def reconcile_figures(site: Site, rounds: int) -> list[Figure]:
    """``reconcile`` of a week whose jobs the ledger knows, against the sum of the bare calls for each of its days.

    With dates it makes and sends every record; without them, as daily, it sends only changed ones.
    """
    start, end = _week()
    by_hand = ("reconcile", "--start-date", str(local_day(start)))
    jobs = ended_jobs(site.sql, MONTH, start, end)
    plain, bare_calls, dry, sent, daily = [], [], [], [], []
    with site.agent(MONTH) as agent:
        first = agent.run("reconcile")  # from now on the ledger has the jobs that were requeued before the week
        expect(site.receiver.take_jobs(), jobs, "jobs delivered by the first reconcile")
        for _ in range(rounds):
            plain.append(bare.ask_plainly(site, MONTH, WINDOW_DAYS))
            bare_calls.append(bare.ask_days(site, MONTH, start, end))
            dry.append(agent.run(*by_hand, "--dry-run"))
            expect(_counted(dry[-1].stderr), jobs, "jobs in a dry run")
            sent.append(agent.run(*by_hand))
            expect(site.receiver.take_jobs(), jobs, "jobs delivered by reconcile")
            daily.append(agent.run("reconcile"))
            expect(_counted(daily[-1].stderr), jobs, "jobs in a daily reconcile")
            expect(site.receiver.take_jobs(), 0, "jobs delivered by a daily reconcile")
    seconds, cpu = [spent.seconds for spent in bare_calls], [spent.cpu for spent in bare_calls]
    return [
        Figure("plain sacct -a -X -P of seven days", plain, "s"),
        Figure(f"bare sacct of a week, day by day ({jobs:,} jobs)", seconds, "s"),
        Figure("the same, processor time", cpu, "s"),
        Figure("reconcile of the week, dry run", _seconds(dry), "s"),
        Figure("reconcile of the week, with its delivery", _seconds(sent), "s"),
        Figure("daily reconcile, nothing changed", _seconds(daily), "s"),
        Figure("the very first reconcile, which looks back a year more", [first.seconds], "s"),
        Figure(
            "dry run, relative to the bare calls", ratios(_seconds(dry), seconds), "×", goal="at most 1.25", limit=1.25
        ),
        Figure("with delivery, relative to the bare calls", ratios(_seconds(sent), seconds), "×"),
        Figure(
            "daily, relative to the bare calls", ratios(_seconds(daily), seconds), "×", goal="at most 1.25", limit=1.25
        ),
        Figure(
            "processor time of Python, dry run, relative to sacct's", _cpu(dry, cpu), "×", goal="at most 2.2", limit=2.2
        ),
        Figure(
            "processor time of Python, daily, relative to sacct's", _cpu(daily, cpu), "×", goal="at most 1.3", limit=1.3
        ),
        Figure("dry run, relative to the plain call", ratios(_seconds(dry), plain), "×"),
    ]


def _seconds(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.seconds for outcome in outcomes]


def _cpu(outcomes: Sequence[Outcome], sacct: Sequence[float]) -> list[float]:
    return ratios([outcome.own_cpu for outcome in outcomes], sacct)


def memory_figures(site: Site, rounds: int) -> list[Figure]:
    """The peak resident memory of the agent and of its sacct, for a week and for a year."""
    figures = []
    for cluster, options in ((MONTH, ()), (YEAR, ("--start-date", _days_ago(364)))):
        ours, sacct = [], []
        with site.agent(cluster) as agent:
            for _ in range(rounds if cluster == MONTH else 1):
                peaks = watch_memory(agent.argv("reconcile", *options), agent.env, cwd=CHECKOUT)
                ours.append(peaks["itself"])
                sacct.append(peaks["sacct"])
                jobs = site.receiver.take_jobs()
        what = f"reconcile of a {'week' if cluster == MONTH else 'year'} ({jobs:,} jobs)"
        figures += [
            Figure(f"peak memory of {what}", ours, "MiB", goal="at most 60 MB", limit=60e6 / 2**20),
            Figure(f"peak memory of sacct in {what}", sacct, "MiB"),
        ]
    return figures


def start_figures(site: Site, rounds: int) -> list[Figure]:
    """The start-up time of ``status`` and ``--help``, for which an admin waits."""
    figures = []
    with site.agent(MONTH) as agent:
        agent.queue(site.ended(MONTH, FLUSHED))
        agent.run("flush")
        site.receiver.take_jobs()
        for arguments, wanted in ((("status",), "queue"), (("--help",), "reconcile")):
            outcomes = [agent.run(*arguments) for _ in range(3 * rounds)]
            if any(wanted not in outcome.stdout.lower() for outcome in outcomes):
                raise RuntimeError(f"{arguments} did not say what it should")
            seconds = [outcome.seconds for outcome in outcomes]
            figures.append(Figure(" ".join(arguments), seconds, "s", goal="at most 0.15 s", limit=0.15))
    return figures


def _counted(log: str) -> int:
    found = re.search(r"(\d+) jobs ended in the range", log)
    return int(found[1]) if found else -1


def _week() -> tuple[int, int]:
    now = time.time()
    return day_start(local_day(now) - timedelta(days=WINDOW_DAYS)), int(now)


def _days_ago(days: int) -> str:
    return (local_day(time.time()) - timedelta(days=days)).isoformat()
