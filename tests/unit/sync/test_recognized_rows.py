"""A reconcile that resends everything recognizes rows that were delivered: faster, with the same result."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.record import Record, make_record
from agent.jobs.run import Run
from agent.localtime import local_text
from agent.spool import delivered
from agent.spool.delivered import DeliveredJobs, Known
from agent.spool.ledger import Ledger, open_ledger
from agent.sync import walk
from agent.sync.prepare import NOTHING
from tests.support.memory import DAY, WINDOW, MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, make_run
from tests.support.sites import MemorySite

HOUR = 3600


@st.composite
def histories(draw: st.DrawFn) -> list[Run]:
    """Rows of a week in which raw IDs and tasks have had several runs, as after a slurmctld that lost its state."""
    runs = []
    for _ in range(draw(st.integers(1, 8))):
        raw_id = draw(st.integers(1, 4))
        submit = NOON + draw(st.integers(0, 20)) * 6 * HOUR
        end = submit + draw(st.integers(1, 50)) * HOUR
        runs.append(
            make_run(
                JobID=draw(st.sampled_from([str(raw_id), "9_1", "9_2"])),
                JobIDRaw=str(raw_id),
                State=draw(st.sampled_from(["COMPLETED", "COMPLETED", "FAILED", "PREEMPTED", "REQUEUED"])),
                Submit=str(submit),
                Start=str(submit),
                End=str(end),
            )
        )
    return list({(run.raw_id, run.submit): run for run in runs}.values())


def sent_by_hand(
    runs: list[Run], delivered_before: int, changed: int, batch_size: int
) -> tuple[set[str], dict[str, dict[str, Any]]]:
    """The JobIDs that a second reconcile sends, and what the dashboard then has.

    When the first one ran, only some of the rows were there, and one of them differed.
    """
    with tempfile.TemporaryDirectory() as folder:
        ledger, _ = open_ledger(Path(folder) / "ledger.db")
        before = [run._replace(cpus=1) if number == changed else run for number, run in enumerate(runs)]
        slurm = MemorySlurm(*before[:delivered_before])
        site = MemorySite(ledger, slurm, MemoryDashboard(), now=WINDOW.end, batch_size=batch_size)
        site.reconcile()
        slurm.runs = runs
        first = site.sent()
        site.reconcile(now=WINDOW.end + DAY)
        ledger.close()
        second = site.sent()
        return {record["JobID"] for record in second}, {record["JobID"]: record for record in first + second}


@settings(max_examples=40)
@given(
    runs=histories(),
    delivered_before=st.integers(0, 8),
    changed=st.integers(0, 16),
    batch_size=st.integers(1, 3),
    at_once=st.integers(1, 3),
)
def test_recognizing_rows_changes_nothing(
    runs: list[Run], delivered_before: int, changed: int, batch_size: int, at_once: int
) -> None:
    """At least as much is sent, and the dashboard ends up with the same records, as if each job had been looked up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "JOBS_AT_ONCE", at_once)
        sent, has = sent_by_hand(runs, delivered_before, changed, batch_size)
        patch.setattr(DeliveredJobs, "rows", lambda self, cluster, ended: {})
        sent_after_look_up, has_after_look_up = sent_by_hand(runs, delivered_before, changed, batch_size)
    assert has_after_look_up == has
    assert sent_after_look_up <= sent


def job(number: int) -> Run:
    return make_run(JobID=str(number), JobIDRaw=str(number))


def make_site(ledger: Ledger, *runs: Run) -> MemorySite[MemorySlurm, MemoryDashboard]:
    return MemorySite(ledger, MemorySlurm(*runs), MemoryDashboard(), now=WINDOW.end)


