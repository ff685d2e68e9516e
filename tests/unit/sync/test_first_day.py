"""The first day: jobs that ended before the hook's first call do not count as missed, and the history begins."""

from __future__ import annotations

import pytest

from agent.spool.facts import HISTORY_SINCE, HISTORY_UNTIL
from agent.spool.ledger import Ledger
from agent.spool.run_history import FIRST_HOUR_SECONDS
from tests.support.rows import NOON
from tests.unit.sync.test_reconcile import HOUR, Site, run_at


def test_jobs_before_the_first_call_are_not_missed(ledger: Ledger) -> None:
    """They are delivered, and count neither for coverage nor as evidence of a silent hook."""
    first_call = NOON + 12 * HOUR
    ledger.history.add_calls(1, first_call, first_call)
    ends = [NOON, NOON + 11 * HOUR, first_call, first_call + HOUR]
    site = Site(ledger, *(run_at(end, job) for job, end in enumerate(ends, 1)))
    tally = site.reconcile(hook_due=ledger.history.hook_due())
    assert (4, 4, 2, first_call + HOUR) == (tally.jobs, len(site.sent()), tally.missed, tally.missed_end)
    assert {2} == {*tally.jobs_by_day.values()}


def test_a_new_installation_has_an_hour_to_be_wired(ledger: Ledger) -> None:
    """Jobs that end later and were not queued are missed, so that a hook that is never called is reported."""
    ledger.history.begin(NOON)
    ledger.history.begin(NOON + 5 * HOUR)  # a later run is not the first
    assert NOON + FIRST_HOUR_SECONDS == ledger.history.hook_due()
    site = Site(ledger, run_at(NOON + HOUR - 1, 1), run_at(NOON + HOUR, 2))
    assert 1 == site.reconcile(hook_due=ledger.history.hook_due()).missed


def test_the_first_call_is_remembered_permanently(ledger: Ledger) -> None:
    """Later ones, even of jobs that ended earlier, do not move it."""
    ledger.history.begin(NOON)
    for call in (NOON + 3 * HOUR, NOON + 9 * HOUR, NOON + 2 * HOUR):
        ledger.history.add_calls(1, call, call)
    assert NOON + 3 * HOUR == ledger.history.hook_due()


@pytest.mark.parametrize(
    ("ranges", "history"),
    [
        ([(10, 20)], (10, 20)),
        ([(10, 20), (14, 24)], (10, 24)),  # tomorrow's window
        ([(10, 20), (21, 30)], (10, 30)),  # without a gap
        ([(10, 20), (1, 9)], (1, 20)),  # the past that joins on
        ([(10, 20), (1, 30)], (1, 30)),
        ([(10, 20), (12, 15)], (10, 20)),
        ([(10, 20), (1, 8)], (10, 20)),  # a year by itself
        ([(10, 20), (23, 30)], (23, 30)),  # after a long outage
    ],
)
def test_how_far_the_history_reaches(ledger: Ledger, ranges: list[tuple[int, int]], history: tuple[int, int]) -> None:
    """Only what was reconciled without a gap up to now is called complete."""
    for start, end in ranges:
        ledger.history.extend_history(start, end)
    assert history == (ledger.facts.get(HISTORY_SINCE), ledger.facts.get(HISTORY_UNTIL))
