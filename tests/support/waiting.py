"""Waiting for a condition, with a limit: no test sleeps for luck."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, *, limit_seconds: float = 30, pause_seconds: float = 0.05) -> T:
    """Calls *condition* until it answers something true, and returns that.

    :raises TimeoutError: naming *what* was awaited, when *limit_seconds* are over.
    """
    deadline = time.monotonic() + limit_seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit_seconds} s, last {answer!r}")
        time.sleep(pause_seconds)
