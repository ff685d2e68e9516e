"""The hook's effect on slurmctld: jobs completed a second, with and without the hook."""

from __future__ import annotations

import time

from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

from .measure import Figure, expect, ratios
from .site import Site

JOBS = 400


def figures(site: Site, rounds: int) -> list[Figure]:
    """Arrays of jobs that do nothing, alternately on two clusters that differ only in JobCompType."""
    with Slurm(nodes=2) as plain, Slurm(nodes=2, jobcomp=True) as hooked:
        for cluster in (plain, hooked):  # warms up caches
            _completions(cluster)
        without, wired = [], []
        for _ in range(rounds):
            without.append(_completions(plain))
            wired.append(_completions(hooked))
        queued = (rounds + 1) * JOBS
        wait_for(lambda: len(_queued(hooked)) == queued, f"{queued} jobs in the queue", limit_seconds=60)
    return [
        Figure("completions with jobcomp/none", without, "/s"),
        Figure("completions with the hook wired", wired, "/s"),
        Figure("completions with the hook, relative to without", ratios(wired, without), "×", "no slower", 0.95, True),
    ]


def _completions(slurm: Slurm) -> float:
    """Jobs a second, from the submission of an array to the end of its last task as slurmctld sees it."""
    started = time.perf_counter()
    job = slurm.sbatch(f"--array=1-{JOBS}", "--cpus-per-task=4")
    wait_for(lambda: not slurm.run("squeue", "-h", "-a"), "the end of every job", limit_seconds=300)
    seconds = time.perf_counter() - started
    states = slurm.states(job)
    expect(states.count("COMPLETED"), JOBS, "tasks completed")
    return JOBS / seconds


def _queued(slurm: Slurm) -> set[str]:
    """The distinct lines that the hook wrote."""
    queue = slurm.spool / "queue"
    return set(queue.read_text().split("\n")) - {""} if queue.exists() else set()
