"""How a range of time is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.localtime import Range
from agent.sync.slices import (
    FEW_ROWS_PER_DAY,
    FIRST_SECONDS,
    GROWTH,
    LONGEST_EMPTY_SECONDS,
    ROWS_PER_SLICE,
    cover,
    next_slice,
)


def test_nothing_in_an_empty_range() -> None:
    """A range that ends before it starts has no slice."""
    assert cover(Range(10, 9))(None, 0) is None


def test_a_busy_slice_is_followed_by_a_finer_one() -> None:
    """Ten times the rows aimed at make the next slice a tenth as long."""
    done = Range(0, FIRST_SECONDS - 1)
    assert next_slice(done, 10 * ROWS_PER_SLICE, 10**9) == Range(FIRST_SECONDS, FIRST_SECONDS + FIRST_SECONDS // 10 - 1)


def test_a_quiet_slice_is_followed_by_a_longer_one() -> None:
    """However quiet it was, the next one grows by a bounded factor: the night before a rush must not cost memory."""
    done = Range(0, FIRST_SECONDS - 1)
    assert next_slice(done, 0, 10**9) == Range(FIRST_SECONDS, FIRST_SECONDS + GROWTH * FIRST_SECONDS - 1)


def test_how_long_a_slice_may_be() -> None:
    """A week behind a week without a job, a day in quiet times, and in busy ones two days at most."""
    week = Range(0, 7 * 86_400 - 1)
    busy = 7 * FEW_ROWS_PER_DAY
    parts = [next_slice(week, rows, 10**9) for rows in (0, 1, busy - 1, busy, 2 * busy)]
    assert [7, 1, 1, 2, 1] == [(part.end - part.start + 1) / 86_400 for part in parts if part]


@given(st.integers(0, 2 * 10**9), st.integers(0, 400 * 86_400), st.data())
def test_slices_cover_a_range_without_gap_or_overlap(start: int, seconds: int, data: st.DataObject) -> None:
    """Whatever the rows of each, the slices are the range: each second in exactly one of them."""
    wanted = Range(start, start + seconds)
    plan = cover(wanted)
    part, expected_start = plan(None, 0), start
    for _ in range(60):
        if part is None:
            break
        assert expected_start == part.start
        assert part.start <= part.end <= wanted.end
        assert part.end - part.start < LONGEST_EMPTY_SECONDS
        expected_start = part.end + 1
        part = plan(part, data.draw(st.integers(0, 10 * ROWS_PER_SLICE)))
    if part is None:
        assert wanted.end + 1 == expected_start
