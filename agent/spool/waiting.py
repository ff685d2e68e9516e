"""The jobs that wait for their accounting record or for the dashboard: a table of the ledger."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Iterable, Iterator, NamedTuple, Sequence

from agent.errors import LedgerDamaged
from agent.jobs.queue_entry import LAST_JOB_ID, NO_TASK, QueueEntry
from agent.localtime import Range
from agent.spool.database import Database

if TYPE_CHECKING:
    from agent.jobs.record import Record

#: The delays between attempts grow from 1, 2, 4 ... seconds to an hour.
LONGEST_WAIT_SECONDS = 3600.0
#: A later due time means that the clock was set back, so the job is due now.
_IS_DUE = "(due_at <= ? OR due_at > ?)"
#: What a job waits for: its record in the accounting; the rest of a half-written record, which may take a day and is
#: not an error; or, after the dashboard refused it, proof that the record is at fault.
NO_RECORD = "no_record"
HALF_WRITTEN = "half_written"
REFUSED = "refused"


class Waiting(NamedTuple):
    """A queued job that has not been delivered yet."""

    entry: QueueEntry
    queued_at: float
    attempts: int
    due_at: float
    reason: str  # what is missing in the accounting, or the dashboard's error message
    state: str = NO_RECORD

    @property
    def key(self) -> tuple[int, int]:
        """Identifies it in the ledger."""
        return self.entry.key

    def postponed(self, reason: str, now: float, *, is_half: bool) -> Waiting:
        """The job after an unsuccessful attempt, due later.

        :param is_half: whether the rest of a half-written record is missing.
        """
        attempts = self.attempts + 1
        state = HALF_WRITTEN if is_half else NO_RECORD
        return Waiting(self.entry, self.queued_at, attempts, now + record_delay(attempts), reason, state)


class WaitingJobs:
    """The table ``waiting``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, entries: Iterable[QueueEntry], now: float) -> int:
        """Adds queue entries; a newer End of a job that is already waiting makes it due again.

        :returns: how many entries there were.
        """
        return self._database.execute_many(
            """INSERT INTO waiting VALUES (?, ?, ?, ?, ?, 0, ?, 'not sent yet', 'no_record')
               ON CONFLICT (job_id, array_task) DO UPDATE SET
               queued_at = CASE WHEN ifnull(excluded.ended, 0) > ifnull(ended, 0) THEN excluded.queued_at
                           ELSE queued_at END,
               submit = max(ifnull(excluded.submit, submit), ifnull(submit, excluded.submit)),
               ended = max(ifnull(excluded.ended, ended), ifnull(ended, excluded.ended)),
               attempts = 0, due_at = excluded.due_at""",
            ((*entry.key, entry.submit, entry.end, now, now) for entry in entries),
        )

    def due(self, now: float, *, after: tuple[int, int], limit: int) -> list[Waiting]:
        """The next due jobs, in the order of their IDs, after the key ``after``."""
        rows = self._database.execute(
            f"SELECT * FROM waiting WHERE {_IS_DUE} AND (job_id, array_task) > (?, ?)"  # noqa: S608
            " ORDER BY job_id, array_task LIMIT ?",
            (now, now + LONGEST_WAIT_SECONDS, *after, limit),
        )
        return [_make_waiting(row) for row in rows]

    def due_among(self, job_ids: Sequence[int], now: float) -> list[Waiting]:
        """The due jobs with these raw IDs whose End the hook reported."""
        rows = self._database.select_among(
            f"SELECT * FROM waiting WHERE ended IS NOT NULL AND {_IS_DUE} AND job_id",  # noqa: S608
            job_ids,
            (now, now + LONGEST_WAIT_SECONDS),
        )
        return [_make_waiting(row) for row in rows]

    def count_due(self, now: float, *, ended: Range | None = None) -> int:
        """How many jobs are due; on request only those that ended in a range, according to the hook."""
        bounds = "ended BETWEEN ? AND ?" if ended else "1"
        query = f"SELECT count(*) FROM waiting WHERE {bounds} AND {_IS_DUE}"  # noqa: S608
        return int(self._database.value(query, (*(ended or ()), now, now + LONGEST_WAIT_SECONDS)))

    def due_ends(self, now: float, *, after: int) -> Range | None:
        """The first and the last End of the due jobs, after ``after`` and up to now."""
        chosen = f"SELECT ended FROM waiting WHERE ended > ? AND ended <= ? AND {_IS_DUE} ORDER BY ended"  # noqa: S608
        values = (after, now, now, now + LONGEST_WAIT_SECONDS)
        ((first, last),) = self._database.execute(
            f"SELECT ({chosen} LIMIT 1), ({chosen} DESC LIMIT 1)",
            (*values, *values),
        )
        return None if first is None else Range(first, last)

    def next_due(self, now: float) -> float | None:
        """When the next job is due; None if none is waiting."""
        query = "SELECT min(CASE WHEN due_at > ? THEN ? ELSE due_at END) FROM waiting"
        due: float | None = self._database.value(query, (now + LONGEST_WAIT_SECONDS, now))
        return due

    def get(self, key: tuple[int, int]) -> Waiting | None:
        """One waiting job, by its key; None if it is not waiting."""
        rows = self._database.execute("SELECT * FROM waiting WHERE job_id = ? AND array_task = ?", key)
        return _make_waiting(rows[0]) if rows else None

    def newest(self, limit: int = sys.maxsize) -> Iterator[Waiting]:
        """The waiting jobs, newest first."""
        rows = self._database.pages(
            "SELECT * FROM waiting WHERE (queued_at, job_id, array_task) < (?, ?, ?)"
            " ORDER BY queued_at DESC, job_id DESC, array_task DESC LIMIT ?",
            start=(float("inf"), 0, 0),
            key=lambda row: (row[4], *row[:2]),
            limit=limit,
        )
        return map(_make_waiting, rows)

    def count(self) -> tuple[int, float | None]:
        """How many jobs are waiting, and the earliest End among them, or when that job was queued.

        Jobs with a half-written record are excluded from the latter: they wait for up to a day in any case.
        """
        ended = f"CASE state WHEN '{HALF_WRITTEN}' THEN NULL ELSE ifnull(ended, queued_at) END"
        ((count, oldest),) = self._database.execute(f"SELECT count(*), min({ended}) FROM waiting")  # noqa: S608
        return count, oldest

    def count_half_written(self) -> int:
        """How many jobs wait for the rest of their record."""
        return int(self._database.value("SELECT count(*) FROM waiting WHERE state = ?", (HALF_WRITTEN,)))

    def reasons(self) -> dict[str, int]:
        """How many jobs wait for each reason. Refused jobs are one reason, whatever the error message."""
        reason = f"CASE state WHEN '{REFUSED}' THEN 'refused by the dashboard' ELSE reason END"
        return dict(self._database.execute(f"SELECT {reason}, count(*) FROM waiting GROUP BY 1 ORDER BY 2 DESC"))  # noqa: S608

    def among(self, job_ids: Sequence[int]) -> set[int]:
        """Those of these raw IDs that are waiting."""
        return {job_id for (job_id,) in self._database.select_among("SELECT job_id FROM waiting WHERE job_id", job_ids)}

    def retry_all(self, now: float) -> int:
        """Makes all waiting jobs due, and queues all rejected jobs again that were not dropped.

        :returns: how many are waiting then.
        """
        self._database.execute(
            "INSERT OR IGNORE INTO waiting SELECT DISTINCT job_id, ?, NULL, NULL, ?, 0, ?, 'not sent yet', 'no_record'"
            " FROM rejected WHERE NOT dropped",
            (NO_TASK, now, now),
        )
        self._database.execute("DELETE FROM rejected WHERE NOT dropped")
        self._database.execute("UPDATE waiting SET attempts = 0, due_at = ?", (now,))
        waiting, _ = self.count()
        return waiting

    def postpone(self, postponed: Iterable[Waiting]) -> None:
        """Stores when the jobs are to be asked for again, and what their records lack."""
        self._database.execute_many(
            "UPDATE waiting SET attempts = ?, due_at = ?, reason = ?, state = ? WHERE job_id = ? AND array_task = ?",
            ((item.attempts, item.due_at, item.reason, item.state, *item.key) for item in postponed),
        )

    def add_refused(self, key: tuple[int, int], record: Record, words: str, now: float, *, due_at: float) -> None:
        """Backs off a job that the dashboard refused, and queues it if it is not waiting yet."""
        self._database.execute(
            """INSERT INTO waiting VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (job_id, array_task) DO UPDATE SET
               attempts = attempts + 1, due_at = excluded.due_at, reason = excluded.reason, state = excluded.state""",
            (*key, record.submit, record.end, now, due_at, words, REFUSED),
        )

    def retry_refused(self, now: float) -> None:
        """Makes the refused jobs due: now that others were accepted, a retry shows whether they are at fault."""
        self._database.execute("UPDATE waiting SET due_at = ? WHERE state = ? AND due_at > ?", (now, REFUSED, now))

    def forget(self, keys: Iterable[tuple[int, int]]) -> None:
        """Removes jobs from the queue."""
        self._database.execute_many("DELETE FROM waiting WHERE job_id = ? AND array_task = ?", keys)


def record_delay(attempts: int) -> float:
    """Seconds until the next attempt, after at least one unsuccessful attempt."""
    return float(min(2.0 ** min(attempts - 1, 30), LONGEST_WAIT_SECONDS))


def attempts_within(seconds: float) -> int:
    """The number of attempts that fit into this many seconds."""
    attempts, waited = 1, 0.0
    while waited < seconds:
        waited += record_delay(attempts)
        attempts += 1
    return attempts


def _make_waiting(row: Sequence[Any]) -> Waiting:
    job_id, task, submit, ended, queued_at, attempts, due_at, reason, state = row
    numbers = (job_id, task, submit or 0, ended or 0, queued_at, attempts, due_at)
    # A bad disk can corrupt a single value, and sacct refuses the whole call for one impossible ID.
    if not all(isinstance(number, (int, float)) for number in numbers) or not 0 < job_id <= LAST_JOB_ID:
        raise LedgerDamaged(f"the ledger contains an impossible job: {row!r}")
    entry = QueueEntry(job_id, submit, ended, None if task == NO_TASK else task)
    return Waiting(entry, queued_at, attempts, due_at, reason, state)
