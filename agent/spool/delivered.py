"""What the dashboard has accepted: a table of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, NamedTuple, Sequence

from agent.localtime import Range
from agent.spool.database import Database

if TYPE_CHECKING:
    from agent.jobs.record import Record


class Known(NamedTuple):
    """What the ledger knows about a job to be sent."""

    digest: bytes  # of the delivered record of the same run; empty if there is none
    hooked: bool
    superseded: bool  # by a newer job or run of the same JobID
    delivered_at: float = 0.0  # first, in epoch seconds
    has_row: bool = False  # whether the digest of its row is stored


#: Usually a slice has fewer rows. The others of a very busy day are looked up one by one, which takes less memory.
MOST_ROWS = 50_000
NOT_KNOWN = Known(b"", hooked=False, superseded=False)


class DeliveredJobs:
    """The table ``delivered``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._contested: dict[str, list[bytes]] = {}  # by cluster, until something is added

    def known(self, cluster: str, records: Sequence[Record]) -> dict[tuple[int, int], Known]:
        """What was delivered of these jobs before, by the key of the record. New jobs are left out."""
        rows = list(self._select("delivered", cluster, "job_id", [record.key[0] for record in records]))
        # After slurmctld was killed, it may run a task again under another raw ID. Without statistics, SQLite prefers
        # reading all rows of a cluster to looking up this many names in the index.
        shown_ids = [shown for shown in map(_shown_id, records) if shown]
        rows += self._select("delivered INDEXED BY shown_ids", cluster, "shown_id", shown_ids)
        delivered = {row[:2]: row for row in rows}
        by_job_id: dict[str, list[tuple[Any, ...]]] = {}
        for row in delivered.values():
            by_job_id.setdefault(row[3], []).append(row)
        known = {}
        for record in records:
            same, runs = delivered.get(record.key), by_job_id.get(record.job_id, [])
            # Nearly always there is no run but the record's own.
            superseded = not (len(runs) == 1 and runs[0] is same) and _is_superseded(record, same, runs)
            if same:
                digest, hooked, delivered_at, has_row = same[4:]
                known[record.key] = Known(digest, bool(hooked), superseded, delivered_at, bool(has_row))
            elif superseded:
                known[record.key] = NOT_KNOWN._replace(superseded=True)
        return known

    def _select(self, table: str, cluster: str, column: str, ids: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        return self._database.select_among(
            "SELECT job_id, submit, ended, ifnull(shown_id, CAST(job_id AS TEXT)), digest, hooked,"  # noqa: S608
            f" delivered_at, row IS NOT NULL FROM {table} WHERE cluster = ? AND {column}",
            ids,
            (cluster,),
        )

    def add(self, cluster: str, records: Sequence[Record], command: str, now: float, *, hooked: bool) -> None:
        """Stores what the dashboard has accepted. The time of the first delivery is kept.

        A dry run stores nothing: one of a year would keep everything in memory.
        """
        if self._database.rehearses or not records:
            return
        self._contested.clear()
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

    def rows(self, cluster: str, ended: Range) -> dict[bytes, int]:
        """The delivered rows that ended in a range, by their digests, and whether the hook had queued each job.

        The dashboard has the records of these. Left out are jobs with several rows, records that were rejected when
        they were sent again, and IDs under which another run was delivered or is remembered.
        """
        rows = self._database.execute(
            "SELECT row, hooked FROM delivered WHERE cluster = ? AND row IS NOT NULL AND ended BETWEEN ? AND ?"
            " AND job_id NOT IN (SELECT job_id FROM earlier_runs)"
            " AND (job_id, submit) NOT IN (SELECT job_id, submit FROM rejected WHERE cluster = ?) LIMIT ?",
            (cluster, *ended, cluster, MOST_ROWS),
        )
        known: dict[bytes, int] = dict(rows)
        for row in self._contested_rows(cluster):
            known.pop(row, None)
        return known

    def _contested_rows(self, cluster: str) -> list[bytes]:
        """The digests of the rows whose raw ID or JobID several delivered runs share: only these can be superseded."""
        if cluster not in self._contested:
            of_several = (
                "SELECT row FROM delivered WHERE cluster = ? AND {0} IN (SELECT {0} FROM delivered"
                " WHERE cluster = ? AND {0} IS NOT NULL GROUP BY {0} HAVING count(*) > 1)"
            )
            query = " UNION ALL ".join(map(of_several.format, ("job_id", "shown_id")))
            self._contested[cluster] = [row for (row,) in self._database.execute(query, (cluster,) * 4)]
        return self._contested[cluster]

    def forget_rows(self) -> None:
        """Deletes the digests of all rows, since the same rows now result in different records."""
        self._database.execute("UPDATE delivered SET row = NULL WHERE row IS NOT NULL")

    def first_end(self, cluster: str, since: float) -> int | None:
        """The earliest End of the jobs that were first delivered since then (epoch seconds)."""
        query = "SELECT min(ended) FROM delivered WHERE cluster = ? AND delivered_at >= ?"
        end: int | None = self._database.value(query, (cluster, since))
        return end

    def latencies(self, since: float, limit: int) -> list[float]:
        """Seconds from End to delivery of the jobs that flush has delivered since then, sorted.

        :param limit: only the latest deliveries are read, up to this many.
        """
        rows = self._database.execute(
            "SELECT delivered_at - ended FROM (SELECT * FROM delivered WHERE command = 'flush' AND delivered_at >= ?"
            " ORDER BY delivered_at DESC LIMIT ?) ORDER BY 1",
            (since, limit),
        )
        return [row[0] for row in rows]

    def prune(self, before: float) -> None:
        """Deletes the jobs that ended before then (epoch seconds)."""
        self._database.execute("DELETE FROM delivered WHERE ended < ?", (before,))


def _shown_id(record: Record) -> str | None:
    return None if record.job_id == str(record.raw_id) else record.job_id


def _is_superseded(record: Record, same: Sequence[Any] | None, runs: Sequence[Sequence[Any]]) -> bool:
    """Whether the dashboard has a later run of the job instead of this one.

    :param same: what was delivered of this very run. An edit may have moved its End.
    :param runs: what was delivered under the same JobID.
    """
    from agent.jobs.record import place  # noqa: PLC0415  # its digests are slow to load, and status needs none

    mine = (record.submit, max(record.end, same[2]) if same else record.end)
    later = [submit for _, submit, ended, *_ in runs if (submit, ended) > mine]
    return bool(later) and place(record.job_id, record.submit) in {place(record.job_id, submit) for submit in later}
