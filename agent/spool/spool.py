"""Opens the spool for a command: as its owner, locked if necessary, with its queue and its ledger."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple

from agent.errors import ExporterError, LedgerDamaged, SpoolError
from agent.jobs.queue_entry import QueueEntry
from agent.localtime import Range
from agent.logger import Logger
from agent.spool.database import put_aside
from agent.spool.host_mark import claim_for_host
from agent.spool.ledger import Ledger, open_ledger, view_ledger
from agent.spool.lock import run_lock
from agent.spool.owner import check_spool, step_down
from agent.spool.queue import Queue

LEDGER_NAME = "ledger.db"
#: A call without the job's END came at most this long before the last call: flush runs more often.
WITHOUT_END_SECONDS = 600
#: More than two flushes apart: the other controller has had time to take over.
FAR_APART_SECONDS = 900

logger = Logger(__name__)


class Spool(NamedTuple):
    """An open spool."""

    queue: Queue
    ledger: Ledger

    def take_over(self, now: float) -> list[Range]:
        """Claims the queue and moves its entries into the ledger. Files are removed once the entries are on the disk.

        A dry run only reads the files.

        :param now: epoch seconds.
        :returns: when the jobs ended for which the hook was called, as ranges of their End; none if it was not called.
        :raises SpoolError: if the spool can't be used; nothing is lost.
        """
        queue, ledger = self
        if ledger.rehearses:
            ledger.waiting.add(queue.read(queue.files()), now)
            return []
        files = queue.claim()
        if not files:
            return []
        last_call = queue.last_write(files) or now
        ends, calls_before = _Ends(int(last_call)), queue.calls
        with ledger.transaction():
            ledger.waiting.add(ends.note(queue.read(files)), now)
            calls = queue.calls - calls_before
            if calls:
                ledger.history.add_calls(calls, min(ends.first, last_call), last_call)
        queue.discard(files)
        return ends.ranges() if calls else []


class _Ends:
    """The End of many jobs, as few ranges: between two that are far apart, this host may not have been in control.

    :param last_call: when the hook was last called, in epoch seconds; the latest End of an entry without one.
    """

    def __init__(self, last_call: int) -> None:
        self._last_call = last_call
        self._lacks_end = False
        self._parts: dict[int, Range] = {}  # one for each period of FAR_APART_SECONDS

    @property
    def first(self) -> int:
        return min(part.start for part in self._parts.values())

    def note(self, entries: Iterable[QueueEntry]) -> Iterator[QueueEntry]:
        """Yields the entries, and adds the End of each."""
        for entry in entries:
            end = entry.end or self._last_call
            self._lacks_end = self._lacks_end or entry.end is None
            part = self._parts.setdefault(end // FAR_APART_SECONDS, Range(end, end))
            if not part.start <= end <= part.end:
                self._parts[end // FAR_APART_SECONDS] = Range(min(part.start, end), max(part.end, end))
            yield entry

    def ranges(self) -> list[Range]:
        """The ranges, in order; the newest extends to the last call."""
        found: list[Range] = []
        for part in sorted(self._parts.values()):
            if found and part.start - found[-1].end < FAR_APART_SECONDS:
                found[-1] = Range(found[-1].start, part.end)
            else:
                found.append(part)
        *earlier, newest = found
        start = min(newest.start, self._last_call - WITHOUT_END_SECONDS) if self._lacks_end else newest.start
        return [*earlier, Range(start, max(newest.end, self._last_call))]


@contextmanager
def open_spool(
    folder: Path,
    *,
    complain: Callable[[ExporterError], None],
    dry_run: bool = False,
    alone: bool = False,
    instance: str = "",
) -> Iterator[Spool]:
    """Opens a spool for reading and writing.

    :param complain: called for each line or file of the queue that is skipped.
    :param dry_run: finally rolls back everything written to the ledger.
    :param alone: takes the lock that allows a single run.
    :param instance: the instance that uses it; empty for the host's default instance.
    :raises SpoolError: if the spool can't be used.
    :raises Busy: if another run holds the lock.
    """
    step_down(folder)
    check_spool(folder)
    if alone:
        claim_for_host(folder, os.uname().nodename, time.time(), instance)
    with run_lock(folder) if alone else nullcontext():
        path = folder / LEDGER_NAME
        ledger, rebuilt = open_ledger(path, alone=alone)
        if rebuilt:
            logger.warning("%s", rebuilt)
        try:
            with ledger.rehearsal() if dry_run else nullcontext():
                yield Spool(Queue(folder, complain=complain), ledger)
        except LedgerDamaged as error:
            # Damage deep in the file is noticed only when that part is read. The next run starts a new file.
            if alone:
                ledger.close()
                error.hint = f"it was set aside as {put_aside(path)}; the next reconcile replays the whole window"
            raise
        finally:
            ledger.close()


@contextmanager
def look_at_ledger(folder: Path) -> Iterator[Ledger]:
    """Opens a spool's ledger only for reading, even during a run.

    :raises SpoolError: if the spool is missing or can't be read.
    """
    step_down(folder)
    if not os.access(folder, os.R_OK | os.X_OK):
        if os.access(folder.parent, os.X_OK) and not folder.exists():
            hint = "install.sh creates it, and `check` shows what is missing"
            raise SpoolError(f"there is no spool {folder}", hint=hint)
        raise SpoolError(f"the spool {folder} can't be read", hint="run as root or as the Slurm user")
    ledger = view_ledger(folder / LEDGER_NAME)
    try:
        yield ledger
    finally:
        ledger.close()
