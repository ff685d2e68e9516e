"""The jobs that wait for their record, or for the dashboard: a table of the ledger."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, NamedTuple, Sequence

from agent.errors import LedgerDamaged
from agent.jobs.entry import LAST_JOB_ID, NO_TASK, QueueEntry
from agent.jobs.record import Record
from agent.jobs.verdict import LONGEST_WAIT_SECONDS
from agent.localtime import Range
from agent.spool.database import IS_ONE_OF, PAGE, Database, chunks

SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    job_id INTEGER NOT NULL, array_task INTEGER NOT NULL, submit INTEGER, ended INTEGER,
    queued_at REAL NOT NULL, attempts INTEGER NOT NULL, due_at REAL NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (job_id, array_task)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ends ON waiting (ended, due_at) WHERE ended IS NOT NULL;
"""

#: Nothing is put off for longer than that: what is, was so before the clock was set back.
_IS_DUE = "(due_at <= ? OR due_at > ?)"
#: How the reason of a job begins that the dashboard has refused without being proven right.
_REFUSED = "refused by the dashboard: "


class Waiting(NamedTuple):
    """A queued job that has not been delivered yet."""

    entry: QueueEntry
    queued_at: float
    attempts: int
    due_at: float
    reason: str

    @property
    def key(self) -> tuple[int, int]:
        """What identifies it in the ledger."""
        return self.entry.key


