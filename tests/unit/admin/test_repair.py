"""An admin repairs the queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.admin import repair
from agent.errors import ExporterError, UsageError
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import make_record
from agent.localtime import local_text
from agent.spool.ledger import Ledger
from agent.spool.queue import Queue
from agent.spool.run_history import RunReport
from agent.spool.spool import Spool
from agent.spool.waiting import REFUSED as REFUSED_STATE
from agent.spool.waiting import Waiting
from tests.support.rows import NOON, make_run

REFUSED = make_record([make_run(JobID="203_3", JobIDRaw="210")], "lab")


@pytest.fixture
def spool(tmp_path: Path, ledger: Ledger) -> Spool:
    return Spool(Queue(tmp_path, complain=lambda error: None), ledger)


def set_aside(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.waiting.add([QueueEntry(100)], NOON)
        items = list(ledger.waiting.newest())
        ledger.waiting.postpone(item._replace(attempts=5, due_at=NOON + 1e6, reason="no record yet") for item in items)
        ledger.rejected.add("lab", REFUSED, "no such user", NOON, hooked=True)


def test_job_ids_as_admins_type_them() -> None:
    """A JobID is a number, or a task of an array."""
    assert [QueueEntry(4711), QueueEntry(203, array_task=3)] == repair.parse_job_ids(["4711", "203_3"])


@pytest.mark.parametrize("text", ["", "abc", "4711 170", "-", "0", "203_[1-5]", "12+1", "1;rm"])
def test_texts_that_are_not_job_ids(text: str) -> None:
    """Anything else is refused before the queue is touched."""
    with pytest.raises(UsageError, match="is not a JobID"):
        repair.parse_job_ids([text])


def listed(spool: Spool, *, everything: bool = False) -> list[str]:
    return list(repair.list_lines(spool, everything=everything, now=NOON))


def test_list_shows_queued_waiting_and_rejected_jobs(spool: Spool, ledger: Ledger) -> None:
    """The list shows what is queued, what is waiting and for what, and what was rejected with which error message."""
    (spool.queue._path).write_text(f"1 - - -\n2 5 {NOON} -\n")
    set_aside(ledger)
    assert [
        "queued for the next flush: 2",
        f"  2            ended {local_text(NOON)}",
        "  1",
        "waiting: 1",
        f"  100          for its record since {local_text(NOON)}: no record yet; tried 5 times,"
        f" next {local_text(int(NOON + 1e6))}",
        "rejected by the dashboard: 1",
        f"  203_3  JobID 210  on {local_text(NOON)}  no such user",
    ] == listed(spool)


def test_each_waiting_job_shows_what_it_waits_for(spool: Spool, ledger: Ledger) -> None:
    """A job waits for its record, the dashboard, or the next flush; after a failed flush the reason is shown."""

    def waits(item: Waiting) -> str:
        with ledger.transaction():
            ledger.waiting.forget([item.key])
            ledger.waiting.add([item.entry], NOON)
            ledger.waiting.postpone([item])
        return listed(spool)[2].split(maxsplit=1)[1]

    since = local_text(NOON)
    fresh = Waiting(QueueEntry(7), NOON, 0, NOON, "not sent yet")
    assert f"for the next flush since {since}" == waits(fresh)
    refused = fresh._replace(state=REFUSED_STATE, reason="no such user", attempts=2, due_at=NOON + 60)
    reported = f"for the dashboard since {since}: refused: no such user; tried 2 times, next {local_text(NOON + 60)}"
    assert reported == waits(refused)
    for message, whom in (
        ("no answer from https://d: Connection refused", "the dashboard"),
        ("sacct failed with exit status 1", "Slurm"),
        ("/opt/slurm/bin/sacct cannot be started", "Slurm"),
    ):
        ledger.history.add_run(RunReport("flush", NOON, 1.0, 69, message))
        assert f"for {whom} since {since}: the last flush failed: {message}" == waits(fresh)
        # Its record has arrived meanwhile: it is due, and the reason for waiting no longer applies.
        late = fresh._replace(attempts=3, reason="no record yet")
        assert f"for {whom} since {since}: the last flush failed: {message}" == waits(late)


def test_a_long_list_shows_the_newest(spool: Spool, ledger: Ledger) -> None:
    """Twenty of each kind are shown, or all of them: after a long outage there are a hundred thousand."""
    (spool.queue._path).write_text("".join(f"{job} - - -\n" for job in range(1, 31)))
    with ledger.transaction():
        for job in range(101, 131):
            ledger.waiting.add([QueueEntry(job)], NOON + job)
            ledger.rejected.add("lab", REFUSED._replace(key=(job, 1), job_id=str(job)), "no", NOON + job, hooked=True)
    few = [line.split()[0] for line in listed(spool)]
    assert [str(job) for job in range(30, 10, -1)] == few[1:21]
    assert [str(job) for job in range(130, 110, -1)] == few[23:43]
    assert 3 * ["  and 10 more; `queue list --all` shows them"] == [line for line in listed(spool) if "more" in line]
    everything = [line.split()[0] for line in listed(spool, everything=True)]
    assert [str(job) for job in range(30, 0, -1)] == everything[1:31]
    assert [str(job) for job in range(130, 100, -1)] == everything[32:62]
    assert 93 == len(everything)


@pytest.mark.parametrize("named", [["203_3"], ["210"], []])
def test_retry_of_a_rejected_record(ledger: Ledger, named: list[str]) -> None:
    """A rejected record waits for the next flush again, named by its JobID, by its raw ID, or with all others."""
    set_aside(ledger)
    repair.retry(ledger, repair.parse_job_ids(named))
    assert 0 == ledger.rejected.count()
    asked = {item.entry.asked for item in ledger.waiting.newest() if item.attempts == 0}
    assert asked & {"203_3", "210"}


def test_retry_of_a_waiting_job_makes_it_due(ledger: Ledger) -> None:
    """A waiting job is due immediately after a retry."""
    set_aside(ledger)
    repair.retry(ledger, [QueueEntry(100)])
    assert [0] == [item.attempts for item in ledger.waiting.newest()]


def test_retry_of_everything(ledger: Ledger) -> None:
    """A retry makes waiting jobs due and rejected ones wait again; dropped ones stay dropped."""
    dropped = make_record([make_run(JobID="9", JobIDRaw="9")], "lab")
    with ledger.transaction():
        ledger.rejected.add("lab", dropped, "no such user", NOON, hooked=True)
        ledger.rejected.drop(9, "9")
    set_aside(ledger)
    assert 2 == repair.retry(ledger, [])
    assert [(210, 0), (100, 0)] == [(item.entry.job_id, item.attempts) for item in ledger.waiting.newest()]
    assert all(item.due_at > NOON for item in ledger.waiting.newest())
    assert ([], [dropped.key]) == (list(ledger.rejected.newest()), list(ledger.rejected.digests("lab")))


def test_drop(spool: Spool, ledger: Ledger) -> None:
    """A dropped job is no longer queued, waiting or rejected, and its rejected record is never sent unchanged."""
    set_aside(ledger)
    spool.queue.append([QueueEntry(7)])
    assert 3 == repair.drop(spool, repair.parse_job_ids(["7", "100", "203_3"]))
    assert ([], 0) == (list(ledger.waiting.newest()), ledger.rejected.count())
    assert {REFUSED.key: REFUSED.digest} == ledger.rejected.digests("lab")


def test_a_dry_run_drops_nothing(spool: Spool, ledger: Ledger) -> None:
    """Entries of the queue file are dropped too, although no transaction can restore them."""
    spool.queue.append([QueueEntry(7), QueueEntry(8)])
    with ledger.rehearsal():
        assert 1 == repair.drop(spool, repair.parse_job_ids(["7"]))
    assert [QueueEntry(7, 0), QueueEntry(8, 0)] == list(spool.queue.read(spool.queue.files()))


def test_an_unknown_job_is_named(spool: Spool, ledger: Ledger) -> None:
    """A typing error changes nothing, not even for the jobs named before it."""
    set_aside(ledger)
    with pytest.raises(ExporterError, match="job 99 is neither waiting nor rejected"):
        repair.drop(spool, repair.parse_job_ids(["100", "99"]))
    with pytest.raises(ExporterError, match="job 99 is neither waiting nor rejected"):
        repair.retry(ledger, repair.parse_job_ids(["99"]))
    assert [100] == [item.entry.job_id for item in ledger.waiting.newest()]
