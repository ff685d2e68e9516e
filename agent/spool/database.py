"""One SQLite file: opens it, writes in transactions, and tells a damaged file from a full disk."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence, TypeVar

from agent.errors import ExporterError, LedgerDamaged, SpoolError
from agent.spool import schema

T = TypeVar("T")

#: How long another process may hold the file, as a dry run does to its end.
DRY_RUN_WAIT_SECONDS = 30

#: What is taken off the queue after a commit must not come to lie in neither when the power fails: the folder is
#: synced, too, or the journal that is found there would undo the commit.
SYNCHRONOUS = "EXTRA"
#: SQLite's limit on variables was 999 for long. Always as many: it keeps each different statement in memory.
CHUNK = 500
ONE_OF = f"IN ({','.join('?' * CHUNK)})"
IS_ONE_OF = f"job_id {ONE_OF}"
#: So many rows at a time are read of what may be millions.
PAGE = 1000
_DISK_HINT = "see that the spool's disk is writable and not full, and the file belongs to the Slurm user"


class Database:
    """An open database file, with the tables of :mod:`agent.spool.schema`.

    :param look: opens the file only to look at it; where there is none, the tables are empty ones in memory.
    :raises LedgerDamaged: where the file is no database, is not whole, or is of a newer version.
    :raises SpoolError: where the disk or the permissions don't allow it.
    """

    def __init__(self, path: Path, *, look: bool = False) -> None:
        self._path = path
        self.rehearses = False  # all that is written will be undone
        with _explained(path):
            address = _address_to_look(path) if look else str(path)
            self._connection = sqlite3.connect(address, timeout=DRY_RUN_WAIT_SECONDS, isolation_level=None, uri=look)
            try:
                self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
                schema.prepare(self._connection, path)
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
        if self.rehearses:
            yield
            return
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Lets a dry run write whatever it likes, and undoes all of it."""
        self.execute("PRAGMA cache_spill = OFF")  # spilled pages would lock out whoever only looks
        self.execute("BEGIN IMMEDIATE")
        self.rehearses = True
        try:
            yield
        finally:
            self.rehearses = False
            self._connection.rollback()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Runs one statement and returns its rows."""
        with _explained(self._path):
            return self._connection.execute(statement, values).fetchall()

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> int:
        """Runs one statement for each row of values, and returns how many rows of the table that has changed."""
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
    except OSError as error:
        raise SpoolError(f"cannot use {path}: {error.strerror}", hint=_DISK_HINT) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # even a table's name can be damaged
        raise LedgerDamaged(f"{path} is damaged: {error}") from error


def chunks(values: Sequence[T]) -> Iterator[Sequence[T | None]]:
    """The values for :data:`IS_ONE_OF` and its like, with nulls behind the last ones, which nothing is equal to."""
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK]
        yield [*chunk, *[None] * (CHUNK - len(chunk))]
