"""Other work that has to be done now and then during a long reconcile."""

from __future__ import annotations

import time
from typing import Callable

#: During a reconcile, newly queued jobs are delivered this often.
INTERLUDE_SECONDS = 60.0


class Interlude:
    """Does some work at intervals.

    :param work: does it.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() - self._last >= INTERLUDE_SECONDS

    def run(self) -> None:
        """Does the work."""
        self._work()
        self._last = time.monotonic()
