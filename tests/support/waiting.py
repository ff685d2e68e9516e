"""Waits for a condition, with a time limit, so that no test sleeps and hopes."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, *, limit_seconds: float = 30, pause_seconds: float = 0.05) -> T:
    """Calls *condition* until its result is true, and returns the result.

    :raises TimeoutError: after *limit_seconds*, naming *what* was awaited.
    """
    deadline = time.monotonic() + limit_seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit_seconds} s, last {answer!r}")
        time.sleep(pause_seconds)
