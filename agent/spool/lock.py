"""The spool's two locks: the queue's, which the hook takes, too, and the one that lets a single run work.

The hook's ``flock(1)`` and filelock take the same kernel lock. The kernel lets go of it when its holder dies.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from agent.errors import Busy, ExporterError
from agent.spool.disk import explained

RUN_LOCK = "agent.lock"
QUEUE_LOCK = "queue.lock"
POLL_SECONDS = 0.005


@contextmanager
def locked(lock: Path, wait_seconds: float, otherwise: ExporterError) -> Iterator[None]:
    """Holds a lock.

    :param otherwise: raised where another process has held it for so long.
    :raises SpoolError: where the disk or the permissions don't allow it.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415  # slow to load, and status takes no lock

    held = FileLock(str(lock))
    with explained(lock):
        try:
            held.acquire(wait_seconds, POLL_SECONDS)
        except Timeout:
            raise otherwise from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def run_lock(spool: Path) -> Iterator[None]:
    """Held by the one run that may work on the spool.

    :raises Busy: at once, where another run holds it.
    """
    lock = spool / RUN_LOCK
    with locked(lock, 0, Busy("another run is at work", hint=f"see which: fuser -v {lock}")):
        yield


def lock_holder(spool: Path, name: str = RUN_LOCK) -> int | None:
    """The process that holds the run lock, or the queue's, None where none does or the kernel does not tell.

    The lock itself is not touched: trying it would make a run fail that starts in the same instant.
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
