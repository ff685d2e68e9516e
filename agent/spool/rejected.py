"""What the dashboard has refused for good: a table of the ledger."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Iterator, NamedTuple

from agent.spool.database import PAGE, Database

if TYPE_CHECKING:
    from agent.jobs.record import Record


class Rejected(NamedTuple):
    """A record that the dashboard refused, with its words."""

    job_id: int
    shown_id: str
    submit: int
    end: int
    reason: str
    rejected_at: float
    record: str


class RejectedRecords:
    """The table ``rejected``: records set aside. A dropped one is kept, and never sent again as it is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, cluster: str) -> dict[tuple[int, int], bytes]:
        """The digests of the records that the dashboard refused, dropped ones included, by what identifies them."""
        rows = self._database.execute("SELECT job_id, submit, digest FROM rejected WHERE cluster = ?", (cluster,))
        return {(job_id, submit): digest for job_id, submit, digest in rows}

    def add(self, cluster: str, record: Record, reason: str, now: float, *, hooked: bool) -> None:
        """Sets a record aside with the dashboard's reason."""
        self._database.execute(
            "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (cluster, *record.key, record.end, record.job_id, record.digest, record.text, reason, now, hooked),
        )

    def newest(self, limit: int = sys.maxsize) -> Iterator[Rejected]:
        """The records set aside and not dropped, newest first, read page by page."""
        last = (float("inf"), 0)
        while limit:
            rows = self._database.execute(
                "SELECT job_id, shown_id, submit, ended, reason, rejected_at, record, rowid FROM rejected"
                " WHERE NOT dropped AND (rejected_at, rowid) < (?, ?) ORDER BY rejected_at DESC, rowid DESC LIMIT ?",
                (*last, min(limit, PAGE)),
            )
            if not rows:
                return
            for *row, rowid in rows:
                record = Rejected(*row)
                last = (record.rejected_at, rowid)
                yield record
            limit -= len(rows)

    def count(self) -> int:
        """How many records are set aside and not dropped."""
        return int(self._database.execute("SELECT count(*) FROM rejected WHERE NOT dropped")[0][0])

    def has(self, job_id: int, shown_id: str) -> bool:
        """Whether a record of this raw ID, or of this JobID as it is shown, is set aside and not dropped."""
        return bool(
            self._database.execute(
                "SELECT 1 FROM rejected WHERE (job_id = ? OR shown_id = ?) AND NOT dropped", (job_id, shown_id)
            )
        )

    def drop(self, job_id: int, shown_id: str) -> None:
        """Never sends the rejected records of a job again, as they are."""
        self._database.execute("UPDATE rejected SET dropped = 1 WHERE job_id = ? OR shown_id = ?", (job_id, shown_id))

    def forget(self, job_id: int, shown_id: str) -> None:
        """Lets the rejected records of a job be sent again."""
        self._database.execute("DELETE FROM rejected WHERE job_id = ? OR shown_id = ?", (job_id, shown_id))

    def prune(self, before: float) -> None:
        """Forgets the dropped records of jobs that ended before an instant."""
        self._database.execute("DELETE FROM rejected WHERE dropped AND ended < ?", (before,))
