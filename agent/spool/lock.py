"""The spool's two locks: one for the queue, shared with the hook, and one that allows a single run at a time.

Both use flock(2), like the hook's ``flock(1)``. The kernel releases a lock when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from agent.errors import Busy, ExporterError, SpoolError
from agent.spool.disk import explained
from agent.wording import span

RUN_LOCK = "agent.lock"
QUEUE_LOCK = "queue.lock"
LOCK_POLL_SECONDS = 0.005
#: systemd stops a reconcile after six hours, and a flush after one.
LONGEST_RUN_SECONDS = 6.5 * 3600


@contextmanager
def locked(lock: Path, wait_seconds: float, otherwise: ExporterError) -> Iterator[None]:
    """Holds a lock.

    :param otherwise: raised if another process holds it for ``wait_seconds``.
    :raises SpoolError: if the disk or the permissions don't allow it.
    """
    give_up_at = time.monotonic() + wait_seconds
    with explained(lock):
        file = _take(lock)
        while file is None and time.monotonic() < give_up_at:
            time.sleep(LOCK_POLL_SECONDS)
            file = _take(lock)
    if file is None:
        raise otherwise
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: a child forked meanwhile has it open, too
        os.close(file)


def _take(lock: Path) -> int | None:
    """The open file, locked; None if another process holds the lock or has just removed the file."""
    # Everyone who can open it can hold it, so only the owner may.
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with suppress(PermissionError):  # another user's file keeps its mode
        os.fchmod(file, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return file
    except BlockingIOError:
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


@contextmanager
def run_lock(spool: Path) -> Iterator[None]:
    """Held by the one run that may use the spool.

    :raises Busy: at once, if another run holds it.
    :raises SpoolError: if it has been held for longer than any run may take.
    """
    lock = spool / RUN_LOCK
    try:
        with locked(lock, 0, Busy("another run is in progress", hint=f"see which: fuser -v {lock}")):
            with explained(lock):
                os.utime(lock)  # shows since when it is held
            yield
    except Busy as error:
        held = held_seconds(spool)
        if held > LONGEST_RUN_SECONDS:
            words = f"{lock} has been held for {span(held)}, longer than a run may take: nothing is delivered meanwhile"
            hint = f"see who holds it: fuser -v {lock}; end it, unless it is a long replay that you started"
            raise SpoolError(words, hint=hint) from error
        raise


def held_seconds(spool: Path) -> float:
    """How long ago the run lock was last taken, in seconds."""
    try:
        return time.time() - (spool / RUN_LOCK).stat().st_mtime
    except OSError:
        return 0.0


def lock_holder(spool: Path, name: str = RUN_LOCK) -> int | None:
    """The process that holds the run lock, or the queue's; None if none does or the kernel does not show it.

    The lock itself is not touched: trying it would make a run fail that starts at the same moment.
    """
    try:
        inode = (spool / name).stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:  # 2: FLOCK  ADVISORY  WRITE 3259 fe:00:2163640 0 EOF
        _, kind, _, _, pid, place, *_ = line.split()
        if kind == "FLOCK" and place.endswith(f":{inode}"):
            return int(pid)
    return None
