"""The tables of the ledger, and how a file of an older version is upgraded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import LedgerDamaged

if TYPE_CHECKING:
    from sqlite3 import Connection

#: Stored in the file; a program that finds a newer one starts a new file.
VERSION = 4

TABLES = """
CREATE TABLE IF NOT EXISTS waiting (
    job_id INTEGER NOT NULL, array_task INTEGER NOT NULL, submit INTEGER, ended INTEGER,
    queued_at REAL NOT NULL, attempts INTEGER NOT NULL, due_at REAL NOT NULL, reason TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'no_record',  -- half_written, or refused: then the reason is the dashboard's message
    PRIMARY KEY (job_id, array_task)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ends ON waiting (ended, due_at) WHERE ended IS NOT NULL;
CREATE TABLE IF NOT EXISTS delivered (
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, submit INTEGER NOT NULL, ended INTEGER NOT NULL,
    digest BLOB NOT NULL, delivered_at REAL NOT NULL, command TEXT NOT NULL, hooked INTEGER NOT NULL,
    shown_id TEXT,  -- null if it is job_id
    row BLOB,  -- a digest of its row in sacct, null if the job has several
    PRIMARY KEY (cluster, job_id, submit)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shown_ids ON delivered (cluster, shown_id) WHERE shown_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS rows_seen ON delivered (cluster, ended, row, hooked) WHERE row IS NOT NULL;
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
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

#: The changes to a file of this version, made before missing tables are created. Before version 4, earlier runs had no
#: uid; they are deleted, and the next reconcile reads them again.
UPGRADES = {
    2: "ALTER TABLE delivered ADD COLUMN shown_id TEXT;",
    3: """ALTER TABLE waiting ADD COLUMN state TEXT NOT NULL DEFAULT 'no_record';
        UPDATE waiting SET state = 'refused', reason = substr(reason, length('refused by the dashboard: ') + 1)
        WHERE reason LIKE 'refused by the dashboard: %';
        DELETE FROM earlier_runs;
        DELETE FROM facts WHERE name IN ('requeued_known_from', 'requeued_known_to');
        ALTER TABLE delivered ADD COLUMN row BLOB;""",
}


def prepare(connection: Connection, path: Path) -> None:
    """Creates missing tables, and reads from each one, which detects most damage.

    :raises LedgerDamaged: if the file has a newer version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise LedgerDamaged(f"{path} has version {version}, newer than this program's {VERSION}")
    if version < VERSION:
        _upgrade(connection)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()  # noqa: S608  # a name of our own schema


def _upgrade(connection: Connection) -> None:
    """Upgrades a new or older file, unless another process has just done so."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    first = "".join(UPGRADES.get(older, "") for older in range(version, VERSION)) if version else ""
    for statement in f"{first} {TABLES} PRAGMA user_version = {VERSION}".split(";"):
        connection.execute(statement)
    connection.execute("COMMIT")
