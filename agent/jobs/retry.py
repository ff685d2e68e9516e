"""When a queued job whose record is not there yet is asked for again. Pure."""

from __future__ import annotations

#: It is after 1, 2, 4 ... seconds, at last every hour.
LONGEST_WAIT_SECONDS = 3600.0


def record_delay(attempts: int) -> float:
    """Seconds until a queued job is asked for again.

    :param attempts: how often it was asked for in vain, from 1.
    """
    return float(min(2.0 ** min(attempts - 1, 30), LONGEST_WAIT_SECONDS))


def attempts_within(seconds: float) -> int:
    """How often a queued job is asked for in vain until it has been asked for over so many seconds."""
    attempts, waited = 1, 0.0
    while waited < seconds:
        waited += record_delay(attempts)
        attempts += 1
    return attempts
