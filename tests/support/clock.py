"""A clock without real waiting."""

from __future__ import annotations

import time


class Clock:
    """Epoch seconds, which advance only by sleeping.

    :param now: its initial time; by default the real time.
    """

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advances the clock."""
        self.now += seconds
        self.slept += seconds
