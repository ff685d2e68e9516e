"""A job that was preempted, or lost its node, is final if it does not continue, however long ago that was."""

from __future__ import annotations

import pytest

from agent.jobs.queue_entry import QueueEntry
from agent.jobs.run import Run
from agent.localtime import Range
from agent.spool.ledger import Ledger
from agent.sync import backlog
from tests.support.memory import DAY, WINDOW, MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, make_run
from tests.support.sites import MemorySite

NOW = WINDOW.end + 60 * DAY
LIVE = {"State": "PENDING", "Submit": str(NOON + DAY), "Start": "Unknown", "End": "Unknown", "ElapsedRaw": "0"}


def site_with(ledger: Ledger, *runs: Run) -> MemorySite[MemorySlurm, MemoryDashboard]:
    return MemorySite(ledger, MemorySlurm(*runs), MemoryDashboard(), now=NOW, batch_size=100)


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_held_job_is_not_sent_by_a_replay_of_old_days(ledger: Ledger, state: str) -> None:
    """The rows that ended in those days do not show that it is pending again."""
    site = site_with(ledger, make_run(State=state), make_run(**LIVE))
    site.reconcile(now=NOW)
    assert [] == site.sent()


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_run_that_ended_after_the_replayed_days_delivers_the_job(ledger: Ledger, state: str) -> None:
    """Not the days of its first run, which would leave two records of it where a new year lies between them."""
    end = NOON + 40 * DAY
    last = make_run(Submit=str(NOON + 20 * DAY), Start=str(end - 3600), End=str(end))
    site = site_with(ledger, make_run(State=state), last)
    site.reconcile(now=NOW)
    assert [] == site.sent()
    site.reconcile(Range(end - DAY, end), now=NOW)
    assert [16.0] == [record["CPUHours"] for record in site.sent()]


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_flush_that_walks_does_not_send_a_held_job(
    ledger: Ledger, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage of weeks many jobs wait, and are found by the time they ended."""
    monkeypatch.setattr(backlog, "MANY_JOBS", 0)
    monkeypatch.setattr(backlog, "MANY_IN_A_SLICE", 0)
    gone_on, over = make_run(State=state), make_run(State=state, JobID="101", JobIDRaw="101")
    site = site_with(ledger, gone_on, make_run(**LIVE), over)
    site.queue(*(QueueEntry(run.raw_id, run.submit, run.end) for run in (gone_on, over)))
    site.flush()
    assert ["101"] == [record["JobID"] for record in site.sent()]
    assert 0 == ledger.waiting.count()[0]
