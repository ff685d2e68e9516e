"""A JobID that has had several owners: none gets another's hours, and none is forgotten for another."""

from __future__ import annotations

import pytest

from agent.jobs.run import Run
from agent.localtime import Range
from agent.spool.ledger import Ledger
from tests.support.memory import DAY, MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, make_run
from tests.support.sites import MemorySite

LATER = NOON + 250 * DAY
EVERYTHING = Range(NOON - DAY, LATER + DAY)


def run_at(submit: int, **changes: str) -> Run:
    """A plain run of an hour, of 8 CPUs, that was submitted at an instant."""
    return make_run(**{"Submit": str(submit), "Start": str(submit), "End": str(submit + 3600), **changes})


def site_with(ledger: Ledger, *runs: Run) -> MemorySite[MemorySlurm, MemoryDashboard]:
    return MemorySite(ledger, MemorySlurm(*runs), MemoryDashboard(), now=LATER + 2 * DAY)


@pytest.mark.parametrize("state", ["REQUEUED", "PREEMPTED", "NODE_FAIL", "RESIZING"])
def test_a_users_new_job_does_not_get_the_hours_of_an_old_one(ledger: Ledger, state: str) -> None:
    """The old one was requeued and has ended since: of its rows only the requeued one is remembered."""
    old = [run_at(NOON, State=state), run_at(NOON + 3600)]
    site = site_with(ledger, *old, run_at(LATER))
    site.reconcile(EVERYTHING, now=site.now)
    assert [16.0, 8.0] == [record["CPUHours"] for record in site.sent()]


@pytest.mark.parametrize("again", ["REQUEUED", "COMPLETED"])
def test_a_lost_job_whose_id_was_reused(ledger: Ledger, again: str) -> None:
    """slurmctld has lost a requeued job with its state, and gives its ID to another user's, which may get lost, too."""
    site = site_with(ledger, run_at(NOON, State="REQUEUED"), run_at(LATER, UID="1001", User="bob", State=again))
    site.reconcile(EVERYTHING, now=site.now)
    assert {("alice", "REQUEUED"), ("bob", again)} == {(record["User"], record["State"]) for record in site.sent()}


@pytest.mark.parametrize("state", ["COMPLETED", "RUNNING"])
@pytest.mark.parametrize("first", ["NODE_FAIL", "COMPLETED"])
def test_a_task_that_ran_again_under_another_raw_id(ledger: Ledger, first: str, state: str) -> None:
    """The first run, which a killed slurmctld has forgotten, does not come after the second."""
    end = {"End": "Unknown"} if state == "RUNNING" else {}
    again = run_at(NOON, JobID="90_1", JobIDRaw="92", Start=str(NOON + 7200), **{"End": str(NOON + 9000), **end})
    site = site_with(
        ledger, run_at(NOON, JobID="90_1", JobIDRaw="91", State=first), again._replace(state=state), run_at(NOON + 60)
    )
    site.reconcile(EVERYTHING, now=site.now)
    sent = [record["State"] for record in site.sent() if record["JobID"] == "90_1"]
    assert (["COMPLETED"] if state == "COMPLETED" or first == "COMPLETED" else []) == sent[-1:]
    assert (2 if (state, first) == ("COMPLETED", "COMPLETED") else len(sent[-1:])) == len(sent)
