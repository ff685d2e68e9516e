"""What sacct's rows say about a queued job."""

from __future__ import annotations

import pytest

from agent.jobs.finality import ASK_SLURMCTLD_SECONDS, HALF_WRITTEN_SECONDS, UNANSWERED_SECONDS
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.queue_verdict import Fate, judge_doubtful, judge_entry
from agent.jobs.run import Run
from tests.support.rows import NOON, make_run

ENDED = NOON + 3660
LATER = ENDED + 10_000
TOLD = QueueEntry(100, NOON, ENDED)
LIVE = {"State": "RUNNING", "End": "Unknown"}


def test_final_job_is_sent() -> None:
    """A record that has ended when the hook said so is sent with its runs."""
    verdict = judge_entry(TOLD, [make_run()], LATER)
    assert (Fate.SEND, [make_run()]) == (verdict.fate, verdict.runs)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no record yet"),
        ([make_run(**LIVE)], "still running in the accounting"),
        ([make_run(End=str(ENDED - 100))], "record not up to date yet"),
        ([make_run(Submit=str(NOON - 10**7), End=str(NOON - 10**6))], "record not up to date yet"),
    ],
    ids=["missing", "running", "ended earlier", "an earlier owner of the ID"],
)
def test_flush_waits_for_a_record_that_does_not_exist_yet(rows: list[Run], reason: str) -> None:
    """The hook is called before slurmctld has sent the record: a missing, live or old row is not the answer."""
    verdict = judge_entry(TOLD, rows, LATER)
    assert (Fate.WAIT, reason) == (verdict.fate, verdict.reason)


@pytest.mark.parametrize("submit", ["Unknown", str(NOON - 100)], ids=["missing", "of a resize before the requeue"])
def test_a_record_with_another_submit_than_the_hook_said(submit: str) -> None:
    """The End identifies the run, as nothing else of this job ended after the Submit that the hook reported."""
    rows = [make_run(Submit=submit)]
    assert (Fate.SEND, rows) == (judge_entry(TOLD, rows, LATER).fate, judge_entry(TOLD, rows, LATER).runs)
    cancelled_at_once = QueueEntry(100, ENDED, ENDED + 1)
    assert Fate.WAIT is judge_entry(cancelled_at_once, rows, LATER).fate


def test_an_end_that_slurmdbd_never_learns_of() -> None:
    """A slurmctld killed twice has run the job again and kept its later end: after a day the earlier one counts."""
    rows = [make_run(End=str(ENDED - 100))]
    early, late = (judge_entry(TOLD, rows, ENDED + age) for age in (HALF_WRITTEN_SECONDS - 1, HALF_WRITTEN_SECONDS))
    assert ((Fate.WAIT, True), (Fate.SEND, rows)) == ((early.fate, early.is_half), (late.fate, late.runs))


def test_a_later_end_after_a_requeue_is_awaited_without_limit() -> None:
    """The requeued run is not the last one, and slurmdbd may be days behind."""
    verdict = judge_entry(TOLD, [make_run(State="REQUEUED", End=str(ENDED - 100))], ENDED + HALF_WRITTEN_SECONDS)
    assert (Fate.WAIT, False) == (verdict.fate, verdict.is_half)


def test_a_requeued_job_is_dropped_from_the_queue() -> None:
    """The hook was called for the end of a run; the next end calls it again."""
    rows = [make_run(State="REQUEUED"), make_run(Submit=str(ENDED), Start="Unknown", **{**LIVE, "State": "PENDING"})]
    assert Fate.DISMISS is judge_entry(TOLD, rows, LATER).fate


def test_a_lone_requeued_row_is_dropped_from_the_queue() -> None:
    """The row of the next run may be written later than the hook's call; the job continues in any case."""
    assert Fate.DISMISS is judge_entry(TOLD, [make_run(State="REQUEUED")], LATER).fate


def test_end_after_a_requeue_waits_for_its_own_record() -> None:
    """A requeued run in the accounting is not the later end that the hook reported."""
    entry = QueueEntry(100, ENDED, ENDED + 500)
    rows = [make_run(State="REQUEUED"), make_run(Submit=str(ENDED), **LIVE)]
    assert [Fate.WAIT] * 2 == [judge_entry(entry, rows[:1], LATER).fate, judge_entry(entry, rows, LATER).fate]


def test_end_of_a_resized_job_waits_for_its_own_record() -> None:
    """The hook gives a resized job's first Submit; its last segment, still live in the accounting, is waited for."""
    entry = QueueEntry(100, NOON, ENDED + 500)
    rows = [make_run(State="RESIZING"), make_run(Submit=str(ENDED), **LIVE)]
    assert Fate.WAIT is judge_entry(entry, rows, LATER).fate


