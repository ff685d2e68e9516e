"""What the agent remembers between runs, in one SQLite file in the spool.

It is an index, never the truth: without it everything is replayed from Slurm's accounting, nothing is lost. What has
to be true after a crash is written in one transaction: a job leaves ``waiting`` in the same one that enters it in
``delivered`` or ``rejected``. SQLite 3.26 (EL 8) is enough.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

from agent.errors import LedgerDamaged
from agent.jobs.record import Record
from agent.jobs.run import Run
from agent.localtime import local_day
from agent.spool import journal, waiting
from agent.spool.database import IS_ONE_OF, PAGE, chunks, put_aside
from agent.spool.journal import Journal
from agent.spool.waiting import WaitingJobs

SCHEMA_VERSION = 3
_UPGRADES = {2: "ALTER TABLE delivered ADD COLUMN shown_id TEXT;"}
LEFT = "the next flush or reconcile puts it aside and begins a new one; no job is lost"

_SCHEMA = f"""
{waiting.SCHEMA}
CREATE TABLE IF NOT EXISTS delivered (
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, submit INTEGER NOT NULL, ended INTEGER NOT NULL,
    digest BLOB NOT NULL, delivered_at REAL NOT NULL, command TEXT NOT NULL, hooked INTEGER NOT NULL,
    shown_id TEXT,  -- null where it is job_id
    PRIMARY KEY (cluster, job_id, submit)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delays ON delivered (delivered_at, ended) WHERE command = 'flush';
CREATE TABLE IF NOT EXISTS rejected (
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, submit INTEGER NOT NULL, ended INTEGER NOT NULL,
    shown_id TEXT NOT NULL, digest BLOB NOT NULL, record TEXT NOT NULL, reason TEXT NOT NULL,
    rejected_at REAL NOT NULL, hooked INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (cluster, job_id, submit));
CREATE TABLE IF NOT EXISTS earlier_runs (
    job_id INTEGER NOT NULL, submit INTEGER NOT NULL, ended INTEGER NOT NULL, run TEXT NOT NULL,
    PRIMARY KEY (job_id, submit)) WITHOUT ROWID;
{journal.SCHEMA}
"""


class Known(NamedTuple):
    """What the ledger knows of a job that is about to be sent."""

    digest: bytes  # of what was delivered of the same run; empty where nothing was
    hooked: bool
    superseded: bool  # by a newer job or run of the same JobID


NOT_KNOWN = Known(b"", hooked=False, superseded=False)


class Rejected(NamedTuple):
    """A record that the dashboard refused, with its words."""

    job_id: int
    shown_id: str
    submit: int
    end: int
    reason: str
    rejected_at: float
    record: str


class Ledger(WaitingJobs, Journal):
    """The tables and what is done with them. Open one with :func:`open_ledger`."""

    def known(self, cluster: str, records: Sequence[Record]) -> dict[tuple[int, int], Known]:
        """What of some jobs was delivered before, by what identifies the records; nothing of most."""
        rows_of: dict[int, list[Any]] = {}
        for chunk in chunks([record.raw_id for record in records]):
            for job_id, *row in self._execute(
                f"SELECT job_id, submit, digest, hooked, shown_id FROM delivered WHERE cluster = ? AND {IS_ONE_OF}",  # noqa: S608
                (cluster, *chunk),
            ):
                rows_of.setdefault(job_id, []).append(row)
        return {
            record.key: _make_known(record, rows_of[record.raw_id]) for record in records if record.raw_id in rows_of
        }

    def rejected_digests(self, cluster: str) -> dict[tuple[int, int], bytes]:
        """The digests of the records that the dashboard refused, dropped ones included, by what identifies them."""
        rows = self._execute("SELECT job_id, submit, digest FROM rejected WHERE cluster = ?", (cluster,))
        return {(job_id, submit): digest for job_id, submit, digest in rows}

    def add_delivered(self, cluster: str, records: Sequence[Record], command: str, now: float, *, hooked: bool) -> None:
        """Writes down what the dashboard has taken. The first delivery's time stands.

        Not in a dry run: that of a year would hold it all in memory.
        """
        if self._rehearsing:
            return
        self._execute_many(
            """INSERT INTO delivered VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (cluster, job_id, submit) DO UPDATE
               SET digest = excluded.digest, ended = excluded.ended, shown_id = excluded.shown_id,
               hooked = max(hooked, excluded.hooked)""",
            (
                (cluster, *record.key, record.end, record.digest, now, command, hooked, _shown_id(record))
                for record in records
            ),
        )
        if self._execute("SELECT 1 FROM rejected LIMIT 1"):
            self._execute_many(
                "DELETE FROM rejected WHERE cluster = ? AND job_id = ? AND submit = ?",
                ((cluster, *record.key) for record in records),
            )

    def add_rejected(self, cluster: str, record: Record, reason: str, now: float, *, hooked: bool) -> None:
        """Sets a record aside with the dashboard's reason."""
        self._execute(
            "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (cluster, *record.key, record.end, record.job_id, record.digest, record.text, reason, now, hooked),
        )

    def rejected(self, limit: int = sys.maxsize) -> Iterator[Rejected]:
        """The records set aside and not dropped, newest first, read as :meth:`all_waiting` reads."""
        last = (float("inf"), 0)
        while limit:
            rows = self._execute(
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

    def count_rejected(self) -> int:
        """How many records are set aside and not dropped."""
        return int(self._execute("SELECT count(*) FROM rejected WHERE NOT dropped")[0][0])

    def has_rejected(self, job_id: int, shown_id: str) -> bool:
        """Whether a record of this raw ID, or of this JobID as it is shown, is set aside and not dropped."""
        return bool(
            self._execute(
                "SELECT 1 FROM rejected WHERE (job_id = ? OR shown_id = ?) AND NOT dropped", (job_id, shown_id)
            )
        )

    def drop_rejected(self, job_id: int, shown_id: str) -> None:
        """Never sends the rejected records of a job again, as they are."""
        self._execute("UPDATE rejected SET dropped = 1 WHERE job_id = ? OR shown_id = ?", (job_id, shown_id))

    def forget_rejected(self, job_id: int, shown_id: str) -> None:
        """Lets the rejected records of a job be sent again."""
        self._execute("DELETE FROM rejected WHERE job_id = ? OR shown_id = ?", (job_id, shown_id))

    def add_earlier_runs(self, runs: Iterable[Run]) -> None:
        """Remembers runs that have ended while their job goes on, or may go on."""
        self._execute_many(
            "INSERT OR REPLACE INTO earlier_runs VALUES (?, ?, ?, ?)",
            ((run.raw_id, run.submit, run.end or 0, json.dumps(run)) for run in runs),
        )

    def earlier_runs(self, job_ids: Sequence[int]) -> dict[int, list[Run]]:
        """The remembered runs of some raw IDs, by raw ID; those that have none are left out."""
        found: dict[int, list[Run]] = {}
        for chunk in chunks(job_ids):
            rows = self._execute(f"SELECT job_id, run FROM earlier_runs WHERE {IS_ONE_OF}", chunk)  # noqa: S608
            for job_id, text in rows:
                found.setdefault(job_id, []).append(Run(*json.loads(text)))
        return found

    def latencies(self, since: float, limit: int) -> list[float]:
        """Seconds from the End to the dashboard of the jobs that flush has delivered since then, sorted.

        :param limit: the latest so many suffice.
        """
        rows = self._execute(
            "SELECT delivered_at - ended FROM (SELECT * FROM delivered WHERE command = 'flush' AND delivered_at >= ?"
            " ORDER BY delivered_at DESC LIMIT ?) ORDER BY 1",
            (since, limit),
        )
        return [row[0] for row in rows]

    def prune(self, *, ended_before: float, requeued_before: float, runs_before: float) -> None:
        """Forgets what no reconcile of the window will ask for again."""
        self._execute("DELETE FROM delivered WHERE ended < ?", (ended_before,))
        self._execute("DELETE FROM rejected WHERE dropped AND ended < ?", (ended_before,))
        self._execute("DELETE FROM earlier_runs WHERE ended < ?", (requeued_before,))
        self._execute("DELETE FROM runs WHERE started_at < ?", (runs_before,))
        self._execute("DELETE FROM coverage WHERE day < date(?, 'unixepoch')", (requeued_before,))


def open_ledger(path: Path, *, alone: bool = True) -> tuple[Ledger, str]:
    """Opens the ledger, or begins a new one. A damaged one, or one of a newer version, is put aside first.

    :param alone: whether no run can be at work on it; otherwise it is left where it is.
    :returns: the ledger, and what was put aside and why, empty where nothing was.
    :raises LedgerDamaged: where it is left.
    :raises SpoolError: where the disk or the permissions don't allow it.
    """
    try:
        return Ledger(path, _SCHEMA, SCHEMA_VERSION, _UPGRADES), ""
    except LedgerDamaged as error:
        if not alone:
            error.hint = LEFT
            raise
        aside = put_aside(path)
        ledger = Ledger(path, _SCHEMA, SCHEMA_VERSION, _UPGRADES)
        return ledger, f"{error}; it was put aside as {aside}. The next reconcile replays the whole window"


def view_ledger(path: Path) -> Ledger:
    """Opens the ledger to look at it; it is empty where there is none yet.

    :raises LedgerDamaged: where it can't be used; the next run puts it aside.
    :raises SpoolError: where the permissions don't allow it.
    """
    return Ledger(path, _SCHEMA, SCHEMA_VERSION, _UPGRADES, look=True)


def _shown_id(record: Record) -> str | None:
    return None if record.job_id == str(record.raw_id) else record.job_id


def _make_known(record: Record, rows: Iterable[Sequence[Any]]) -> Known:
    known_digest, known_hooked, superseded = NOT_KNOWN
    for submit, digest, hooked, shown_id in rows:
        if submit == record.submit:
            known_digest, known_hooked = digest, bool(hooked)
        # The dashboard keeps one record of a JobID for each year of Submit: a newer one there must stand.
        elif submit > record.submit and shown_id == _shown_id(record):
            superseded = superseded or local_day(submit).year == local_day(record.submit).year
    return Known(known_digest, known_hooked, superseded)
