"""Which times are worth a walk, where many jobs wait."""

from __future__ import annotations

from agent.jobs.verdict import END_SLACK_SECONDS
from agent.localtime import Range
from agent.slurm.sacct import IDS_PER_CALL
from agent.spool.ledger import Ledger
from agent.sync.slices import FIRST_SECONDS, ROWS_PER_SLICE, next_slice

#: More jobs than this are worth a walk, and of those that ended in a slice more than this are worth its call.
MANY_JOBS = 3 * IDS_PER_CALL
MANY_IN_A_SLICE = IDS_PER_CALL
#: So much of time is rather walked over than left out, as then a call of its own looks for earlier runs there.
NOT_LEFT_OUT_SECONDS = 3 * 3600


class Backlog:
    """A plan to walk over the times at which many of the waiting jobs ended; what lies far between is left out.

    :param now: epoch seconds; nothing has ended after it.
    :param known_to: up to when earlier runs are known; what lies close behind it is not left out.
    """

    def __init__(self, ledger: Ledger, now: float, known_to: int) -> None:
        self._ledger = ledger
        self._now = now
        self._known_to = known_to

    def __call__(self, done: Range | None, rows: int) -> Range | None:
        """See :data:`agent.sync.slices.Plan`."""
        seconds = done.end - done.start + 1 if done else FIRST_SECONDS
        part = self._next_to(done, seconds, rows if done else ROWS_PER_SLICE)
        while part:
            waiting = self._ledger.waiting.count_due(self._now, ended=part)
            if waiting > MANY_IN_A_SLICE:
                return _shortened(part, waiting)
            part = self._next_to(part, seconds, ROWS_PER_SLICE)
        return None

    def _next_to(self, done: Range | None, seconds: int, rows: int) -> Range | None:
        """The slice in which the next of the waiting jobs ended, be it worth a call or not; None behind the last.

        :param seconds: how long the slice was that had so many rows.
        """
        ends = self._ledger.waiting.due_ends(self._now, after=done.end if done else 0)
        if not ends:
            return None
        # The hook's END and the accounting's End may differ by a second.
        first = max(ends.start - END_SLACK_SECONDS, done.end + 1 if done else 0)
        behind = done.end if done else self._known_to
        start = behind + 1 if 0 < first - behind <= NOT_LEFT_OUT_SECONDS else first
        return next_slice(Range(start - seconds, start - 1), rows, ends.end + END_SLACK_SECONDS)


def _shortened(part: Range, rows: int) -> Range:
    """As much of a slice as may have the rows of one, of a slice that has so many at least."""
    if rows <= ROWS_PER_SLICE:
        return part
    return Range(part.start, part.start + (part.end - part.start) * ROWS_PER_SLICE // rows)
