"""A session also flushes during a reconcile, asks slurmctld, and repairs what others overwrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SlurmUnreachable
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.run import Run
from agent.slurm.controller_hosts import Controllers
from agent.sync import reconcile
from tests.support.memory import DAY, WINDOW
from tests.support.rows import NOON, make_run
from tests.support.sites import SessionSite

ELSEWHERE = Controllers("lab", ("ctl1(192.0.2.1)", "ctl2(192.0.2.2)"), "/nonexistent")


def ended(job: int, end: int, **changes: str) -> Run:
    times = {"Submit": str(end - 3600), "Start": str(end - 3600), "End": str(end)}
    return make_run(JobID=str(job), JobIDRaw=str(job), **times, **changes)


def job_ids(site: SessionSite) -> list[str]:
    """The JobIDs of the records delivered since the last call, in order."""
    return [record["JobID"] for record in site.sent()]


def test_what_the_hook_queues_meanwhile_is_delivered_between_two_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backfill of hours holds the lock, and the newest jobs must not wait for its end."""
    monkeypatch.setattr(reconcile, "INTERLUDE_SECONDS", 0.0)
    newest = ended(9, WINDOW.end - 5)
    site = SessionSite(tmp_path, *(ended(day, NOON + day * DAY - 1) for day in range(1, 6)), newest, now=WINDOW.end)
    with site.session() as (session, spool):
        spool.queue.append([QueueEntry(9, newest.submit, newest.end)])
        session.reconcile(WINDOW, only_missing=False)
        (row,) = spool.ledger.database.execute("SELECT command FROM delivered WHERE job_id = 9")
    assert ("flush",) == row
    sent = job_ids(site)
    assert sent.index("9") < sent.index("5")


@pytest.mark.parametrize("state", ["COMPLETING", "unreachable"])
def test_a_preempted_job_waits_for_slurmctld(tmp_path: Path, state: str) -> None:
    """The accounting says preempted; only slurmctld knows whether it continues, and it may not answer."""
    site = SessionSite(tmp_path, ended(7, WINDOW.end - 900, State="PREEMPTED"), now=WINDOW.end)
    site.slurm.states = {7: state}
    if state == "unreachable":

        def job_states(raw_ids: object) -> dict[int, str]:
            raise SlurmUnreachable("scontrol timed out")

        site.slurm.job_states = job_states
    with site.session() as (session, spool):
        spool.queue.append([QueueEntry(7, None, WINDOW.end - 900)])
        session.flush()
        assert ([], [7]) == (job_ids(site), [item.entry.job_id for item in spool.ledger.waiting.newest()])


def test_records_that_another_host_may_have_erased_are_resent(tmp_path: Path) -> None:
    """Two hosts that know nothing of each other's turns: what is new, or has just ended, goes out a second time."""
    site = SessionSite(tmp_path, ended(1, NOON + DAY), ended(2, WINDOW.end - 60), now=WINDOW.end)
    site.slurm.controllers = lambda: ELSEWHERE
    with site.session() as (session, _):
        session.reconcile(WINDOW, only_missing=False)
    assert ["1", "2", "1", "2"] == job_ids(site)
    site.now += 120
    with site.session() as (session, _):
        session.reconcile(WINDOW, only_missing=False)
    assert ["1", "2", "2"] == job_ids(site)
