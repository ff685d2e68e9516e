"""When to try again."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dashboard.request_retry import LONGEST_DELAY_SECONDS, parse_retry_after, request_delay


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_delays_double_and_are_bounded(attempt: int, dice: float) -> None:
    """Each delay lies between half and one and a half times its doubled base, and none is endless."""
    base = min(2.0 ** (attempt - 1), LONGEST_DELAY_SECONDS)
    assert base * 0.5 <= request_delay(attempt, dice) <= base * 1.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), (" 7 ", 7.0), ("", 0.0), ("soon", 0.0), ("-5", 0.0), ("1.5", 1.0), ("²", 0.0), ("9, 9", 9.0)],
)
def test_retry_after_in_seconds(text: str, seconds: float) -> None:
    """A number is a number of seconds; anything else asks for no delay."""
    assert seconds == parse_retry_after(text, 0.0)


def test_a_retry_after_that_is_a_date() -> None:
    """A date counts from now, and one in the past asks for nothing."""
    text = formatdate(1_700_000_100, usegmt=True)
    assert [100.0, 0.0] == [parse_retry_after(text, 1_700_000_000), parse_retry_after(text, 1_700_000_200)]


@given(st.text(max_size=40))
def test_any_header_is_harmless(text: str) -> None:
    """Whatever a proxy writes there, it is a time that is not negative."""
    assert parse_retry_after(text, 1_700_000_000) >= 0
