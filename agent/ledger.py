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

from agent.database import Database, put_aside
from agent.entries import LAST_JOB_ID, NO_TASK, QueueEntry
from agent.errors import LedgerDamaged, RecordsRejected
from agent.jobs import Record
from agent.localtime import local_day
from agent.records import Run
from agent.retry import LONGEST_WAIT_SECONDS
from agent.slices import Range

SCHEMA_VERSION = 3
LEFT = "the next flush or reconcile puts it aside and begins a new one; no job is lost"
#: So many rows at a time are read of what may be millions.
PAGE = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    job_id INTEGER NOT NULL, array_task INTEGER NOT NULL, submit INTEGER, ended INTEGER,
    queued_at REAL NOT NULL, attempts INTEGER NOT NULL, due_at REAL NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (job_id, array_task)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ends ON waiting (ended, due_at) WHERE ended IS NOT NULL;
-- Made anew where it is of an earlier version and lacks shown_id: reconcile fills it again.
DROP TABLE IF EXISTS delivered;
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
CREATE TABLE IF NOT EXISTS runs (
    command TEXT NOT NULL, started_at REAL NOT NULL, seconds REAL NOT NULL, exit_code INTEGER NOT NULL,
    message TEXT NOT NULL, delivered INTEGER NOT NULL, rejected INTEGER NOT NULL, missed INTEGER NOT NULL,
    PRIMARY KEY (command, started_at));
