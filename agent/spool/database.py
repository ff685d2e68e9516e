"""One SQLite file: opens it, writes in transactions, and tells a damaged file from a full disk."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

from agent.errors import ExporterError, LedgerDamaged, SpoolError

#: How long another process may hold the file, as a dry run does to its end.
DRY_RUN_WAIT_SECONDS = 30

#: SQLite's limit on variables was 999 for long. Always as many: it keeps each different statement in memory.
CHUNK = 500
IS_ONE_OF = f"job_id IN ({','.join('?' * CHUNK)})"
#: So many rows at a time are read of what may be millions.
PAGE = 1000
_DISK_HINT = "see that the spool's disk is writable and not full, and the file belongs to the Slurm user"


class Database:
    """An open database file.

    :param schema: the statements that make the tables, where they are not there yet.
    :param version: what they are a version of; kept in the file.
    :param upgrades: what has to be done first to a file of an older version, by that version.
    :param look: opens the file only to look at it; where there is none, the tables are empty ones in memory.
    :raises LedgerDamaged: where the file is no database, is not whole, or is of a newer version.
    :raises SpoolError: where the disk or the permissions don't allow it.
    """

    def __init__(
        self, path: Path, schema: str, version: int, upgrades: Mapping[int, str], *, look: bool = False
    ) -> None:
        self._path = path
        self._rehearsing = False
        with _explained(path):
            address = _address_to_look(path) if look else str(path)
            self._connection = sqlite3.connect(address, timeout=DRY_RUN_WAIT_SECONDS, isolation_level=None, uri=look)
            try:
                # What is taken off the queue after a commit must not come to lie in neither when the power fails: the
                # folder is synced, too, or the journal that is found there would undo the commit.
                self._connection.execute("PRAGMA synchronous = EXTRA")
                _prepare(self._connection, path, schema, version, upgrades)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is written within, on the disk when it ends.

        :raises SpoolError: where it can't be written.
        """
        if self._rehearsing:
            yield
            return
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Lets a dry run write whatever it likes, and undoes all of it."""
        self._execute("PRAGMA cache_spill = OFF")  # spilled pages would lock out whoever only looks
        self._execute("BEGIN IMMEDIATE")
        self._rehearsing = True
        try:
            yield
        finally:
            self._rehearsing = False
            self._connection.rollback()

    @property
    def rehearses(self) -> bool:
        """Whether all that is written will be undone."""
        return self._rehearsing

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with _explained(self._path):
            return self._connection.execute(statement, values).fetchall()

    def _execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> int:
        with _explained(self._path):
            return self._connection.executemany(statement, rows).rowcount


def put_aside(path: Path) -> Path:
    """Renames a database that can't be used, with its journal, and returns its new path.

    :raises SpoolError: where that can't be done.
    """
    aside = path.with_name(f"{path.name}.aside.{int(time.time())}")
    journal = path.with_name(f"{path.name}-journal")
    try:
        path.replace(aside)
        if journal.exists():
            journal.replace(aside.with_name(f"{aside.name}-journal"))
    except OSError as error:
        raise SpoolError(f"cannot put the damaged {path} aside: {error.strerror}", hint=_DISK_HINT) from error
    return aside


def _address_to_look(path: Path) -> str:
    """Not read-only: where a run was killed, whoever opens the file next has to undo what it had not committed."""
    return f"{path.absolute().as_uri()}?mode=rw" if path.exists() else ":memory:"


def _prepare(connection: sqlite3.Connection, path: Path, schema: str, wanted: int, upgrades: Mapping[int, str]) -> None:
    """Makes the tables where they are missing, and touches each once, which finds most damage."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > wanted:
        raise LedgerDamaged(f"{path} is of version {version}, newer than this program's {wanted}")
    if version < wanted:
        _upgrade(connection, schema, wanted, upgrades)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()  # noqa: S608  # a name of our own schema


def _upgrade(connection: sqlite3.Connection, schema: str, wanted: int, upgrades: Mapping[int, str]) -> None:
    """Brings a new file, or one of an older version, to the wanted version, unless another process has just done so."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    first = "".join(upgrades.get(older, "") for older in range(version, wanted)) if version else ""
    for statement in f"{first} {schema} PRAGMA user_version = {wanted}".split(";"):
        connection.execute(statement)
    connection.execute("COMMIT")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except ExporterError:
        raise
    except sqlite3.OperationalError as error:  # disk full, read-only, locked: the file itself is sound
        if any(words in str(error) for words in ("malformed", "no such", "decode")):
            raise LedgerDamaged(f"{path} is damaged: {error}") from error
        raise SpoolError(f"cannot use {path}: {error}", hint=_DISK_HINT) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # even a table's name can be damaged
        raise LedgerDamaged(f"{path} is damaged: {error}") from error


def chunks(job_ids: Sequence[int]) -> Iterator[Sequence[int | None]]:
    """The values for :data:`IS_ONE_OF`, with nulls behind the last ones, which no ID is equal to."""
    for start in range(0, len(job_ids), CHUNK):
        chunk = job_ids[start : start + CHUNK]
        yield [*chunk, *[None] * (CHUNK - len(chunk))]
