"""When to ask again for a queued job that has no accounting record yet. Pure."""

from __future__ import annotations

#: The delays grow from 1, 2, 4 ... seconds to an hour.
LONGEST_WAIT_SECONDS = 3600.0


def record_delay(attempts: int) -> float:
    """Seconds until the next attempt.

    :param attempts: the number of failed attempts so far, at least 1.
    """
    return float(min(2.0 ** min(attempts - 1, 30), LONGEST_WAIT_SECONDS))


def attempts_within(seconds: float) -> int:
    """The number of attempts that fit into this many seconds."""
    attempts, waited = 1, 0.0
    while waited < seconds:
        waited += record_delay(attempts)
        attempts += 1
    return attempts
