"""How a range of time is cut into the slices that sacct is asked for one after the other. Pure.

Each call of sacct takes a quarter of a second before its first row, and it holds all rows in memory: 1.8 KB each. So
a slice is as long as the one before suggests for :data:`ROWS_PER_SLICE` rows: a busy day is cut finer. In quiet times
it is no longer than a day, as the first busy day after a quiet year must not come as one with those behind it; where
nothing at all had ended it may be a week, so that years in which there was no cluster take few calls.
"""

from __future__ import annotations

from typing import Callable, Optional

from agent.localtime import Range

ROWS_PER_SLICE = 30_000
#: Times with fewer rows a day are quiet.
FEW_ROWS_PER_DAY = ROWS_PER_SLICE // 2
FIRST_SECONDS = 6 * 3600
LONGEST_SECONDS = 2 * 86_400
LONGEST_QUIET_SECONDS = 86_400
LONGEST_EMPTY_SECONDS = 7 * 86_400
SHORTEST_SECONDS = 60
#: No slice is more than so many times as long as the one before, however quiet that was.
GROWTH = 4


#: Tells the slice behind one that had so many rows, or the first one of all; None at the end.
Plan = Callable[[Optional[Range], int], Optional[Range]]


def cover(wanted: Range, *, first: int = FIRST_SECONDS, longest: int | None = None) -> Plan:
    """The slices of a range.

    :param first: how many seconds the first one has.
    :param longest: how many seconds each may have, where the usual limit does not fit.
    """

    def plan(done: Range | None, rows: int) -> Range | None:
        if done:
            return next_slice(done, rows, wanted.end, longest=longest)
        return _slice(wanted.start, first, wanted.end)

    return plan


def next_slice(done: Range, rows: int, end: int, *, longest: int | None = None) -> Range | None:
    """The slice behind one that is done; None where the range ends with it.

    :param rows: how many rows the one before had.
    :param end: the last second of the range.
    :param longest: how many seconds it may have, where the usual limit does not fit.
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
