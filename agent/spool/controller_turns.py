"""Turns: only one controller of a cluster sends at a time.

The dashboard reads a year's file, adds to it and writes it back without a lock: if two hosts send in the same second,
one overwrites the records of the other. All controllers share slurmctld's StateSaveLocation, so the lock file is in a
folder there. It is a POSIX lock, which works across hosts on NFS, Lustre (mounted with flock), GPFS, CephFS, GFS2 and
OCFS2.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager, suppress
from typing import Callable, Iterator

from agent.errors import DashboardUnreachable
from agent.logger import Logger
from agent.spool.shared_folder import SharedFolder

LOCK_NAME = "turns.lock"
TURN_POLL_SECONDS = 0.1
#: After its turn a run leaves the others this long to take theirs, so that a polling flush gets in between the batches
#: of a reconcile.
YIELD_SECONDS = 0.3
#: Longer than any POST with its retries. A lock held for longer is stuck, and never sending would be worse.
LONGEST_TURN_SECONDS = 600.0

logger = Logger(__name__)


class Turns:
    """The turns of one run.

    :param folder: the folder that all controllers share.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: SharedFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = folder.path / LOCK_NAME
        #: Why this run had to send without a turn; empty if it did not.
        self.failure = ""
        #: Whether this run has had a turn.
        self.taken = False
        self._folder = folder
        self._clock = clock
        self._sleep = sleep
        self._not_before = clock()
        self._kept: int | None = None  # the lock of a turn that lasts
        self._unanswered = 0  # records of requests without an answer

    @contextmanager
    def turn(self, records: int = 1) -> Iterator[None]:
        """Keeps other controllers from sending. If no turn can be had, logs a warning and lets this run send anyway.

        A request without an answer does not end the turn, as the dashboard may still be processing it. The turn lasts
        until it has answered for as many records, which takes about as long, or until :meth:`end`.

        :param records: how many are sent.
        """
        file, self._kept = self._kept, None
        if file is None and not self.failure:
            file = self._take()
        answered = max(records, 1)
        try:
            yield
        except DashboardUnreachable as error:
            answered = 0
            if error.overwhelmed:
                self._unanswered = max(self._unanswered, records)
            raise
        finally:
            self._unanswered = max(self._unanswered - answered, 0)
            if self._unanswered:
                self._kept = file
            else:
                self._give_back(file)

    def end(self) -> None:
        """Ends a turn that lasts."""
        file, self._kept = self._kept, None
        self._unanswered = 0
        self._give_back(file)

    def _take(self) -> int | None:
        """The locked file; None if this run has to send without a turn."""
        try:
            file = self._folder.ask(self._open, undo=os.close)
            try:
                self._wait_for_lock(file)
            except OSError:
                self._close(file)
                raise
        except OSError as error:
            self.failure = f"cannot take turns with the other controllers using {self.path}: {error.strerror or error}"
            logger.warning("%s; see docs/controllers.md", self.failure)
            return None
        self.taken = True
        return file

    def _wait_for_lock(self, file: int) -> None:
        self._sleep(max(self._not_before - self._clock(), 0))
        deadline = self._clock() + LONGEST_TURN_SECONDS
        while not self._try_lock(file):
            if self._clock() >= deadline:
                held = f"another controller has held it for {LONGEST_TURN_SECONDS:.0f} s"
                raise OSError(errno.ETIMEDOUT, held)
            self._sleep(TURN_POLL_SECONDS)

    def _try_lock(self, file: int) -> bool:
        """Whether the lock could be taken now."""
        try:
            self._folder.ask(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB), undo=lambda _: os.close(file))
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return False
            raise
        return True

    def _give_back(self, file: int | None) -> None:
        if file is not None:
            self._close(file)
            self._not_before = self._clock() + YIELD_SECONDS

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _close(self, file: int) -> None:
        """Releases the lock. If that hangs, the end of the process releases it."""
        with suppress(OSError):
            self._folder.ask(lambda: os.close(file))
