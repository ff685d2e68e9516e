"""An admin repairs the queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.admin import repair
from agent.errors import ExporterError, UsageError
from agent.jobs.entry import QueueEntry
from agent.jobs.record import make_record
from agent.spool.ledger import Ledger
from agent.spool.queue import Queue
from agent.spool.spool import Spool
from tests.support.rows import NOON, make_run

REFUSED = make_record([make_run(JobID="203_3", JobIDRaw="210")], "lab")


@pytest.fixture
def spool(tmp_path: Path, ledger: Ledger) -> Spool:
    return Spool(Queue(tmp_path, complain=lambda error: None), ledger)


def set_aside(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.waiting.add([QueueEntry(100)], NOON)
        ledger.waiting.postpone([item._replace(attempts=5, due_at=NOON + 1e6) for item in ledger.waiting.all()])
        ledger.rejected.add("lab", REFUSED, "no such user", NOON, hooked=True)


def test_job_ids_as_an_admin_types_them() -> None:
    """A number, or a task of an array."""
    assert [QueueEntry(4711), QueueEntry(203, array_task=3)] == repair.parse_job_ids(["4711", "203_3"])


@pytest.mark.parametrize("text", ["", "abc", "4711 170", "-", "0", "203_[1-5]", "12+1", "1;rm"])
def test_what_is_no_job_id(text: str) -> None:
    """Anything else is refused before it comes near the queue."""
    with pytest.raises(UsageError, match="is no JobID"):
        repair.parse_job_ids([text])


def test_list_shows_all_three_shelves(spool: Spool, ledger: Ledger) -> None:
    """What is queued, what waits and why, what was refused and with which words."""
    spool.queue.append([QueueEntry(1), QueueEntry(2)])
    set_aside(ledger)
    lines = list(repair.list_lines(spool))
    assert ["queued by the hook: 2", "waiting for their record: 1", "rejected by the dashboard: 1"] == [
        line for line in lines if not line.startswith(" ")
    ]
    assert "203_3" in lines[-1]
    assert lines[-1].endswith("no such user")


@pytest.mark.parametrize("named", [["203_3"], ["210"], []])
def test_retry_of_a_rejected_record(ledger: Ledger, named: list[str]) -> None:
    """By its JobID as shown, by its raw ID, or with all others: it waits for the next flush again."""
    set_aside(ledger)
    repair.retry(ledger, repair.parse_job_ids(named))
    assert 0 == ledger.rejected.count()
    asked = {item.entry.asked for item in ledger.waiting.all() if item.attempts == 0}
    assert asked & {"203_3", "210"}


def test_retry_of_a_waiting_job_makes_it_due(ledger: Ledger) -> None:
    """It is not put off any longer."""
    set_aside(ledger)
    repair.retry(ledger, [QueueEntry(100)])
    assert [0] == [item.attempts for item in ledger.waiting.all()]


def test_retry_of_everything(ledger: Ledger) -> None:
    """What waits is due, what was refused waits again, and what was dropped stays dropped."""
    dropped = make_record([make_run(JobID="9", JobIDRaw="9")], "lab")
    with ledger.transaction():
        ledger.rejected.add("lab", dropped, "no such user", NOON, hooked=True)
        ledger.rejected.drop(9, "9")
    set_aside(ledger)
    assert 2 == repair.retry(ledger, [])
    assert [(100, 0), (210, 0)] == [(item.entry.job_id, item.attempts) for item in ledger.waiting.all()]
    assert all(item.due_at > NOON for item in ledger.waiting.all())
    assert ([], [dropped.key]) == (list(ledger.rejected.newest()), list(ledger.rejected.digests("lab")))


def test_drop(spool: Spool, ledger: Ledger) -> None:
    """What was queued, waits or was refused goes off the books, and the refused record is never sent as it is."""
    set_aside(ledger)
    spool.queue.append([QueueEntry(7)])
    assert 3 == repair.drop(spool, repair.parse_job_ids(["7", "100", "203_3"]))
    assert ([], 0) == (list(ledger.waiting.all()), ledger.rejected.count())
    assert {REFUSED.key: REFUSED.digest} == ledger.rejected.digests("lab")


def test_a_dry_run_drops_nothing(spool: Spool, ledger: Ledger) -> None:
    """Not from the queue's file either, which no transaction brings back."""
    spool.queue.append([QueueEntry(7), QueueEntry(8)])
    with ledger.rehearsal():
        assert 1 == repair.drop(spool, repair.parse_job_ids(["7"]))
    assert [QueueEntry(7, 0), QueueEntry(8, 0)] == list(spool.queue.read(spool.queue.files()))


def test_a_job_that_is_not_on_the_books_is_named(spool: Spool, ledger: Ledger) -> None:
    """A slip of the keyboard changes nothing, not even for the jobs before it."""
    set_aside(ledger)
    with pytest.raises(ExporterError, match="job 99 neither waits nor was rejected"):
        repair.drop(spool, repair.parse_job_ids(["100", "99"]))
    with pytest.raises(ExporterError, match="job 99 neither waits nor was rejected"):
        repair.retry(ledger, repair.parse_job_ids(["99"]))
    assert [100] == [item.entry.job_id for item in ledger.waiting.all()]
