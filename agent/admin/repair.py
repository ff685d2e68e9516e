"""Looks at and repairs what is queued, what waits for its record, and what the dashboard refused."""

from __future__ import annotations

import time
from typing import Iterable, Iterator, Sequence

from agent.errors import ExporterError, UnreadableLine, UsageError
from agent.jobs.entry import QueueEntry, parse_line
from agent.localtime import local_text
from agent.spool.delivered import Rejected
from agent.spool.ledger import Ledger
from agent.spool.spool import Spool
from agent.spool.waiting import Waiting


def parse_job_ids(texts: Iterable[str]) -> list[QueueEntry]:
    """Reads JobIDs as an admin types them: ``4711`` or ``203_3``.

    :raises UsageError: for anything else.
    """
    entries = []
    for text in texts:
        try:
            entry = parse_line(text)
        except UnreadableLine:
            entry = QueueEntry(0)
        if not entry.job_id or entry != QueueEntry(entry.job_id, array_task=entry.array_task):
            raise UsageError(f"{text!r} is no JobID", hint="give numbers as 4711, or as 203_3 for a task of an array")
        entries.append(entry)
    return entries


def list_lines(spool: Spool) -> Iterator[str]:
    """What ``queue list`` prints."""
    queue, ledger = spool
    queued = sum(1 for _ in queue.read(queue.files()))
    yield f"queued by the hook: {queued}"
    waiting, _ = ledger.waiting.count()
    yield f"waiting for their record: {waiting}"
    for item in ledger.waiting.all():
        yield _waiting_line(item)
    yield f"rejected by the dashboard: {ledger.rejected.count()}"
    for record in ledger.rejected.newest():
        yield _rejected_line(record)


def retry(ledger: Ledger, entries: Sequence[QueueEntry]) -> int:
    """Lets waiting and rejected jobs be tried by the next flush, all of them where none is named.

    :returns: how many.
    :raises ExporterError: where one that is named neither waits nor was rejected.
    """
    now = time.time()
    with ledger.transaction():
        if not entries:
            return ledger.waiting.retry_all(now)
        for entry in entries:
            _ensure_known(ledger, entry)
        for entry in entries:
            ledger.rejected.forget(entry.job_id, entry.asked)
        ledger.waiting.add(entries, now)
    return len(entries)


def drop(spool: Spool, entries: Sequence[QueueEntry]) -> int:
    """Takes jobs off the books without sending them.

    :returns: how many.
    :raises ExporterError: where one is not on the books.
    """
    spool.take_over(time.time())
    ledger = spool.ledger
    with ledger.transaction():
        for entry in entries:
            _ensure_known(ledger, entry)
            ledger.waiting.forget([entry.key])
            ledger.rejected.drop(entry.job_id, entry.asked)
    return len(entries)


def _ensure_known(ledger: Ledger, entry: QueueEntry) -> None:
    if ledger.waiting.get(entry.key) or ledger.rejected.has(entry.job_id, entry.asked):
        return
    raise ExporterError(
        f"job {entry.asked} neither waits nor was rejected", hint="see `queue list`; `queue add` sends any job again"
    )


def _waiting_line(item: Waiting) -> str:
    since, due = local_text(int(item.queued_at)), local_text(int(item.due_at))
    return f"  {item.entry.asked}  since {since}  tries {item.attempts}  next {due}  {item.explanation}"


def _rejected_line(record: Rejected) -> str:
    return f"  {record.shown_id}  JobID {record.job_id}  on {local_text(int(record.rejected_at))}  {record.reason}"
