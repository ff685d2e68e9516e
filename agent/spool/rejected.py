"""What the dashboard has permanently rejected: a table of the ledger."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Iterator, NamedTuple

from agent.spool.database import Database

if TYPE_CHECKING:
    from agent.jobs.record import Record


class Rejected(NamedTuple):
    """A record that the dashboard rejected, with the error message."""

    job_id: int
    shown_id: str
    submit: int
    end: int
    reason: str
    rejected_at: float
    record: str


class RejectedRecords:
    """The table ``rejected``: records set aside. A dropped one is kept so that it is never sent again unchanged."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, cluster: str) -> dict[tuple[int, int], bytes]:
        """The digests of the rejected records, including dropped ones, by the key of the record."""
        rows = self._database.execute("SELECT job_id, submit, digest FROM rejected WHERE cluster = ?", (cluster,))
        return {(job_id, submit): digest for job_id, submit, digest in rows}

    def add(self, cluster: str, record: Record, reason: str, now: float, *, hooked: bool) -> None:
        """Sets a record aside with the error message."""
        self._database.execute(
            "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (cluster, *record.key, record.end, record.job_id, record.digest, record.text, reason, now, hooked),
        )

    def newest(self, limit: int = sys.maxsize) -> Iterator[Rejected]:
        """The records set aside and not dropped, newest first."""
        rows = self._database.pages(
            "SELECT job_id, shown_id, submit, ended, reason, rejected_at, record, rowid FROM rejected"
            " WHERE NOT dropped AND (rejected_at, rowid) < (?, ?) ORDER BY rejected_at DESC, rowid DESC LIMIT ?",
            start=(float("inf"), 0),
            key=lambda row: (row[5], row[7]),
            limit=limit,
        )
        return (Rejected(*row) for *row, _ in rows)

    def count(self) -> int:
        """How many records are set aside and not dropped."""
        return int(self._database.value("SELECT count(*) FROM rejected WHERE NOT dropped"))

    def has(self, job_id: int, shown_id: str) -> bool:
        """Whether a record of this raw ID, or of this displayed JobID, is set aside and not dropped."""
        return bool(
            self._database.execute(
                "SELECT 1 FROM rejected WHERE (job_id = ? OR shown_id = ?) AND NOT dropped", (job_id, shown_id)
            )
        )

    def drop(self, job_id: int, shown_id: str) -> None:
        """Marks the rejected records of a job as never to be sent again unchanged."""
        self._database.execute("UPDATE rejected SET dropped = 1 WHERE job_id = ? OR shown_id = ?", (job_id, shown_id))

    def forget(self, job_id: int, shown_id: str) -> None:
        """Allows the rejected records of a job to be sent again."""
        self._database.execute("DELETE FROM rejected WHERE job_id = ? OR shown_id = ?", (job_id, shown_id))

    def prune(self, before: float) -> None:
        """Deletes the dropped records of jobs that ended before then (epoch seconds)."""
        self._database.execute("DELETE FROM rejected WHERE dropped AND ended < ?", (before,))
