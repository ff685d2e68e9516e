"""Cuts a range of time into slices, for each of which sacct is called once. Pure.

A call of sacct takes a quarter of a second before its first row, and sacct holds all rows in memory, at 1.8 KB each.
So each slice is as long as the one before suggests for :data:`ROWS_PER_SLICE` rows, and a busy day is cut finer. In
quiet times a slice is at most a day long: the first busy day after a quiet year must not be read together with those
that follow. After an empty slice it may be a week, so that years before the cluster existed take few calls.
"""

from __future__ import annotations

from typing import Callable, Optional

from agent.localtime import Range

ROWS_PER_SLICE = 30_000
#: A period with fewer rows a day is quiet.
FEW_ROWS_PER_DAY = ROWS_PER_SLICE // 2
FIRST_SECONDS = 6 * 3600
LONGEST_SECONDS = 2 * 86_400
LONGEST_QUIET_SECONDS = 86_400
LONGEST_EMPTY_SECONDS = 7 * 86_400
SHORTEST_SECONDS = 60
#: A slice is at most this many times as long as the one before, however quiet that was.
GROWTH = 4


#: Returns the slice after the given one, which had this many rows, or the first slice; None at the end.
Plan = Callable[[Optional[Range], int], Optional[Range]]


def cover(wanted: Range, *, first: int = FIRST_SECONDS, longest: int | None = None) -> Plan:
    """A plan that covers a range.

    :param first: the length of the first slice, in seconds.
    :param longest: the longest slice, in seconds, instead of the usual limit.
    """

    def plan(done: Range | None, rows: int) -> Range | None:
        if done:
            return next_slice(done, rows, wanted.end, longest=longest)
        return _slice(wanted.start, first, wanted.end)

    return plan


def next_slice(done: Range, rows: int, end: int, *, longest: int | None = None) -> Range | None:
    """The slice after the one that is done; None if that was the last.

    :param rows: how many rows that one had.
    :param end: the last second of the range.
    :param longest: the longest slice, in seconds, instead of the usual limit.
    """
    seconds = done.end - done.start + 1
    longest = longest or _longest_behind(rows, seconds)
    wanted = seconds * ROWS_PER_SLICE // max(rows, 1)
    return _slice(done.end + 1, max(min(wanted, seconds * GROWTH, longest), SHORTEST_SECONDS), end)


def _longest_behind(rows: int, seconds: int) -> int:
    if not rows:
        return LONGEST_EMPTY_SECONDS
    return LONGEST_QUIET_SECONDS if rows * 86_400 < FEW_ROWS_PER_DAY * seconds else LONGEST_SECONDS


def _slice(start: int, seconds: int, end: int) -> Range | None:
    return Range(start, min(start + seconds - 1, end)) if start <= end else None
