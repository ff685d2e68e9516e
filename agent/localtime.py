"""The cluster's wall clock: days as an admin writes them, times as the dashboard expects them. Pure.

Everything else is in epoch seconds, so that the hour that repeats in autumn moves no job. The zone is the host's:
the command line drops a ``TZ`` that the caller's shell has set.
"""

from __future__ import annotations

import time
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

QUARTER_SECONDS = 900
DAY_SECONDS = 86_400
_TWO_DIGITS = tuple(f"{number:02d}" for number in range(60))


class Range(NamedTuple):
    """The first and the last second of a range, both inclusive, in epoch seconds."""

    start: int
    end: int


def local_text(epoch_seconds: int) -> str:
    """The wall clock at an instant, without an offset: ``YYYY-MM-DDTHH:MM:SS``."""
    quarter, seconds = divmod(epoch_seconds, QUARTER_SECONDS)
    hour, first_minute = _hour_of_quarter(quarter)
    if not hour:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(epoch_seconds))
    minutes, second = divmod(seconds, 60)
    return f"{hour}{_TWO_DIGITS[first_minute + minutes]}:{_TWO_DIGITS[second]}"


@lru_cache(maxsize=8192)
def _hour_of_quarter(quarter: int) -> tuple[str, int]:
    """The text up to the hour, and the minute, valid for a whole quarter of an hour.

    The text is empty if they are not: Newfoundland changed its clocks one minute after midnight until 2011.
    """
    first, last = (time.localtime(quarter * QUARTER_SECONDS + seconds) for seconds in (0, QUARTER_SECONDS - 1))
    if first[:4] != last[:4] or last.tm_min - first.tm_min != QUARTER_SECONDS // 60 - 1:
        return "", 0
    return time.strftime("%Y-%m-%dT%H:", first), first.tm_min


def local_day(epoch_seconds: float) -> date:
    """The day at an instant."""
    return _day_of_quarter(epoch_seconds // QUARTER_SECONDS)


@lru_cache(maxsize=4096)
def _day_of_quarter(quarter: float) -> date:
    """Cached: offsets from UTC are whole quarters of an hour, so no day begins within one."""
    return date.fromtimestamp(quarter * QUARTER_SECONDS)


def day_start(day: date) -> int:
    """The first second of a day, in epoch seconds."""
    return int(time.mktime((day.year, day.month, day.day, 0, 0, 0, 0, 0, -1)))


def day_end(day: date) -> int:
    """The last second of a day, in epoch seconds. A day is 82,800 to 90,000 s long."""
    return day_start(day + timedelta(days=1)) - 1


def parse_day(text: str) -> date:
    """Parses ``YYYY-MM-DD``.

    :raises ValueError: for anything else.
    """
    return date(*time.strptime(text, "%Y-%m-%d")[:3])
