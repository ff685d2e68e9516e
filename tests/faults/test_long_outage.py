"""A month of outage leaves a million lines: claiming, listing and delivering them takes no more memory than a few."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.faults.site import Site
from tests.support.dashboard import Answer, Connection, ReceivingDashboard, Request
from tests.support.exporter import ROOT

LINES = int(os.environ.get("OUTAGE_LINES", "100000"))
FEW = 3000
FIRST_END = int(time.time()) - 40 * 86_400
SPARE_KILOBYTES = 16 * 1024

pytestmark = pytest.mark.timeout(max(300, LINES // 500))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ReceivingDashboard() as dashboard:
        made = Site(tmp_path, dashboard, batch_size=2000, timeout=30)
        with made.agents:
            made.start_over()
        yield made


def queue_lines(site: Site, first: int, last: int) -> None:
    """The hook's lines for jobs that ended one every two seconds."""
    ends = ((job, FIRST_END + 2 * (job - 1)) for job in range(first, last + 1))
    with (site.spool / "queue").open("a") as queue:
        queue.writelines(f"\n{job} {end - 90} {end} -\n" for job, end in ends)


def peak_of(site: Site, *command: str) -> int:
    """The most kilobytes that one command holds."""
    code = "import os, resource, subprocess, sys; null = subprocess.DEVNULL;"
    code += "subprocess.run(sys.argv[1:], stdout=null, stderr=null);"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    argv = [sys.executable, "-c", code, sys.executable, "-m", "agent", "--config", str(site.config), *command]
    return int(subprocess.run(argv, check=True, cwd=ROOT, env=site.env, stdout=subprocess.PIPE).stdout)


def run(site: Site, *command: str) -> str:
    """Runs a command to its end, and returns what it printed."""
    argv = [sys.executable, "-m", "agent", "--config", str(site.config), *command]
    return subprocess.run(argv, check=True, cwd=ROOT, env=site.env, stdout=subprocess.PIPE, text=True).stdout


def test_memory_stays_flat_while_it_lasts(site: Site) -> None:
    """Commands that read all waiting jobs need no more memory than with an empty queue."""
    commands = (("flush",), ("queue", "list", "--all"), ("queue", "retry"), ("status",))
    idle = {command: peak_of(site, *command) for command in commands}
    queue_lines(site, 1, LINES)
    site.sacct.behave("no_slurmdbd")
    loaded = {command: peak_of(site, *command) for command in commands}
    print("".join(f"\n{' '.join(name)}: {idle[name]} kB, with {LINES} lines {loaded[name]} kB" for name in commands))
    assert [name for name in commands if loaded[name] > idle[name] + SPARE_KILOBYTES] == []
    listed = run(site, "queue", "list", "--all").splitlines()
    assert listed[1] == f"waiting: {LINES:,}"
    assert {line.split()[0] for line in listed[2:-1]} == {str(job) for job in range(1, LINES + 1)}
    assert run(site, "queue", "retry") == f"{LINES:,} jobs will be tried again in the next flush\n"


def test_a_slow_reader_blocks_no_run(site: Site) -> None:
    """`queue list | less`, left open overnight, blocks no writer."""
    queue_lines(site, 1, 5000)
    site.sacct.behave("empty")
    run(site, "flush")
    argv = [sys.executable, "-m", "agent", "--config", str(site.config), "queue", "list", "--all"]
    with subprocess.Popen(argv, cwd=ROOT, env=site.env, stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        reader.stdout.readline()  # and no more, until the pipe is full
        time.sleep(0.5)
        started = time.monotonic()
        run(site, "queue", "retry")
        assert time.monotonic() - started < 5
        rest = reader.stdout.read()
    assert rest.count(b" since ") == 5000


class Count:
    """A dashboard that only remembers which jobs it received."""

    def __init__(self, dashboard: ReceivingDashboard) -> None:
        self.jobs: set[int] = set()
        self._requests = dashboard.requests

    def __call__(self, request: Request, connection: Connection, serve: Any) -> None:
        jobs = request.jobs
        self._requests.clear()
        self.jobs.update(int(job["JobID"]) for job in jobs)
        connection.send(Answer(200, {"success": True, "message": "taken", "jobs_processed": len(jobs)}))


def test_memory_stays_flat_when_it_ends(site: Site) -> None:
    """One flush delivers all of it, and needs no more memory than for a few."""
    taken = site.dashboard.manners = Count(site.dashboard)
    site.sacct.make_jobs(FEW + LINES, FIRST_END)
    queue_lines(site, 1, FEW)
    few = peak_of(site, "flush")
    assert taken.jobs == set(range(1, FEW + 1))
    queue_lines(site, FEW + 1, FEW + LINES)
    started = time.monotonic()
    many = peak_of(site, "flush")
    seconds = time.monotonic() - started
    print(f"\nflush of {FEW} jobs: {few} kB, of {LINES}: {many} kB in {seconds:.0f} s, {site.sacct.calls} sacct")
    assert taken.jobs == set(range(1, FEW + LINES + 1))
    assert many < few + SPARE_KILOBYTES
    assert run(site, "queue", "list").splitlines()[:2] == ["queued for the next flush: 0", "waiting: 0"]