class WaitingJobs(Database):
    """The table ``waiting``."""

    def add_waiting(self, entries: Iterable[QueueEntry], now: float) -> int:
        """Takes over queue entries; a newer end of a job that waits already makes it due again.

        :returns: how many entries there were.
        """
        return self._execute_many(
            """INSERT INTO waiting VALUES (?, ?, ?, ?, ?, 0, ?, 'not sent yet')
               ON CONFLICT (job_id, array_task) DO UPDATE SET
               queued_at = CASE WHEN ifnull(excluded.ended, 0) > ifnull(ended, 0) THEN excluded.queued_at
                           ELSE queued_at END,
               submit = max(ifnull(excluded.submit, submit), ifnull(submit, excluded.submit)),
               ended = max(ifnull(excluded.ended, ended), ifnull(ended, excluded.ended)),
               attempts = 0, due_at = excluded.due_at""",
            ((*entry.key, entry.submit, entry.end, now, now) for entry in entries),
        )

    def due(self, now: float, *, after: tuple[int, int], limit: int) -> list[Waiting]:
        """The next jobs whose time has come, in the order of their IDs, behind the key ``after``."""
        rows = self._execute(
            f"SELECT * FROM waiting WHERE {_IS_DUE} AND (job_id, array_task) > (?, ?)"  # noqa: S608
            " ORDER BY job_id, array_task LIMIT ?",
            (now, now + LONGEST_WAIT_SECONDS, *after, limit),
        )
        return [_make_waiting(row) for row in rows]

    def due_among(self, job_ids: Sequence[int], now: float) -> list[Waiting]:
        """Those jobs under some raw IDs whose time has come, and of which the hook told when they ended."""
        found: list[Waiting] = []
        for chunk in chunks(job_ids):
            rows = self._execute(
                f"SELECT * FROM waiting WHERE {IS_ONE_OF} AND ended IS NOT NULL AND {_IS_DUE}",  # noqa: S608
                (*chunk, now, now + LONGEST_WAIT_SECONDS),
            )
            found += map(_make_waiting, rows)
        return found

    def count_due(self, now: float, *, ended: Range | None = None) -> int:
        """How many jobs' time has come; on request those alone that ended in a range, as the hook has told."""
        bounds = "ended BETWEEN ? AND ?" if ended else "1"
        rows = self._execute(
            f"SELECT count(*) FROM waiting WHERE {bounds} AND {_IS_DUE}",  # noqa: S608
            (*(ended or ()), now, now + LONGEST_WAIT_SECONDS),
        )
        return int(rows[0][0])

    def due_ends(self, now: float, *, after: int) -> Range | None:
        """When the first and the last of the jobs ended whose time has come, behind an instant and before now."""
        chosen = f"SELECT ended FROM waiting WHERE ended > ? AND ended <= ? AND {_IS_DUE} ORDER BY ended"  # noqa: S608
        values = (after, now, now, now + LONGEST_WAIT_SECONDS)
        ((first, last),) = self._execute(
            f"SELECT ({chosen} LIMIT 1), ({chosen} DESC LIMIT 1)",
            (*values, *values),
        )
        return None if first is None else Range(first, last)

    def next_due(self, now: float) -> float | None:
        """When the next job is due, None where none waits."""
        due: float | None = self._execute(
            "SELECT min(CASE WHEN due_at > ? THEN ? ELSE due_at END) FROM waiting", (now + LONGEST_WAIT_SECONDS, now)
        )[0][0]
        return due

    def waiting(self, key: tuple[int, int]) -> Waiting | None:
        """One job that waits, by its key; None where it does not."""
        rows = self._execute("SELECT * FROM waiting WHERE job_id = ? AND array_task = ?", key)
        return _make_waiting(rows[0]) if rows else None

    def all_waiting(self) -> Iterator[Waiting]:
        """All that waits, in the order of their IDs. Between pages the file is free, however slowly they are read."""
        last = (0, 0)
        while True:
            rows = self._execute(
                "SELECT * FROM waiting WHERE (job_id, array_task) > (?, ?) ORDER BY job_id, array_task LIMIT ?",
                (*last, PAGE),
            )
            yield from map(_make_waiting, rows)
            if len(rows) < PAGE:
                return
            last = rows[-1][:2]

    def count_waiting(self) -> tuple[int, float | None]:
        """How many wait, and when the one that ended first did, as far as its queue entry told."""
        ((count, oldest),) = self._execute("SELECT count(*), min(ifnull(ended, queued_at)) FROM waiting")
        return count, oldest

    def waiting_reasons(self) -> dict[str, int]:
        """How many wait for which reason."""
        return dict(self._execute("SELECT reason, count(*) FROM waiting GROUP BY reason ORDER BY 2 DESC"))

    def is_waiting(self, job_ids: Sequence[int]) -> set[int]:
        """Those of some raw IDs that wait."""
        found: set[int] = set()
        for chunk in chunks(job_ids):
            found.update(row[0] for row in self._execute(f"SELECT job_id FROM waiting WHERE {IS_ONE_OF}", chunk))  # noqa: S608
        return found

    def retry_all(self, now: float) -> int:
        """Makes all that waits due, and lets all that was refused and not dropped wait again.

        :returns: how many wait then.
        """
        self._execute(
            "INSERT OR IGNORE INTO waiting SELECT DISTINCT job_id, ?, NULL, NULL, ?, 0, ?, 'not sent yet'"
            " FROM rejected WHERE NOT dropped",
            (NO_TASK, now, now),
        )
        self._execute("DELETE FROM rejected WHERE NOT dropped")
        self._execute("UPDATE waiting SET attempts = 0, due_at = ?", (now,))
        waiting, _ = self.count_waiting()
        return waiting

    def postpone(self, postponed: Iterable[Waiting]) -> None:
        """Writes down when the jobs are to be tried again, and why."""
        self._execute_many(
            "UPDATE waiting SET attempts = ?, due_at = ?, reason = ? WHERE job_id = ? AND array_task = ?",
            ((item.attempts, item.due_at, item.reason, *item.key) for item in postponed),
        )

    def add_refused(self, key: tuple[int, int], record: Record, words: str, now: float, *, due_at: float) -> None:
        """Puts off a job that the dashboard has refused, or puts one on the books that did not wait yet."""
        self._execute(
            """INSERT INTO waiting VALUES (?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT (job_id, array_task) DO UPDATE SET
               attempts = attempts + 1, due_at = excluded.due_at, reason = excluded.reason""",
            (*key, record.submit, record.end, now, due_at, f"{_REFUSED}{words}"),
        )

    def hasten_refused(self, now: float) -> None:
        """Makes the refused jobs due: beside others that were taken it shows whether they are at fault."""
        self._execute(f"UPDATE waiting SET due_at = ? WHERE reason LIKE '{_REFUSED}%' AND due_at > ?", (now, now))  # noqa: S608

    def forget_waiting(self, keys: Iterable[tuple[int, int]]) -> None:
        """Takes jobs off the books."""
        self._execute_many("DELETE FROM waiting WHERE job_id = ? AND array_task = ?", keys)


def _make_waiting(row: Sequence[Any]) -> Waiting:
    job_id, task, submit, ended, queued_at, attempts, due_at, reason = row
    numbers = (job_id, task, submit or 0, ended or 0, queued_at, attempts, due_at)
    # A bad disk can change a value and nothing else; sacct would refuse every job for this one.
    if not all(isinstance(number, (int, float)) for number in numbers) or not 0 < job_id <= LAST_JOB_ID:
        raise LedgerDamaged(f"the ledger holds a job that can't be: {row!r}")
    entry = QueueEntry(job_id, submit, ended, None if task == NO_TASK else task)
    return Waiting(entry, queued_at, attempts, due_at, reason)