def test_recognized_jobs_are_not_looked_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the new job is, and all are sent and counted."""
    site = make_site(ledger, job(1), job(2))
    site.reconcile()
    site.slurm.runs.append(job(3))
    looked_up: list[str] = []
    known = ledger.delivered.known

    def note(cluster: str, records: Sequence[Record]) -> dict[tuple[int, int], Known]:
        looked_up.extend(record.job_id for record in records)
        return known(cluster, records)

    monkeypatch.setattr(ledger.delivered, "known", note)
    tally = site.reconcile()
    assert (["3"], ["1", "2", "1", "2", "3"]) == (looked_up, site.arrived())
    assert (3, 0) == (tally.jobs, tally.unchanged)


def test_a_recognized_job_is_one_that_the_hook_queued(ledger: Ledger) -> None:
    """Its share of calls of the hook is counted from the ledger."""
    site = make_site(ledger, job(1), job(2))
    site.reconcile()
    ledger.database.execute("UPDATE delivered SET hooked = 1 WHERE job_id = 1")
    tally = site.reconcile()
    assert ([2], [1], 0) == ([*tally.jobs_by_day.values()], [*tally.hooked_by_day.values()], tally.missed)


def test_rows_beyond_the_limit_are_looked_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of a very busy day takes no more memory; its jobs are sent, or left out, all the same."""
    monkeypatch.setattr(delivered, "MOST_ROWS", 1)
    site = make_site(ledger, job(1), job(2), job(3))
    site.reconcile()
    assert 3 == site.reconcile().jobs
    assert 3 == site.reconcile(resend=NOTHING).unchanged
    assert ["1", "1", "2", "2", "3", "3"] == sorted(site.arrived())


def test_runs_that_share_an_id_are_looked_up(ledger: Ledger) -> None:
    """One may supersede the other: runs of a raw ID, or of a task under two raw IDs, on the same cluster."""
    site = make_site(ledger, job(1), make_run(JobID="9_1", JobIDRaw="10"), job(2))
    site.reconcile()
    assert 3 == len(ledger.delivered.rows("lab", WINDOW))
    later = {"Submit": str(NOON + DAY), "Start": str(NOON + DAY), "End": str(NOON + DAY + 60)}
    site.slurm.runs += [
        make_run(JobID="1", JobIDRaw="1", **later),
        make_run(JobID="9_1", JobIDRaw="11", **later),
    ]
    site.reconcile()
    assert 1 == len(ledger.delivered.rows("lab", WINDOW))
    assert {} == ledger.delivered.rows("other", WINDOW)


def test_a_rejected_record_is_looked_up(ledger: Ledger) -> None:
    """A dashboard that accepted it once and rejects it now is not sent it again."""
    site = make_site(ledger, job(1), job(2))
    site.reconcile()
    ledger.rejected.add("lab", make_record([job(1)], "lab"), "no", NOON, hooked=False)
    site.sent()
    assert (2, ["2"]) == (site.reconcile().jobs, site.arrived())


def test_a_recognized_run_does_not_follow_a_newer_one(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed slurmctld ran the task again under another raw ID, which comes earlier in the same slice."""
    monkeypatch.setattr(walk, "JOBS_AT_ONCE", 1)
    first = make_run(JobID="9_1", JobIDRaw="91")
    again = make_run(JobID="9_1", JobIDRaw="92", Submit=str(NOON + 30))
    site = MemorySite(ledger, MemorySlurm(first), MemoryDashboard(), now=WINDOW.end, batch_size=1)
    site.reconcile()
    site.sent()
    site.slurm.runs = [again, first]
    site.reconcile()
    assert [local_text(run.submit) for run in (first, again)] == [record["Submit"] for record in site.sent()]


def test_the_later_run_of_a_task_arrives_last(ledger: Ledger) -> None:
    """Even if sacct prints it first, under another raw ID, and a batch ends between the two."""
    first = make_run(JobID="9_1", JobIDRaw="91")
    again = make_run(JobID="9_1", JobIDRaw="92", Submit=str(NOON + 30))
    site = MemorySite(ledger, MemorySlurm(again, first), MemoryDashboard(), now=WINDOW.end, batch_size=1)
    site.reconcile()
    assert local_text(again.submit) == site.sent()[-1]["Submit"]


@pytest.mark.parametrize("end", [NOON + 900, NOON + 3 * DAY])
def test_an_earlier_run_that_appears_late_is_added(ledger: Ledger, end: int) -> None:
    """Its job was delivered from a single row, which does not pass for unchanged, even in another slice."""
    start = str(NOON + 3 * DAY)
    last = make_run(JobID="1", JobIDRaw="1", Submit=start, Start=start, End=str(NOON + 3 * DAY + 3600))
    site = MemorySite(ledger, MemorySlurm(last), MemoryDashboard(), now=WINDOW.end)
    site.reconcile()
    (alone,) = site.sent()
    times = {"Submit": str(end - 3600), "Start": str(end - 3600), "End": str(end)}
    site.slurm.runs.insert(0, make_run(JobID="1", JobIDRaw="1", State="PREEMPTED", **times))
    site.reconcile(resend=NOTHING)
    assert [2 * alone["CPUHours"]] == [record["CPUHours"] for record in site.sent()]