def test_without_hints_a_live_job_is_waited_for() -> None:
    """EpilogSlurmctld of older versions reports neither Submit nor End, so a live row may just be late."""
    rows = [make_run(State="REQUEUED"), make_run(Submit=str(ENDED), **LIVE)]
    for part in (rows[:1], rows):
        asked = judge_entry(QueueEntry(100), part, LATER)
        assert Fate.WAIT is judge_doubtful(asked, LATER, {100: "COMPLETING"}).fate
        assert Fate.WAIT is judge_entry(QueueEntry(100, submit=0), part, LATER).fate  # queued by an admin


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_without_hints_a_requeued_job_is_dropped_from_the_queue(state: str) -> None:
    """Otherwise it would wait for days, and status would raise an alarm. The job's next end calls the hook again."""
    rows = [make_run(State="REQUEUED"), make_run(Submit=str(ENDED), **{**LIVE, "State": state})]
    asked = judge_entry(QueueEntry(100), rows, LATER)
    assert (Fate.ASK_SLURMCTLD, Fate.DISMISS) == (asked.fate, judge_doubtful(asked, LATER, {100: state}).fate)


def test_a_revoked_job_is_dropped_from_the_queue() -> None:
    """A job of a federation that ran on another cluster is that cluster's to send."""
    assert Fate.DISMISS is judge_entry(TOLD, [make_run(State="REVOKED")], LATER).fate


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_slurmctld_decides_whether_a_preempted_job_continues(state: str) -> None:
    """Its row has an End while the job is COMPLETING, and its age does not show whether it will be requeued."""
    asked = judge_entry(TOLD, [make_run(State=state)], LATER)
    assert (Fate.ASK_SLURMCTLD, "may be requeued") == (asked.fate, asked.reason)
    completing, unknown = {100: "COMPLETING"}, {101: "COMPLETING"}
    assert [Fate.WAIT, Fate.SEND] == [judge_doubtful(asked, LATER, alive).fate for alive in (completing, unknown)]


def test_a_preempted_job_does_not_wait_forever_for_slurmctld() -> None:
    """It is sent after a day without an answer; a later run would replace what is sent."""
    asked = judge_entry(TOLD, [make_run(State="PREEMPTED")], LATER)
    fates = [judge_doubtful(asked, ENDED + age, None).fate for age in (60, UNANSWERED_SECONDS)]
    assert [Fate.WAIT, Fate.SEND] == fates


def test_a_job_that_was_preempted_long_ago_is_final() -> None:
    """slurmctld no longer knows it."""
    assert Fate.SEND is judge_entry(TOLD, [make_run(State="PREEMPTED")], ENDED + ASK_SLURMCTLD_SECONDS).fate


def test_runs_from_before_the_federation_moved_the_job_count_here() -> None:
    """A requeued job that continues elsewhere leaves its first run under a newest row that is REVOKED."""
    moved = make_run(State="REVOKED", Submit=str(ENDED + 9), Start=str(ENDED + 10), End=str(ENDED + 20))
    assert Fate.SEND is judge_entry(TOLD, [make_run(State="REQUEUED"), moved], LATER).fate


def test_a_reused_id_is_not_mistaken_for_its_earlier_owner() -> None:
    """Once the new job's row exists, only that job is sent."""
    old = make_run(Submit=str(NOON - 10**7), Start=str(NOON - 10**7), End=str(NOON - 10**6))
    assert [make_run()] == judge_entry(TOLD, [old, make_run()], LATER).runs


def test_flush_waits_for_a_half_written_record_but_not_forever() -> None:
    """A row that has an end and no partition yet lacks its QOS and array, too; an old one will not be completed."""
    rows = [make_run(Partition="", QOS="Unknown")]
    assert Fate.WAIT is judge_entry(TOLD, rows, ENDED + 3).fate
    assert Fate.SEND is judge_entry(TOLD, rows, ENDED + HALF_WRITTEN_SECONDS).fate


def test_a_task_has_one_name_however_long_slurmctld_was_dead() -> None:
    """slurmctld, killed before it reported more than the end, runs the job again: only then is its array known."""
    half = make_run(JobID="100", Partition="", QOS="")
    assert Fate.WAIT is judge_entry(TOLD, [half], ENDED + 12 * 3600).fate
    again = make_run(JobID="99_1", JobIDRaw="100", End=str(ENDED + 12 * 3600))
    assert [again] == judge_entry(TOLD, [again], ENDED + 13 * 3600).runs


def test_a_running_job_that_an_admin_queues_waits_for_its_end() -> None:
    """Without a hook, nothing would deliver it before the next reconcile."""
    runs = [make_run(State="RUNNING", End="Unknown")]
    assert Fate.WAIT is judge_entry(QueueEntry(100, 0), runs, ENDED).fate
