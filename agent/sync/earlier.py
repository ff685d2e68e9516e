"""The earlier runs of requeued and resized jobs, wherever they ended: read from sacct once, then remembered.

Asking for each such job by its ID would cost a reconcile as much again as everything else.
"""

from __future__ import annotations

import logging
from typing import Iterable, Sequence

from agent.jobs.job import LOOKBACK_SECONDS, Runs
from agent.jobs.run import MAY_CONTINUE_STATES, Run
from agent.localtime import Range, local_day
from agent.slurm.sacct import GOING_ON, Sacct
from agent.spool.ledger import Ledger
from agent.sync.slices import cover

#: slurmctld reports to slurmdbd in order, give or take: this much is read again.
LATE_SECONDS = 3600
#: The facts in which the ledger keeps from when to when all such rows are remembered.
KNOWN_FROM = "requeued_known_from"
KNOWN_TO = "requeued_known_to"

logger = logging.getLogger(__name__)


class EarlierRuns:
    """What the ledger remembers of them, and of which time that is all there are."""

    def __init__(self, ledger: Ledger, sacct: Sacct) -> None:
        self._ledger = ledger
        self._sacct = sacct
        self._known = Range(int(ledger.journal.fact(KNOWN_FROM)), int(ledger.journal.fact(KNOWN_TO)) - LATE_SECONDS)

    @property
    def known_to(self) -> int:
        """The last second (epoch) of the time of which all are remembered."""
        return self._known.end

    def reach(self, start: int) -> None:
        """Reads those that ended within :data:`LOOKBACK_SECONDS` before an instant, as far as they are not known.

        A slurmdbd with a MaxQueryTimeRange of hours needs a thousand calls for that: what an interrupted run has read
        is not read again.

        :param start: epoch seconds.
        :raises SlurmUnreachable: where sacct does not answer.
        """
        since = max(start - LOOKBACK_SECONDS, 0)
        if not self._known.start <= since <= self._known.end:
            # An hour more: the next walk begins that much before the end of this one.
            first = max(since - LATE_SECONDS, 0)
            self._known = Range(first, first - 1)
        # Few rows have such a state, so that few long slices do.
        plan = cover(Range(self._known.end + 1, start - 1), first=86_400, longest=LOOKBACK_SECONDS)
        part = plan(None, 0)
        is_told = False
        while part:
            call = self._sacct.ask_window(*part, GOING_ON)
            table = call.answer()
            if call.end < part.end and not is_told:
                is_told = True
                logger.info(
                    "Looking back from %s for earlier runs of requeued jobs, %d s at a time as slurmdbd allows",
                    local_day(part.start),
                    call.end - call.start + 1,
                )
            self.keep(table)
            self.known_up_to(call.end)
            self.save(max((run.end or 0 for run in table), default=0))
            part = plan(Range(call.start, call.end), table.rows)

    def known_up_to(self, end: int) -> None:
        """Notes that all that ended up to an instant is remembered, or is about to be."""
        self._known = self._known._replace(end=max(self._known.end, end))

    def keep(self, runs: Iterable[Run]) -> None:
        """Remembers those of some runs whose job goes on."""
        going_on = [run for run in runs if run.state in MAY_CONTINUE_STATES]
        if going_on:
            with self._ledger.transaction():
                self._ledger.earlier_runs.add(going_on)

    def of(self, raw_ids: Sequence[int]) -> dict[int, Runs]:
        """What is remembered of some raw IDs."""
        return self._ledger.earlier_runs.of(raw_ids)

    def save(self, newest_end: int) -> None:
        """Writes down of which time all are remembered, so that the next run need not look back.

        The clock may be wrong, and sacct may show nothing for lack of rights, so that goes no further than an End that
        was seen.
        """
        known_to = min(self._known.end, newest_end)
        if known_to > self._ledger.journal.fact(KNOWN_TO):
            with self._ledger.transaction():
                self._ledger.journal.set_fact(KNOWN_FROM, self._known.start)
                self._ledger.journal.set_fact(KNOWN_TO, known_to)


def note_forgotten(ledger: Ledger, *, before: float) -> None:
    """Writes down that what ended before an instant is not remembered any more."""
    ledger.journal.set_fact(KNOWN_FROM, max(ledger.journal.fact(KNOWN_FROM), before))
