"""A job that was preempted, or lost its node, is final if it does not continue, however long ago that was."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import pytest

from agent.errors import SlurmUnreachable
from agent.jobs.finality import UNANSWERED_SECONDS
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.run import Run
from agent.localtime import Range
from agent.spool.ledger import Ledger
from agent.sync import backlog
from tests.support.memory import DAY, WINDOW, MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, make_run
from tests.support.sites import MemorySite, SessionSite

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
    """After an outage of weeks many jobs wait, and are found by End."""
    monkeypatch.setattr(backlog, "MANY_JOBS", 0)
    monkeypatch.setattr(backlog, "MANY_IN_A_SLICE", 0)
    gone_on, over = make_run(State=state), make_run(State=state, JobID="101", JobIDRaw="101")
    site = site_with(ledger, gone_on, make_run(**LIVE), over)
    site.queue(*(QueueEntry(run.raw_id, run.submit, run.end) for run in (gone_on, over)))
    site.flush()
    assert ["101"] == [record["JobID"] for record in site.sent()]
    assert 0 == ledger.waiting.count()[0]


class SilentSlurm(MemorySlurm):
    """A Slurm whose slurmctld does not answer while ``silent`` is True."""

    silent = False

    def job_states(self, raw_ids: Sequence[int]) -> dict[int, str]:
        if self.silent:
            raise SlurmUnreachable("squeue did not answer within 30 s and was killed")
        return super().job_states(raw_ids)


def test_a_slurmctld_that_is_busy_for_a_moment(tmp_path: Path) -> None:
    """A call without an answer does not end a job that has been COMPLETING for days; a day without any does."""
    run = make_run(State="NODE_FAIL")
    site = SessionSite(tmp_path, now=NOON)
    site.slurm = SilentSlurm(run)
    site.slurm.states = {run.raw_id: "COMPLETING"}
    first = (run.end or 0) + 2 * DAY
    answered, silent = first + UNANSWERED_SECONDS, first + UNANSWERED_SECONDS + 120
    calls = [(first, True), (answered, False), (silent, True)]
    calls += [(silent + UNANSWERED_SECONDS - 1, True), (silent + UNANSWERED_SECONDS, True)]
    sent = []
    for site.now, site.slurm.silent in calls:
        site.flush(QueueEntry(run.raw_id, run.submit, run.end))
        sent.append(len(site.sent()))
    assert [0, 0, 0, 0, 1] == sent
