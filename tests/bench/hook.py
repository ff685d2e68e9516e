"""What a call of the hook costs, compared with a call of /bin/true by the same caller."""

from __future__ import annotations

import os
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from typing import Iterator, Sequence

from .measure import Figure, expect, meanwhile, ratios
from .site import CHECKOUT, MONTH, Agent, Job, Site

HOOK = str(CHECKOUT / "hooks" / "jobcomp.sh")
TRUE = "/bin/true"
#: The lower limit for a shell script that starts any program.
LEAST = "#!/bin/sh\n/bin/true\nexit 0\n"
CALLS = 1200
PARALLEL = 8
FLUSHED = 500
#: The standard files that slurmctld gives its children.
_NULL = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]


def figures(site: Site, rounds: int) -> list[Figure]:
    """Calls per second: sequential, eight at once, and eight at once during a flush."""
    jobs = iter(site.ended(MONTH, 9 * (rounds + 1) * CALLS + 30 * (rounds + 1) * FLUSHED, in_arrays=False))
    result: list[Figure] = []
    with site.agent(MONTH) as agent, ProcessPoolExecutor(PARALLEL, mp_context=get_context("fork")) as callers:
        least = _write_least(agent)
        for what, parallel, flushing in (
            ("sequential", 1, False),
            (f"{PARALLEL} at once", PARALLEL, False),
            (f"{PARALLEL} at once, during a flush", PARALLEL, True),
        ):
            plain, barely, hooked = [], [], []
            for number in range(rounds + 1):
                with meanwhile(lambda: _flush_more(agent, jobs)) if flushing else nullcontext():
                    true_rate = _rate(callers, TRUE, _take(jobs, CALLS), agent, parallel)
                    least_rate = _rate(callers, least, _take(jobs, CALLS), agent, parallel)
                    called = _take(jobs, CALLS)
                    hook_rate = _rate(callers, HOOK, called, agent, parallel)
                _expect_all(site, agent, called)
                if number:
                    plain.append(true_rate)
                    barely.append(least_rate)
                    hooked.append(hook_rate)
            result += [
                Figure(f"/bin/true, {what}", plain, "/s"),
                Figure(f"the hook, {what}", hooked, "/s"),
                Figure(f"shell script calling /bin/true, relative to /bin/true, {what}", ratios(barely, plain), "×"),
                Figure(
                    f"the hook, relative to that shell script, {what}",
                    ratios(hooked, barely),
                    "×",
                    "at least 0.9",
                    0.9,
                    True,
                ),
                Figure(
                    f"the hook, relative to /bin/true, {what}", ratios(hooked, plain), "×", "at least 0.45", 0.45, True
                ),
            ]
    return result


def _write_least(agent: Agent) -> str:
    script = agent.folder / "least.sh"
    script.write_text(LEAST)
    script.chmod(0o755)
    return str(script)


def _rate(callers: Executor, program: str, jobs: Sequence[Job], agent: Agent, parallel: int) -> float:
    """Calls per second of a program, once for each job."""
    started = time.perf_counter()
    parts = [jobs[first::parallel] for first in range(parallel)]
    calls = sum(callers.map(_call, [program] * parallel, parts, [str(agent.spool)] * parallel))
    return calls / (time.perf_counter() - started)


def _call(program: str, jobs: Sequence[Job], spool: str) -> int:
    """Calls a program for each job like jobcomp/script: one child at a time, with these variables."""
    for job in jobs:
        env = {
            "JOBID": str(job.job_id),
            "SUBMIT": str(job.submit),
            "END": str(job.end),
            "ARRAYJOBID": "0",
            "ARRAYTASKID": "4294967294",
            "JOBNAME": "bench",
            "PATH": "/bin:/usr/bin",
            "SLURM_USAGE_HISTORY_SPOOL": spool,
        }
        _, status = os.waitpid(os.posix_spawn(program, [program], env, file_actions=_NULL), 0)
        if status:
            raise RuntimeError(f"{program}: status {status}")
    return len(jobs)


def _flush_more(agent: Agent, jobs: Iterator[Job]) -> None:
    agent.queue(_take(jobs, FLUSHED))
    agent.run("flush")


def _take(jobs: Iterator[Job], count: int) -> list[Job]:
    taken = [job for job, _ in zip(jobs, range(count))]
    expect(len(taken), count, "jobs left to call the hook for")
    return taken


def _expect_all(site: Site, agent: Agent, called: Sequence[Job]) -> None:
    """Every job that the hook was called for is delivered by flush."""
    agent.run("flush")
    delivered = {record["JobID"] for batch in site.receiver.take() for record in batch}
    expect(sum(str(job.job_id) in delivered for job in called), len(called), "of the hook's jobs delivered")
