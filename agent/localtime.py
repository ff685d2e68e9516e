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


class Range(NamedTuple):
    """The first and the last second of a range, both inclusive, in epoch seconds."""

    start: int
    end: int


def local_text(epoch_seconds: int) -> str:
    """The wall clock at an instant, without an offset: ``YYYY-MM-DDTHH:MM:SS``."""
    minute, second = divmod(epoch_seconds, 60)
    return f"{_minute_text(minute)}{second:02d}"


@lru_cache(maxsize=8192)
def _minute_text(minute: int) -> str:
    """Cached: offsets from UTC are whole minutes, so one text serves every second of a minute."""
    return time.strftime("%Y-%m-%dT%H:%M:", time.localtime(minute * 60))


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