CREATE TABLE IF NOT EXISTS coverage (day TEXT PRIMARY KEY, jobs INTEGER NOT NULL, hooked INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS calls (day TEXT PRIMARY KEY, calls INTEGER NOT NULL, last_call REAL NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value REAL NOT NULL);
"""


#: SQLite's limit on variables was 999 for long. Always as many: it keeps each different statement in memory.
_CHUNK = 500
_IS_ONE_OF = f"job_id IN ({','.join('?' * _CHUNK)})"
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


class RunReport(NamedTuple):
    """How one run of flush or reconcile went."""

    command: str
    started_at: float
    seconds: float
    exit_code: int
    message: str
    delivered: int = 0
    rejected: int = 0
    missed: int = 0  # jobs that the hook should have brought, and did not


class Ledger(Database):
    """The tables and what is done with them. Open one with :func:`open_ledger`."""

    # Waiting

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
        """Those jobs under some raw IDs whose time has come."""
        found: list[Waiting] = []
        for chunk in _chunks(job_ids):
            rows = self._execute(
                f"SELECT * FROM waiting WHERE {_IS_ONE_OF} AND {_IS_DUE}",  # noqa: S608
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
        return self._present("waiting", job_ids)

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

    # Delivered and rejected

    def known(self, cluster: str, records: Sequence[Record]) -> dict[tuple[int, int], Known]:
        """What of some jobs was delivered before, by what identifies the records; nothing of most."""
        rows_of: dict[int, list[Any]] = {}
        for chunk in _chunks([record.raw_id for record in records]):
            for job_id, *row in self._execute(
                f"SELECT job_id, submit, digest, hooked, shown_id FROM delivered WHERE cluster = ? AND {_IS_ONE_OF}",  # noqa: S608
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

    # Earlier runs of requeued and resized jobs

    def add_earlier_runs(self, runs: Iterable[Run]) -> None:
        """Remembers runs that have ended while their job goes on, or may go on."""
        self._execute_many(
            "INSERT OR REPLACE INTO earlier_runs VALUES (?, ?, ?, ?)",
            ((run.raw_id, run.submit, run.end or 0, json.dumps(run)) for run in runs),
        )

    def earlier_runs(self, job_ids: Sequence[int]) -> dict[int, list[Run]]:
        """The remembered runs of some raw IDs, by raw ID; those that have none are left out."""
        found: dict[int, list[Run]] = {}
        for chunk in _chunks(job_ids):
            rows = self._execute(f"SELECT job_id, run FROM earlier_runs WHERE {_IS_ONE_OF}", chunk)  # noqa: S608
            for job_id, text in rows:
                found.setdefault(job_id, []).append(Run(*json.loads(text)))
        return found

    # Runs, coverage and single facts

    def add_run(self, report: RunReport) -> None:
        """Writes down how a run went; one that had nothing to do replaces the idle one before it."""
        if not (report.exit_code or report.delivered or report.rejected):
            self._execute(
                "DELETE FROM runs WHERE command = ? AND exit_code = 0 AND delivered = 0 AND rejected = 0",
                (report.command,),
            )
        self._execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", report)

    def last_run(self, command: str, *, successful: bool = False, with_work: bool = False) -> RunReport | None:
        """The latest run of a command, on request the latest that delivered something, or that did what it should.

        Such a one has done everything, though the dashboard may have refused some records for good.
        """
        rows = self._execute(
            "SELECT * FROM runs WHERE command = ? AND (exit_code IN (0, ?) OR NOT ?) AND (delivered > 0 OR NOT ?)"
            " ORDER BY started_at DESC LIMIT 1",
            (command, RecordsRejected.exit_code, successful, with_work),
        )
        return RunReport(*rows[0]) if rows else None

    def delivered_since(self, since: float) -> int:
        """How many jobs were first delivered since then."""
        return int(self._execute("SELECT count(*) FROM delivered WHERE delivered_at >= ?", (since,))[0][0])

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

    def set_coverage(self, days: dict[str, tuple[int, int]]) -> None:
        """Writes down for whole days how many jobs reconcile saw and how many of them the hook had brought."""
        self._execute_many(
            "INSERT OR REPLACE INTO coverage VALUES (?, ?, ?)", ((day, *counts) for day, counts in days.items())
        )

    def coverage(self, since_day: str) -> dict[str, tuple[int, int]]:
        """The same, back again, from a day (YYYY-MM-DD) on."""
        rows = self._execute("SELECT day, jobs, hooked FROM coverage WHERE day >= ? ORDER BY day", (since_day,))
        return {day: (jobs, hooked) for day, jobs, hooked in rows}

    def add_calls(self, calls: int, last_call: float) -> None:
        """Counts calls of the hook, on the day of the last of them (epoch seconds)."""
        self._execute(
            """INSERT INTO calls VALUES (?, ?, ?) ON CONFLICT (day) DO UPDATE SET
               calls = calls + excluded.calls, last_call = max(last_call, excluded.last_call)""",
            (local_day(last_call).isoformat(), calls, last_call),
        )

    def calls(self) -> dict[str, tuple[int, float]]:
        """For each day (YYYY-MM-DD), oldest first, how often the hook has called, and when last."""
        rows = self._execute("SELECT day, calls, last_call FROM calls ORDER BY day")
        return {day: (calls, last_call) for day, calls, last_call in rows}

    def set_fact(self, name: str, value: float) -> None:
        """Remembers a number under a name."""
        self._execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def raise_fact(self, name: str, amount: float) -> None:
        """Adds to the number under a name."""
        self.set_fact(name, self.fact(name) + amount)

    def fact(self, name: str) -> float:
        """The number under a name, 0 where there is none."""
        rows = self._execute("SELECT value FROM facts WHERE name = ?", (name,))
        return float(rows[0][0]) if rows else 0.0

    def prune(self, *, ended_before: float, requeued_before: float, runs_before: float) -> None:
        """Forgets what no reconcile of the window will ask for again."""
        self._execute("DELETE FROM delivered WHERE ended < ?", (ended_before,))
        self._execute("DELETE FROM rejected WHERE dropped AND ended < ?", (ended_before,))
        self._execute("DELETE FROM earlier_runs WHERE ended < ?", (requeued_before,))
        self._execute("DELETE FROM runs WHERE started_at < ?", (runs_before,))
        self._execute("DELETE FROM coverage WHERE day < date(?, 'unixepoch')", (requeued_before,))

    def _present(self, table: str, job_ids: Sequence[int]) -> set[int]:
        found: set[int] = set()
        for chunk in _chunks(job_ids):
            rows = self._execute(f"SELECT job_id FROM {table} WHERE {_IS_ONE_OF}", chunk)  # noqa: S608
            found.update(row[0] for row in rows)
        return found


def open_ledger(path: Path, *, alone: bool = True) -> tuple[Ledger, str]:
    """Opens the ledger, or begins a new one. A damaged one, or one of a newer version, is put aside first.

    :param alone: whether no run can be at work on it; otherwise it is left where it is.
    :returns: the ledger, and what was put aside and why, empty where nothing was.
    :raises LedgerDamaged: where it is left.
    :raises SpoolError: where the disk or the permissions don't allow it.
    """
    try:
        return Ledger(path, _SCHEMA, SCHEMA_VERSION), ""
    except LedgerDamaged as error:
        if not alone:
            error.hint = LEFT
            raise
        aside = put_aside(path)
        ledger = Ledger(path, _SCHEMA, SCHEMA_VERSION)
        return ledger, f"{error}; it was put aside as {aside}. The next reconcile replays the whole window"


def view_ledger(path: Path) -> Ledger:
    """Opens the ledger to look at it; it is empty where there is none yet.

    :raises LedgerDamaged: where it can't be used; the next run puts it aside.
    :raises SpoolError: where the permissions don't allow it.
    """
    return Ledger(path, _SCHEMA, SCHEMA_VERSION, look=True)


def _make_waiting(row: Sequence[Any]) -> Waiting:
    job_id, task, submit, ended, queued_at, attempts, due_at, reason = row
    numbers = (job_id, task, submit or 0, ended or 0, queued_at, attempts, due_at)
    # A bad disk can change a value and nothing else; sacct would refuse every job for this one.
    if not all(isinstance(number, (int, float)) for number in numbers) or not 0 < job_id <= LAST_JOB_ID:
        raise LedgerDamaged(f"the ledger holds a job that can't be: {row!r}")
    entry = QueueEntry(job_id, submit, ended, None if task == NO_TASK else task)
    return Waiting(entry, queued_at, attempts, due_at, reason)


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


def _chunks(job_ids: Sequence[int]) -> Iterator[Sequence[int | None]]:
    """The values for :data:`_IS_ONE_OF`, with nulls behind the last ones, which no ID is equal to."""
    for start in range(0, len(job_ids), _CHUNK):
        chunk = job_ids[start : start + _CHUNK]
        yield [*chunk, *[None] * (_CHUNK - len(chunk))]
