"""When the clock is set back or forward between runs, nothing is lost, and nothing waits for the clock to catch up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from agent.spool.ledger import view_ledger
from tests.faults.site import Site
from tests.support import dashboard_faults as faults
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import ROOT

HOUR = 3600
STEPS = (-365 * 24 * HOUR, -3 * HOUR, -60, 60, 3 * HOUR, 30 * 24 * HOUR, 365 * 24 * HOUR)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ReceivingDashboard() as dashboard:
        made = Site(tmp_path, dashboard, batch_size=5000, timeout=2)
        with made.agents:
            made.start_over()
            yield made


def run_at(site: Site, step: float, *command: str) -> int:
    """Runs a command with a clock that is wrong by that number of seconds."""
    argv = [sys.executable, "-m", "tests.support.other_clock", str(step), "--config", str(site.config), *command]
    return subprocess.run(argv, check=False, cwd=ROOT, env=site.env, capture_output=True).returncode


def records_of(site: Site) -> dict[str, Any]:
    """What the dashboard holds if all clocks are right."""
    site.queue_everything()
    assert site.agents.run("flush") == 0
    assert site.agents.run(*site.reconcile_argv()) == 0
    records = site.dashboard.records
    assert len(records) > 30
    site.start_over()
    return records


@pytest.mark.parametrize("step", STEPS)
def test_jobs_that_a_wrong_clock_deferred(site: Site, step: float) -> None:
    """They are queried and delivered within the hour."""
    expected = records_of(site)
    site.queue_everything()
    site.sacct.behave("empty")
    assert run_at(site, step, "flush") == 0
    ledger = view_ledger(site.spool / "ledger.db")
    waiting, _ = ledger.waiting.count()
    now = time.time() + HOUR
    due = len(ledger.waiting.due(now, after=(0, 0), limit=10_000))
    ledger.close()
    assert due == waiting > 30
    site.sacct.behave("")
    site.agents.run("queue", "retry")
    assert site.agents.run("flush") == 0
    assert (site.dashboard.records, site.leftovers()) == (expected, [])


@pytest.mark.parametrize("step", STEPS)
def test_a_reconcile_with_a_wrong_clock(site: Site, step: float) -> None:
    """Once the clock is right again the dashboard is too, whichever runs had the wrong clock."""
    expected = records_of(site)
    site.queue_everything()
    assert run_at(site, step, "reconcile") == 0
    assert run_at(site, step, "flush") == 0
    assert run_at(site, step, "reconcile") == 0
    assert site.agents.run("flush") == 0
    assert site.agents.run(*site.reconcile_argv()) == 0
    assert (site.dashboard.records, site.leftovers()) == (expected, [])
    site.dashboard.requests.clear()
    assert site.agents.run(*site.reconcile_argv(), "--only-missing") == 0
    assert site.dashboard.posts == []


@pytest.mark.parametrize("step", STEPS)
def test_a_pause_that_began_under_a_wrong_clock(site: Site, step: float) -> None:
    """A Retry-After holds for at most six hours, however the clock was changed."""
    site.queue_everything()
    site.dashboard.manners = faults.answer(429, "later", Retry_After="7200")
    assert run_at(site, step, "flush") == 69
    site.dashboard.manners = faults.behave
    assert run_at(site, 6 * HOUR + 1, "flush") == 0
    assert len(site.dashboard.records) > 30
