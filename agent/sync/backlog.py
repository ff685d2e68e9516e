"""Decides which periods are worth a walk when many jobs wait."""

from __future__ import annotations

from agent.jobs.queue_verdict import END_SLACK_SECONDS
from agent.localtime import Range
from agent.slurm.sacct_argv import IDS_PER_CALL
from agent.spool.ledger import Ledger
from agent.sync.slices import FIRST_SECONDS, ROWS_PER_SLICE, next_slice

#: A walk is worth it for more waiting jobs than this, and a slice of it for more than this many that ended within it.
MANY_JOBS = 3 * IDS_PER_CALL
MANY_IN_A_SLICE = IDS_PER_CALL
#: A gap this short is walked, not skipped: skipping it would cost a separate call to look for earlier runs.
NOT_LEFT_OUT_SECONDS = 3 * 3600


class Backlog:
    """A plan that walks the periods in which many of the waiting jobs ended, and skips long gaps between them.

    :param now: epoch seconds; nothing has ended after it.
    :param known_to: up to when earlier runs are known, in epoch seconds; a short gap after it is not skipped.
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
        """The slice in which the next waiting job ended, whether or not it is worth a call; None after the last job.

        :param seconds: how long the slice with that number of rows was.
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
    """The beginning of a slice that has at least this many rows, cut to the usual number of rows."""
    if rows <= ROWS_PER_SLICE:
        return part
    return Range(part.start, part.start + (part.end - part.start) * ROWS_PER_SLICE // rows)
