"""The locked queue file that the hook writes.

Hooks hold the lock in shared mode, and each appends its line in one write. A flush claims the queue by renaming it
under an exclusive lock. While a marker file exists, hooks write to side files instead: they never wait for a flush, and
a flush need not wait for a moment without hooks. Claimed files stay on disk until :meth:`Queue.discard` is called, once
the entries are safe in the ledger.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Iterator

from agent.errors import ExporterError, SpoolError, UnreadableLine
from agent.jobs.queue_entry import QueueEntry, parse_line
from agent.spool.disk import explained
from agent.spool.lock import QUEUE_LOCK, locked

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A hook that holds the lock for longer than this is considered stuck.
QUEUE_WAIT_SECONDS = 10
#: An unfinished side file that is older than this was left by a hook that died before it could rename it.
ABANDONED_SECONDS = 60
#: Longer than any line that the hook writes; anything longer is read in pieces and reported as unreadable.
LONGEST_LINE = 4096
#: A line queued by an admin consists of JOBID and SUBMIT; the hook writes four words.
ADMINS_WORDS = 2


class Queue:
    """The queue of one spool.

    :param spool: the folder; see :func:`check_spool`.
    :param complain: called for each line or file that is skipped.
    :param clock: epoch seconds.
    :param lock_wait: seconds after which a hook that holds the lock is considered stuck.
    """

    def __init__(
        self,
        spool: Path,
        *,
        complain: Callable[[ExporterError], None],
        clock: Callable[[], float] = time.time,
        lock_wait: float = QUEUE_WAIT_SECONDS,
    ) -> None:
        self._spool = spool
        self._path = spool / "queue"
        self._claiming = spool / "queue.claiming"  # while it exists, hooks write to side files
        self._complain = complain
        self._clock = clock
        self._lock_wait = lock_wait
        #: How many of the lines read so far were written by the hook, not by an admin.
        self.calls = 0

    def append(self, entries: Iterable[QueueEntry]) -> None:
        """Queues jobs for an admin. They may be of any age: with Submit 0 the whole accounting is searched.

        :raises SpoolError: if the lock can't be acquired or the file can't be written.
        """
        # Start a new line, as a full disk may have cut the last one short.
        text = "".join(f"\n{entry.asked} 0\n" for entry in entries)
        if _exists(self._path) and not _is_plain(self._path):
            raise SpoolError(f"{self._path} is not a regular file", hint="a flush sets it aside")
        with self._locked(), explained(self._path), self._path.open("a", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def claim(self) -> list[Path]:
        """Claims the queue and returns all files with entries, oldest first.

        They include files that an earlier run claimed and could not discard before it died.

        :raises SpoolError: if the spool can't be used.
        """
        with explained(self._spool):
            if _exists(self._path) or _exists(self._claiming):
                self._claim_queue()
            for path in self._named("queue.claimed.", "queue.side.", "queue.part."):
                self._put_aside_unless_readable(path)
            return self.files(with_queue=False)

    def files(self, *, with_queue: bool = True) -> list[Path]:
        """The files with entries: claimed ones, side files of hooks that could not get the lock, and the queue."""
        found = self._named("queue.claimed.", "queue.side.")
        found += [part for part in self._named("queue.part.") if self._is_abandoned(part)]
        if with_queue:
            found.append(self._path)
        return sorted(filter(_is_plain, found))

    def read(self, files: Sequence[Path]) -> Iterator[QueueEntry]:
        """Yields the entries of claimed files, without holding them all in memory."""
        for path in files:
            for line in _read_lines(path):
                if line.isspace():
                    continue
                try:
                    entry = parse_line(line)
                except UnreadableLine as error:
                    self._complain(error)
                else:
                    self.calls += len(line.split()) > ADMINS_WORDS
                    yield entry

    def last_write(self, files: Sequence[Path]) -> float | None:
        """When the hook last wrote to any of these files, in epoch seconds; None if none of them exists any longer."""
        moments = []
        with explained(self._spool):
            for path in files:
                with suppress(FileNotFoundError):  # another process has taken it over
                    moments.append(path.stat().st_mtime)
        return max(moments, default=None)

    def discard(self, files: Sequence[Path]) -> None:
        """Removes claimed files, once their entries are safe."""
        with explained(self._spool):
            for path in files:
                with suppress(FileNotFoundError):
                    path.unlink()

    def _named(self, *beginnings: str) -> list[Path]:
        """The files whose names begin with one of these. Path.glob would compile a regular expression for each."""
        return [path for path in self._spool.iterdir() if path.name.startswith(beginnings)]

    def _claim_queue(self) -> None:
        """Renames the queue. If the lock can't be acquired, the queue is left to a later run."""
        claimed = self._spool / f"queue.claimed.{time.time_ns()}.{os.getpid()}"
        self._claiming.touch()
        try:
            with self._locked(), suppress(FileNotFoundError):  # another process was quicker
                self._path.rename(claimed)
        except SpoolError as error:
            self._complain(error)
        finally:
            with suppress(FileNotFoundError):
                self._claiming.unlink()

    def _is_abandoned(self, part: Path) -> bool:
        """Whether its hook is dead: a living one renames the file within a minute. The clock may have jumped."""
        with suppress(FileNotFoundError):  # renamed by now
            return abs(self._clock() - part.lstat().st_mtime) > ABANDONED_SECONDS
        return False

    def _put_aside_unless_readable(self, path: Path) -> None:
        """Sets aside what is not from the hook: links and FIFOs, which are never opened, and files of root."""
        if not _exists(path) or (_is_plain(path) and os.access(path, os.R_OK)):
            return
        aside = path.with_name(f"odd.{path.name}")
        with suppress(FileNotFoundError):  # renamed by the hook, or taken over by another process
            path.rename(aside)
            self._complain(SpoolError(f"{path} is not a readable regular file and was set aside as {aside}"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._spool / QUEUE_LOCK
        stuck = SpoolError(
            f"{lock} has been held for more than {self._lock_wait:g} s",
            hint=f"see who holds it: fuser -v {lock}; meanwhile the hook writes to side files",
        )
        with locked(lock, self._lock_wait, stuck):
            yield


def _read_lines(path: Path) -> Iterator[str]:
    with explained(path), ExitStack() as stack:
        try:
            file = stack.enter_context(path.open(encoding="ascii", errors="backslashreplace", newline="\n"))
        except FileNotFoundError:  # taken over by another process: its entries are in the ledger
            return
        yield from iter(lambda: file.readline(LONGEST_LINE), "")


def _exists(path: Path) -> bool:
    """Whether the name exists, even as a dangling link."""
    return os.path.lexists(path)


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
