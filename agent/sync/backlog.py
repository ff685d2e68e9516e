"""Which times are worth a walk, where many jobs wait."""

from __future__ import annotations

from agent.jobs.verdict import SLACK_SECONDS
from agent.localtime import Range
from agent.slurm.sacct import IDS_PER_CALL
from agent.spool.ledger import Ledger
from agent.sync.slices import FIRST_SECONDS, ROWS_PER_SLICE, next_slice

#: More jobs than this are worth a walk, and of those that ended in a slice more than this are worth its call.
MANY_JOBS = 3 * IDS_PER_CALL
MANY_IN_A_SLICE = IDS_PER_CALL
#: So much of time is rather walked over than left out, as then a call of its own looks for earlier runs there.
CLOSE_SECONDS = 3 * 3600


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
        behind, seconds = (done.end, done.end - done.start + 1) if done else (self._known_to, FIRST_SECONDS)
        rows = rows if done else ROWS_PER_SLICE
        while True:
            ends = self._ledger.waiting.due_ends(self._now, after=behind if done else 0)
            if not ends:
                return None
            # The hook's END and the accounting's End may differ by a second.
            start = max(ends.start - SLACK_SECONDS, behind + 1 if done else 0)
            if 0 < start - behind <= CLOSE_SECONDS:
                start = behind + 1
            part = next_slice(Range(start - seconds, start - 1), rows, ends.end + SLACK_SECONDS)
            waiting = self._ledger.waiting.count_due(self._now, ended=part) if part else 0
            if part is None or MANY_IN_A_SLICE < waiting <= ROWS_PER_SLICE:
                return part
            if waiting > ROWS_PER_SLICE:  # that many rows at least
                return Range(part.start, part.start + (part.end - part.start) * ROWS_PER_SLICE // waiting)
            done, behind, rows = part, part.end, ROWS_PER_SLICE
