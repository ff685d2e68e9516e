"""Inspects and repairs queued, waiting and rejected jobs."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from typing import Iterable, Iterator, Sequence

from agent.errors import STOPPED, ExporterError, RecordsRejected, UnreadableLine, UsageError
from agent.jobs.queue_entry import QueueEntry, parse_line
from agent.localtime import local_text
from agent.spool.ledger import Ledger
from agent.spool.rejected import Rejected
from agent.spool.run_history import RunReport
from agent.spool.spool import Spool
from agent.spool.waiting import REFUSED, Waiting
from agent.wording import count

#: How many jobs of a kind are listed by default.
SHOWN = 20
#: How the message of a failure begins if Slurm is the cause.
_SLURMS = re.compile(r"\S*(sacct|scontrol|squeue)\b|no room for what|none of the \d+ rows|the cluster's name")


def parse_job_ids(texts: Iterable[str]) -> list[QueueEntry]:
    """Parses JobIDs as an admin types them: ``4711`` or ``203_3``.

    :raises UsageError: for anything else.
    """
    entries = []
    for text in texts:
        try:
            entry = parse_line(text)
        except UnreadableLine:
            entry = QueueEntry(0)
        if not entry.job_id or entry != QueueEntry(entry.job_id, array_task=entry.array_task):
            raise UsageError(
                f"{text!r} is not a JobID", hint="use a number such as 4711, or 203_3 for a task of an array"
            )
        entries.append(entry)
    return entries


def list_lines(spool: Spool, *, everything: bool, now: float) -> Iterator[str]:
    """The lines of ``queue list``: the newest jobs of each kind, or all.

    :param now: epoch seconds.
    """
    queue, ledger = spool
    limit = sys.maxsize if everything else SHOWN
    newest: deque[QueueEntry] = deque(maxlen=None if everything else SHOWN)
    queued = 0
    for queued, entry in enumerate(queue.read(queue.files()), start=1):  # noqa: B007  # counted, too
        newest.append(entry)
    yield f"queued for the next flush: {queued:,}"
    yield from map(_queued_line, reversed(newest))
    yield from _more(queued, limit)
    waiting, _ = ledger.waiting.count()
    flush = ledger.history.last_run("flush")
    yield f"waiting: {waiting:,}"
    for item in ledger.waiting.newest(limit):
        yield f"  {item.entry.asked:<12} {_waits_for(item, flush, now)}"
    yield from _more(waiting, limit)
    rejected = ledger.rejected.count()
    yield f"rejected by the dashboard: {rejected:,}"
    yield from map(_rejected_line, ledger.rejected.newest(limit))
    yield from _more(rejected, limit)


def _more(total: int, limit: int) -> Iterator[str]:
    if total > limit:
        yield f"  and {total - limit:,} more; `queue list --all` shows them"


def _queued_line(entry: QueueEntry) -> str:
    return f"  {entry.asked:<12} {f'ended {local_text(entry.end)}' if entry.end else ''}".rstrip()


def _waits_for(item: Waiting, flush: RunReport | None, now: float) -> str:
    """What a job is waiting for: its record, Slurm, the dashboard, or the next flush."""
    since = f"since {local_text(int(item.queued_at))}"
    next_try = f"tried {count(item.attempts, 'time')}, next {local_text(int(item.due_at))}"
    if item.state == REFUSED:
        return f"for the dashboard {since}: refused: {item.reason}; {next_try}"
    if item.due_at > now and item.attempts:
        return f"for its record {since}: {item.reason}; {next_try}"
    if flush and flush.exit_code not in {0, STOPPED, RecordsRejected.exit_code}:
        whom = "Slurm" if _SLURMS.match(flush.message) else "the dashboard"
        return f"for {whom} {since}: the last flush failed: {flush.message}"
    return f"for the next flush {since}"


def retry(ledger: Ledger, entries: Sequence[QueueEntry]) -> int:
    """Makes waiting and rejected jobs due for the next flush; all of them if none is named.

    :returns: how many.
    :raises ExporterError: if a named job is neither waiting nor rejected.
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
    """Discards waiting jobs and rejected records without sending them.

    :returns: how many.
    :raises ExporterError: if a job is neither waiting nor rejected.
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
        f"job {entry.asked} is neither waiting nor rejected", hint="see `queue list`; `queue add` queues any job again"
    )


def _rejected_line(record: Rejected) -> str:
    return f"  {record.shown_id}  JobID {record.job_id}  on {local_text(int(record.rejected_at))}  {record.reason}"
