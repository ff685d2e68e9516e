"""The range of time that a reconcile replays, and the dates with which a later one resumes it."""

from __future__ import annotations

from datetime import date, timedelta

from agent.errors import UsageError
from agent.localtime import Range, day_end, day_start, local_day, local_text

#: No job ended before it. An admin who means all of them may write 0001-01-01.
EARLIEST_DAY = date(1970, 1, 1)


def window(days: int, first: date | None, last: date | None, now: float) -> Range:
    """The range that reconcile replays, from the beginning of the first local day to the end of the last.

    Days before :data:`EARLIEST_DAY` and after today are left out.

    :param days: the collection window; without ``first`` the range begins this many days before ``last``.
    :param now: epoch seconds; nothing has ended after it.
    :raises UsageError: if the range is in the future.
    """
    today = local_day(now)
    if first and first > today:
        raise UsageError(f"--start-date {first} is in the future", hint=f"today is {today}")
    end = max(min(last or today, today), EARLIEST_DAY)
    start = max(first or end - timedelta(days=days), EARLIEST_DAY)
    return Range(day_start(start), min(day_end(end), int(now)))


def how_to_resume(wanted: Range, done_to: int, now: float) -> str:
    """The dates with which an interrupted range is resumed; an incomplete day is repeated from its beginning.

    :param done_to: epoch seconds up to which the range was replayed.
    :param now: epoch seconds.
    """
    if done_to < wanted.start:
        return "no part of the range was completed"
    dates = f"--start-date {local_day(done_to + 1)}"
    if local_day(wanted.end) < local_day(now):
        dates += f" --end-date {local_day(wanted.end)}"
    return f"done up to {local_text(done_to)}; resume with {dates}"
