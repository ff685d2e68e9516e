"""A run of reconcile knows its range."""

from __future__ import annotations

from datetime import date

import pytest

from agent.errors import UsageError
from agent.localtime import Range, day_end, day_start
from agent.sync.window import window

TODAY = date(2024, 3, 20)
NOW = day_start(TODAY) + 12 * 3600.5


def days(first: date, last: date) -> Range:
    return Range(day_start(first), day_end(last))


def test_without_dates_the_collection_window_up_to_now() -> None:
    """The range begins at midnight that many days ago, so that each of its days is seen whole."""
    assert Range(day_start(date(2024, 3, 13)), int(NOW)) == window(7, None, None, NOW)


def test_both_dates_are_included() -> None:
    """The last day belongs to the range to its last second: the earlier exporter lost it."""
    assert days(date(2024, 1, 1), date(2024, 1, 31)) == window(7, date(2024, 1, 1), date(2024, 1, 31), NOW)


def test_one_day() -> None:
    """A range from a day to the same day is that day."""
    assert days(date(2024, 1, 1), date(2024, 1, 1)) == window(7, date(2024, 1, 1), date(2024, 1, 1), NOW)


def test_either_date_alone() -> None:
    """From a day up to now, or the window that ends with a day."""
    assert Range(day_start(date(2024, 1, 1)), int(NOW)) == window(7, date(2024, 1, 1), None, NOW)
    assert days(date(2024, 1, 24), date(2024, 1, 31)) == window(7, None, date(2024, 1, 31), NOW)


@pytest.mark.parametrize("last", [TODAY, date(2030, 1, 1), date.max])
def test_nothing_has_ended_in_the_future(last: date) -> None:
    """A last day of today, or later, means up to now."""
    assert int(NOW) == window(7, date(2024, 3, 19), last, NOW).end


@pytest.mark.parametrize("first", [date.min, date(1969, 12, 31), None])
def test_nothing_has_ended_before_1970(first: date | None) -> None:
    """An earlier first day means all jobs, and no millennia without any are walked; an earlier last day is harmless."""
    assert day_start(date(1970, 1, 1)) == window(7, first or date.min, None, NOW).start
    assert days(date(1970, 1, 1), date(1970, 1, 1)) == window(7, first, date.min, NOW)


def test_a_first_day_in_the_future_is_wrong() -> None:
    """An empty range is reported as a mistake."""
    with pytest.raises(UsageError, match="2024-03-21 is in the future"):
        window(7, date(2024, 3, 21), None, NOW)
