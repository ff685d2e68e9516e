"""The lock that lets one run at a time work on the spool, and who holds it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from filelock import FileLock, Timeout

from agent.errors import Busy
from agent.spool.disk import explained


@contextmanager
def run_lock(spool: Path) -> Iterator[None]:
    """Held by the one run that may work on the spool. The kernel lets go of it when the run dies.

    :raises Busy: at once, where another run holds it.
    """
    lock = spool / "agent.lock"
    try:
        with explained(lock), FileLock(str(lock), timeout=0):
            yield
    except Timeout as error:
        raise Busy("another run is at work", hint=f"see which: fuser -v {lock}") from error


def lock_holder(spool: Path, name: str = "agent.lock") -> int | None:
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
