"""The locked queue file that the hook writes.

Hooks share the lock among themselves: each appends its line in one write. The queue is claimed by a rename under that
lock, for which a file asks the hooks to write beside the queue meanwhile: they never wait for a flush, and a flush need
not wait for a moment without hooks. What is claimed stays on disk until :meth:`Queue.discard`, which comes after the
entries are safe in the ledger.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Iterator

from agent.errors import ExporterError, SpoolError, UnreadableLine
from agent.jobs.entry import QueueEntry, parse_line
from agent.spool.disk import explained
from agent.spool.lock import QUEUE_LOCK, locked

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How long a hook may hold the lock before it is taken for stuck.
QUEUE_WAIT_SECONDS = 10
#: A part of a side file that is older than this was left by a hook that died before it could name it.
ABANDONED_SECONDS = 60
#: Longer than any line of the hook's: what comes without a newline for so long is no line.
LONGEST_LINE = 4096
#: In a line that an admin queued, JOBID and SUBMIT; the hook writes four words.
ADMINS_WORDS = 2


class Queue:
    """The queue of one spool.

    :param spool: the folder; see :func:`check_spool`.
    :param complain: told of each line or file that is passed over.
    :param clock: epoch seconds.
    :param lock_wait: seconds that a hook may hold the lock before it is taken for stuck.
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
        self._claiming = spool / "queue.claiming"  # while it is there, hooks write beside the queue
        self._complain = complain
        self._clock = clock
        self._lock_wait = lock_wait
        #: How many of the lines that were read are the hook's. An admin's has the JobID alone.
        self.calls = 0

    def append(self, entries: Iterable[QueueEntry]) -> None:
        """Queues jobs for an admin. They may be of any age: Submit 0 has the whole accounting searched for them.

        :raises SpoolError: where the lock can't be had or the file can't be written.
        """
        # A line of its own, even behind one that a full disk cut short.
        text = "".join(f"\n{entry.asked} 0\n" for entry in entries)
        if _exists(self._path) and not _is_plain(self._path):
            raise SpoolError(f"{self._path} is no regular file", hint="a flush puts it aside")
        with self._locked(), explained(self._path), self._path.open("a", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def claim(self) -> list[Path]:
        """Takes the queue away from the hook and returns all files that hold entries, oldest first.

        Those that an earlier run claimed and did not live to discard are among them.

        :raises SpoolError: where the spool can't be used.
        """
        with explained(self._spool):
            if _exists(self._path) or _exists(self._claiming):
                self._claim_queue()
            for path in self._spool.glob("queue.*.*"):
                self._put_aside_unless_readable(path)
            return self.files(with_queue=False)

    def files(self, *, with_queue: bool = True) -> list[Path]:
        """The files that hold entries: claimed ones, side files of hooks that could not get the lock, the queue."""
        found = [*self._spool.glob("queue.claimed.*"), *self._spool.glob("queue.side.*")]
        found += [part for part in self._spool.glob("queue.part.*") if self._is_abandoned(part)]
        if with_queue:
            found.append(self._path)
        return sorted(filter(_is_plain, found))

    def read(self, files: Sequence[Path]) -> Iterator[QueueEntry]:
        """The entries of claimed files, one at a time however many there are."""
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
        """When the hook last wrote to any of some files, in epoch seconds; None where all of them are gone."""
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

    def _claim_queue(self) -> None:
        """Renames the queue. Where the lock can't be had it stays for a later run, and holds up nothing else."""
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
        """A hook takes no minute from the file to its name. The clock may have been set since."""
        with suppress(FileNotFoundError):  # it has its name by now
            return abs(self._clock() - part.lstat().st_mtime) > ABANDONED_SECONDS
        return False

    def _put_aside_unless_readable(self, path: Path) -> None:
        """A link or a FIFO in place of a file is not the hook's, and is never opened; root's file can't be."""
        if not _exists(path) or (_is_plain(path) and os.access(path, os.R_OK)):
            return
        aside = path.with_name(f"odd.{path.name}")
        with suppress(FileNotFoundError):  # it got its name, or another process has taken it over
            path.rename(aside)
            self._complain(SpoolError(f"{path} is no readable regular file and was put aside as {aside}"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._spool / QUEUE_LOCK
        stuck = SpoolError(
            f"{lock} has been held for more than {self._lock_wait:g} s",
            hint=f"see who holds it: fuser -v {lock}; the hook writes beside the queue meanwhile",
        )
        with locked(lock, self._lock_wait, stuck):
            yield


def _read_lines(path: Path) -> Iterator[str]:
    with explained(path), ExitStack() as stack:
        try:
            file = stack.enter_context(path.open(encoding="ascii", errors="backslashreplace", newline="\n"))
        except FileNotFoundError:  # another process has taken it over: its entries are on the books
            return
        yield from iter(lambda: file.readline(LONGEST_LINE), "")


def _exists(path: Path) -> bool:
    """Also where it is a link that leads nowhere."""
    return os.path.lexists(path)


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
