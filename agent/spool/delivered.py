"""What the dashboard has taken: a table of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, NamedTuple, Sequence

from agent.localtime import Range
from agent.spool.database import IS_ONE_OF, ONE_OF, Database, chunks

if TYPE_CHECKING:
    from agent.jobs.record import Record


class Known(NamedTuple):
    """What the ledger knows of a job that is about to be sent."""

    digest: bytes  # of what was delivered of the same run; empty where nothing was
    hooked: bool
    superseded: bool  # by a newer job or run of the same JobID
    delivered_at: float = 0.0  # first, in epoch seconds
    has_row: bool = False  # whether its row would be recognized


class DeliveredRow(NamedTuple):
    """A job of one row that was delivered."""

    end: int
    hooked: int


#: SQLite, which has no statistics, would rather read all rows of the cluster than look so many names up in the index.
_IS_SHOWN_AS_ONE_OF = f"shown_id {ONE_OF}"
NOT_KNOWN = Known(b"", hooked=False, superseded=False)


class DeliveredJobs:
    """The table ``delivered``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, cluster: str, records: Sequence[Record]) -> dict[tuple[int, int], Known]:
        """What of some jobs was delivered before, by what identifies the records; nothing of most."""
        from agent.jobs.record import place  # noqa: PLC0415  # its digests are slow to load, and status needs none

        rows = [
            *self._select("delivered", cluster, IS_ONE_OF, [record.raw_id for record in records]),
            # A slurmctld that was killed may run a task again under another raw ID.
            *self._select(
                "delivered INDEXED BY shown_ids",
                cluster,
                _IS_SHOWN_AS_ONE_OF,
                [shown for shown in map(_shown_id, records) if shown],
            ),
        ]
        delivered = {(row[0], row[1]): row for row in rows}
        runs: dict[str, list[tuple[int, int]]] = {}  # Submit and End of all that was delivered of a JobID
        for raw_id, submit, ended, shown_id, *_ in rows:
            runs.setdefault(shown_id or str(raw_id), []).append((submit, ended))
        known = {}
        for record in records:
            row = delivered.get(record.key)
            # An edit may have moved the End of this very run.
            mine = (record.submit, max(record.end, row[2]) if row else record.end)
            later = [run for run in runs.get(record.job_id, ()) if run > mine]
            kept_at = place(record.job_id, record.submit) if later else None
            superseded = any(place(record.job_id, submit) == kept_at for submit, _ in later)
            if row or superseded:
                known[record.key] = _make_known(row, superseded=superseded)
        return known

    def _select(self, table: str, cluster: str, chosen: str, ids: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        for chunk in chunks(ids):
            yield from self._database.execute(
                "SELECT job_id, submit, ended, shown_id, digest, hooked, delivered_at, row IS NOT NULL"  # noqa: S608
                f" FROM {table} WHERE cluster = ? AND {chosen}",
                (cluster, *chunk),
            )

    def add(self, cluster: str, records: Sequence[Record], command: str, now: float, *, hooked: bool) -> None:
        """Writes down what the dashboard has taken. The first delivery's time stands.

        Not in a dry run: that of a year would hold it all in memory.
        """
        if self._database.rehearses:
            return
        self._database.execute_many(
            """INSERT INTO delivered VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (cluster, job_id, submit)
               DO UPDATE SET digest = excluded.digest, ended = excluded.ended, shown_id = excluded.shown_id,
               row = excluded.row, hooked = max(hooked, excluded.hooked)""",
            (
                (
                    cluster,
                    *record.key,
                    record.end,
                    record.digest,
                    now,
                    command,
                    hooked,
                    _shown_id(record),
                    record.row_digest,
                )
                for record in records
            ),
        )
        if self._database.execute("SELECT 1 FROM rejected LIMIT 1"):
            self._database.execute_many(
                "DELETE FROM rejected WHERE cluster = ? AND job_id = ? AND submit = ?",
                ((cluster, *record.key) for record in records),
            )

    def rows(self, cluster: str, ended: Range) -> dict[bytes, DeliveredRow]:
        """The jobs of one row that were delivered and ended in a range, by a digest of that row."""
        query = (
            "SELECT row, ended, hooked FROM delivered WHERE cluster = ? AND row IS NOT NULL AND ended BETWEEN ? AND ?"
        )
        return {row: DeliveredRow(end, hooked) for row, end, hooked in self._database.execute(query, (cluster, *ended))}

    def forget_rows(self) -> None:
        """Lets no row be recognized: from now on the same rows make other records."""
        self._database.execute("UPDATE delivered SET row = NULL WHERE row IS NOT NULL")

    def first_end(self, cluster: str, since: float) -> int | None:
        """When the first of those jobs ended that were delivered for the first time since an instant."""
        query = "SELECT min(ended) FROM delivered WHERE cluster = ? AND delivered_at >= ?"
        end: int | None = self._database.execute(query, (cluster, since))[0][0]
        return end

    def latencies(self, since: float, limit: int) -> list[float]:
        """Seconds from the End to the dashboard of the jobs that flush has delivered since then, sorted.

        :param limit: the latest so many suffice.
        """
        rows = self._database.execute(
            "SELECT delivered_at - ended FROM (SELECT * FROM delivered WHERE command = 'flush' AND delivered_at >= ?"
            " ORDER BY delivered_at DESC LIMIT ?) ORDER BY 1",
            (since, limit),
        )
        return [row[0] for row in rows]

    def prune(self, before: float) -> None:
        """Forgets the jobs that ended before an instant."""
        self._database.execute("DELETE FROM delivered WHERE ended < ?", (before,))


def _shown_id(record: Record) -> str | None:
    return None if record.job_id == str(record.raw_id) else record.job_id


def _make_known(row: Sequence[Any] | None, *, superseded: bool) -> Known:
    if not row:
        return NOT_KNOWN._replace(superseded=superseded)
    *_, digest, hooked, delivered_at, has_row = row
    return Known(digest, bool(hooked), superseded, delivered_at, bool(has_row))
