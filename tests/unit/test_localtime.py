"""The cluster's wall clock."""

from __future__ import annotations

from datetime import date
from typing import Callable

import pytest

from agent.localtime import day_end, day_start, local_day, local_text, parse_day

#: 01:00 UTC on the last Sunday of October 2023: Berlin's clocks go back from 3:00 to 2:00.
BACK = 1_698_541_200
#: 01:00 UTC on the last Sunday of March 2024: they go forward from 2:00 to 3:00.
FORWARD = 1_711_846_800


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (BACK - 1, "2023-10-29T02:59:59"),
        (BACK, "2023-10-29T02:00:00"),
        (FORWARD - 1, "2024-03-31T01:59:59"),
        (FORWARD, "2024-03-31T03:00:00"),
        (1_704_063_599, "2023-12-31T23:59:59"),
        (1_704_063_600, "2024-01-01T00:00:00"),
    ],
)
def test_wall_clock(instant: int, text: str) -> None:
    """Epoch seconds become the local wall clock on both sides of each change."""
    assert text == local_text(instant)


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("day", "hours"), [(date(2023, 10, 29), 25), (date(2024, 3, 31), 23), (date(2023, 12, 31), 24)]
)
def test_a_day_is_a_day_of_the_cluster(day: date, hours: int) -> None:
    """A day runs from local midnight to the second before the next, 23 to 25 hours later."""
    start, end = day_start(day), day_end(day)
    assert hours * 3600 == end + 1 - start
    assert [f"{day}T00:00:00", f"{day}T23:59:59"] == [local_text(start), local_text(end)]
    assert [day, day] == [local_day(start), local_day(end)]


def test_zone_with_half_an_hour(zone: Callable[[str], None]) -> None:
    """Offsets that are not whole hours come out right."""
    zone("Asia/Kolkata")
    assert "1970-01-01T05:30:07" == local_text(7)


def test_clock_changes_at_an_odd_minute(zone: Callable[[str], None]) -> None:
    """Newfoundland's went from 0:01 to 1:01 until 2011."""
    zone("America/St_Johns")
    assert ["2011-03-13T00:00:59", "2011-03-13T01:01:00"] == [local_text(at) for at in (1_299_987_059, 1_299_987_060)]


@pytest.mark.parametrize("text", ["", "2024-13-01", "01.02.2024", "2024-02-30", "yesterday", "2024-1-1x"])
def test_no_date(text: str) -> None:
    """Text that is not a date is refused."""
    with pytest.raises(ValueError, match=r"."):
        parse_day(text)


def test_date() -> None:
    """A date is read exactly as written."""
    assert date(2024, 1, 31) == parse_day("2024-01-31")
