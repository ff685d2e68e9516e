"""The demo on a real Slurm."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from datetime import datetime

from tests.demo import bag
from tests.demo.arrivals import Arrivals
from tests.demo.flusher import Flusher
from tests.demo.screen import Screen, describe_delays
from tests.support.accounting import expected_records
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter
from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

LIMIT_SECONDS = 300


def run(jobs: int, interval_seconds: float, seed: int) -> int:
    """Runs about that number of jobs; returns 0 if the dashboard finally equals the accounting."""
    screen = Screen("from a job's end to the dashboard")
    screen.title("Starting munge, MariaDB, slurmdbd, slurmctld and three slurmd")
    began = time.monotonic()
    with ExitStack() as stack:
        slurm = stack.enter_context(Slurm(jobcomp=True, conf=bag.PARTITIONS))
        year, month = slurm.version
        screen.say(f"Slurm {year}.{month:02d} runs after {time.monotonic() - began:.1f} s, in {slurm.folder}")
        dashboard = stack.enter_context(ReceivingDashboard())
        arrivals = Arrivals(screen, lambda record: datetime.fromisoformat(record["End"]).timestamp())
        dashboard.manners = arrivals
        screen.say(f"A stand-in for the dashboard lists what has arrived, as long as this runs: {dashboard.url}")
        exporter = Exporter(slurm.folder, slurm.env, api_url=dashboard.url)

        screen.title(f"{jobs} jobs or more; the hook queues each at its end, flush runs every {interval_seconds:g} s")
        screen.heading()
        with Flusher(exporter, interval_seconds) as flusher:
            bag.run(slurm, jobs, random.Random(seed))
            slurm.wait_until_idle(limit_seconds=LIMIT_SECONDS)
            wait_for(lambda: exporter.backlog() == 0, "the last job on the dashboard", limit_seconds=LIMIT_SECONDS)
        expected = expected_records(slurm)
        screen.title(f"{len(expected)} jobs have ended in slurmdbd's job table")
        screen.complain(flusher.failures)
        differences = screen.report("after flush alone", expected, dashboard.records)
        exporter.run("reconcile")
        differences += screen.report("after reconcile", expected, dashboard.records)
        exporter.run("reconcile")
        differences += screen.report("after another reconcile", expected, dashboard.records)
        screen.say(f"from a job's end to the dashboard: {describe_delays(list(arrivals.delays.values()))}")
        return 1 if differences else 0
