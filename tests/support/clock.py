"""A clock that a test need not wait for."""

from __future__ import annotations

import time


class Clock:
    """Epoch seconds, which advance when somebody sleeps.

    :param now: where it begins; at the real time where nothing is given.
    """

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets the time pass."""
        self.now += seconds
        self.slept += seconds
