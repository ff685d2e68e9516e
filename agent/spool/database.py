"""One SQLite file: opens it, writes in transactions, and distinguishes a damaged file from a full disk."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence
from urllib.parse import quote

from agent.errors import ExporterError, LedgerDamaged, SpoolError
from agent.spool import schema

#: How long to wait for another process that locks the file, as a dry run does until it ends.
DRY_RUN_WAIT_SECONDS = 30

#: Queue files are removed after a commit, which a power failure must not undo. With EXTRA the folder is synced, too;
#: otherwise the journal might reappear there and roll the commit back.
SYNCHRONOUS = "EXTRA"
#: SQLite's limit on variables used to be 999. The number is constant because each different statement is cached.
CHUNK = 500
_ONE_OF = f"IN ({','.join('?' * CHUNK)})"
PAGE = 1000
_DISK_HINT = "check that the spool's disk is writable and not full, and that the file belongs to the Slurm user"


class Database:
    """An open database file, with the tables of :mod:`agent.spool.schema`.

    :param look: opens the file only for reading; if there is none, the tables are empty ones in memory.
    :raises LedgerDamaged: if the file is not a database, is damaged, or has a newer version.
    :raises SpoolError: if the disk or the permissions don't allow it.
    """

    def __init__(self, path: Path, *, look: bool = False) -> None:
        self._path = path
        self.rehearses = False  # everything written will be rolled back
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
        """Closes the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Writes atomically; the data is on the disk when it ends.

        :raises SpoolError: if it can't be written.
        """
        if self.rehearses:
            yield
            return
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Rolls back everything that a dry run writes."""
        self.execute("PRAGMA cache_spill = OFF")  # spilled pages would lock out readers
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

    def value(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Runs a statement that returns a single value."""
        ((value,),) = self.execute(statement, values)
        return value

    def select_among(self, statement: str, ids: Sequence[Any], values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yields the rows of a statement for any number of IDs.

        :param statement: ends with the name of the column that is one of the IDs.
        :param values: for the placeholders before that.
        """
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            nulls = [None] * (CHUNK - len(chunk))  # equal nothing
            yield from self.execute(f"{statement} {_ONE_OF}", (*values, *chunk, *nulls))

    def pages(
        self, statement: str, start: Sequence[Any], key: Callable[[Any], Sequence[Any]], limit: int
    ) -> Iterator[Any]:
        """Yields at most ``limit`` rows, as there may be millions. The file is not locked between pages.

        :param statement: its placeholders are the key after which it continues, and the number of rows.
        :param start: the first key.
        :param key: returns the key of a row.
        """
        after = start
        for left in range(limit, 0, -PAGE):
            rows = self.execute(statement, (*after, min(left, PAGE)))
            yield from rows
            if len(rows) < PAGE:
                return
            after = key(rows[-1])

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> int:
        """Runs one statement for each row of values, and returns how many rows of the table changed."""
        with _explained(self._path):
            return self._connection.executemany(statement, rows).rowcount


def put_aside(path: Path) -> Path:
    """Renames an unusable database, with its journal, and returns its new path.

    :raises SpoolError: if that fails.
    """
    aside = path.with_name(f"{path.name}.aside.{int(time.time())}")
    journal = path.with_name(f"{path.name}-journal")
    try:
        path.replace(aside)
        if journal.exists():
            journal.replace(aside.with_name(f"{aside.name}-journal"))
    except OSError as error:
        raise SpoolError(f"cannot set the damaged {path} aside: {error.strerror}", hint=_DISK_HINT) from error
    return aside


def _address_to_look(path: Path) -> str:
    """Not read-only: after a run was killed, the next to open the file has to roll back its open transaction."""
    # Path.as_uri imports an HTTP client on Python 3.14.
    return f"file:{quote(os.fsencode(path.absolute()))}?mode=rw" if path.exists() else ":memory:"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except ExporterError:
        raise
    except sqlite3.OperationalError as error:  # disk full, read-only, locked: the file itself is intact
        if any(words in str(error) for words in ("malformed", "no such", "decode")):
            raise LedgerDamaged(f"{path} is damaged: {error}") from error
        raise SpoolError(f"cannot use {path}: {error}", hint=_DISK_HINT) from error
    except OSError as error:
        raise SpoolError(f"cannot use {path}: {error.strerror}", hint=_DISK_HINT) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # even a table's name can be damaged
        raise LedgerDamaged(f"{path} is damaged: {error}") from error
