"""After kill -9 at any step, the next run leaves every job on the dashboard once and no stray files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import pytest

from agent.spool.ledger import view_ledger
from tests.faults.site import Site, refuse
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import ROOT
from tests.support.forked_agent import KILLED
from tests.support.tools import need

#: Every n-th step is tried besides the first one of each name; 1 tries all of them.
STRIDE = int(os.environ.get("KILL_STRIDE", "10"))
MOMENTS = int(os.environ.get("KILL_MOMENTS", "20"))
POISON = "105"
Records = Mapping[str, Mapping[str, Any]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ReceivingDashboard() as dashboard:
        dashboard.manners = refuse(POISON)
        made = Site(tmp_path, dashboard)
        with made.agents:
            yield made


def begin(site: Site) -> None:
    site.start_over()
    site.queue_everything()


def check(site: Site, expected: Records, what: str) -> None:
    """Every job is delivered once, the bad one is set aside, and nothing waits."""
    ledger = view_ledger(site.spool / "ledger.db")
    waiting = [item.entry.asked for item in ledger.waiting.newest()]
    rejected = [record.shown_id for record in ledger.rejected.newest()]
    ledger.close()
    assert (site.dashboard.records, rejected, waiting, site.leftovers()) == (expected, [POISON], [], []), what


def chosen(steps: Sequence[str]) -> list[int]:
    """The first step of each name, and every n-th."""
    firsts = {name: number for number, name in reversed(list(enumerate(steps, 1)))}
    return sorted({*firsts.values(), *range(1, len(steps) + 1, STRIDE)})


@pytest.mark.timeout(900)  # hundreds of runs
@pytest.mark.parametrize("name", ["flush", "reconcile"])
def test_killed_at_every_step(site: Site, name: str) -> None:
    """The next run of the same command repairs whatever the kill left."""
    command = ("flush",) if name == "flush" else site.reconcile_argv()
    start = begin if name == "flush" else Site.start_over
    start(site)
    steps = site.agents.steps(*command)
    expected = site.dashboard.records
    assert len(expected) > 30
    killed = Counter(died_and_recovered(site, start, command, number, expected) for number in chosen(steps))
    assert killed[True] > 10 * killed[False]


def died_and_recovered(
    site: Site, start: Callable[[Site], None], command: Sequence[str], number: int, expected: Records
) -> bool:
    """Whether the run died at that step; the order of steps in threads varies."""
    start(site)
    status = site.agents.run(*command, kill_at=number)
    site.agents.run(*command)
    check(site, expected, f"step {number}")
    return status == KILLED


def test_killed_at_random_moments(site: Site) -> None:
    """The same holds for repeated kills on one spool at any moment, while further jobs end."""
    begin(site)
    site.agents.run("flush")
    expected = site.dashboard.records
    site.start_over()
    lines = site.hook_lines()
    dice = random.Random(MOMENTS)
    killed: Counter[int] = Counter()
    for _ in range(MOMENTS):
        with (site.spool / "queue").open("a") as queue:
            queue.writelines(f"\n{line}\n" for line in dice.sample(lines, 20))
        command = dice.choice([("flush",), ("flush",), site.reconcile_argv()])
        killed[site.agents.run(*command, kill_after=dice.uniform(0.001, 0.2))] += 1
    site.queue_everything()
    site.agents.run("flush")
    check(site, expected, "at the end")
    assert killed[KILLED] > MOMENTS / 4


def test_killed_at_every_write(site: Site, tmp_path: Path) -> None:
    """The same holds within SQLite's commits: at each system call that changes a file, or every n-th."""
    need("strace")
    begin(site)
    site.agents.run("flush")
    expected = site.dashboard.records
    calls = "pwrite64,write,fdatasync,fsync,ftruncate,unlink,unlinkat,rename,renameat,mkdir"
    argv = [sys.executable, "-m", "agent", "--config", str(site.config), "flush"]
    log = tmp_path / "strace.log"

    def flush(*options: str) -> None:
        traced = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={calls}", "-o", str(log), *options, *argv]
        subprocess.run(traced, check=False, cwd=ROOT, env=site.env, stderr=subprocess.DEVNULL)

    begin(site)
    flush()
    made = Counter(line.split()[1].partition("(")[0] for line in log.read_text().splitlines() if "(" in line)
    moments = [(name, number) for name in calls.split(",") for number in range(1, made[name] + 1)]
    for name, number in moments[:: STRIDE * 2]:
        begin(site)
        flush(f"--inject={name}:signal=KILL:when={number}")
        site.agents.run("flush")
        check(site, expected, f"{name} {number}")
