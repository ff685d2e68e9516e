"""When a queued job is asked for again."""

from __future__ import annotations

from agent.spool.waiting import LONGEST_WAIT_SECONDS, attempts_within, record_delay


def test_retries_become_less_frequent() -> None:
    """After 1, 2, 4 ... seconds, finally every hour."""
    assert [1.0, 2.0, 4.0, 8.0] == [record_delay(attempts) for attempts in range(1, 5)]
    assert [LONGEST_WAIT_SECONDS] * 2 == [record_delay(13), record_delay(10**6)]


def test_the_number_of_calls_follows_from_the_time_they_take() -> None:
    """A limit in days becomes a number of attempts, which no change of the clock affects."""
    assert [1, 2, 4, 13, 13 + 24] == [attempts_within(seconds) for seconds in (0, 1, 7, 4095, 4095 + 24 * 3600)]
