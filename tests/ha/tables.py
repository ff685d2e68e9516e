"""Measurements on a pair, a federation and single hosts, as Markdown tables for docs/controllers.md."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Iterator, Sequence

from tests.ha.failovers import KINDS, drain, fail_over
from tests.ha.load import Submitting
from tests.ha.sites import Pair
from tests.ha.truth import Comparison, compare, percentile

FLUSH_SECONDS = 5.0
#: Seconds between two looks at status meanwhile.
LOOK_SECONDS = 7.0


def failovers(pair: Pair, rounds: int, *, seconds: float, kinds: Sequence[str] = tuple(KINDS)) -> Comparison:
    """Runs jobs continuously, a flush every few seconds on both hosts, and fail-overs; then waits until idle.

    :param seconds: between two fail-overs, and for which the other host is in control.
    """
    with flushing(pair), Submitting(pair.nodes):
        time.sleep(seconds)
        for number in range(rounds):
            fail_over(pair, kinds[number % len(kinds)], seconds=seconds)
            time.sleep(seconds)
    drain(pair)
    with flushing(pair):
        time.sleep(6 * FLUSH_SECONDS)
    return compare(pair, pair.cluster)


@contextmanager
def flushing(pair: Pair) -> Iterator[None]:
    """Makes both hosts flush like their timers while the block runs."""
    for exporter in pair.exporters.values():
        exporter.flush_every(FLUSH_SECONDS)
    try:
        yield
    finally:
        for exporter in pair.exporters.values():
            exporter.stop()


def describe(comparison: Comparison) -> list[object]:
    """A row: jobs, half written, lost, lost and half written, sent wrong, by several, delays."""
    delays = comparison.delays
    return [
        comparison.jobs,
        comparison.half_written,
        len(comparison.lost),
        len(comparison.lost_half),
        comparison.sent_wrong,
        comparison.sent_by_several,
        f"{percentile(delays, 0.5):.0f} s",
        f"{percentile(delays, 0.99):.0f} s",
        sum(delay > 60 for delay in delays),
    ]


HEAD = ["", "jobs", "half written", "lost", "half written, to come", "wrong", "by both", "median", "99 %", "> 60 s"]
