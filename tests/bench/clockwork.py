"""Runs the blocking code of many agents on one virtual clock, each in a thread, one at a time."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import Callable


class Clockwork:
    """Wakes the worker that is due first, and advances the clock to that time. Nothing waits in real time."""

    def __init__(self, until: float) -> None:
        self.now = 0.0
        self._until = until
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, threading.Semaphore]] = []
        self._idle = threading.Semaphore(0)

    def clock(self) -> float:
        """Virtual seconds since the beginning."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets the other workers run for that long; called by a worker."""
        baton = threading.Semaphore(0)
        heapq.heappush(self._sleepers, (self.now + max(seconds, 0.0), next(self._order), baton))
        self._idle.release()
        baton.acquire()
        if self.now >= self._until:
            raise SystemExit  # ends the thread silently

    def start(self, work: Callable[[], None]) -> None:
        """Adds a worker, which starts at once and should soon sleep."""
        threading.Thread(target=self._run, args=(work,), daemon=True).start()
        self._idle.acquire()

    def run(self) -> None:
        """Runs the workers until the given time."""
        while self._sleepers:
            self.now, _, baton = heapq.heappop(self._sleepers)
            baton.release()
            self._idle.acquire()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except SystemExit:
            pass
        finally:
            self._idle.release()
