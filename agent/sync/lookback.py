"""The earlier runs of requeued and resized jobs, whenever they ended: read from sacct once, then remembered.

Asking for each such job by its ID would double the cost of a reconcile.
"""

from __future__ import annotations

from typing import Iterable, Sequence

from agent.jobs.job import LOOKBACK_SECONDS, Runs
from agent.jobs.run import MAY_CONTINUE_STATES, Run
from agent.localtime import Range, local_day
from agent.logger import Logger
from agent.slurm.sacct import Sacct
from agent.slurm.sacct_argv import GOING_ON
from agent.spool.ledger import Ledger
from agent.sync.slices import cover

#: slurmctld reports to slurmdbd roughly in order; this much is read again.
LATE_SECONDS = 3600
#: The ledger's facts for the period whose earlier runs are all remembered.
KNOWN_FROM = "requeued_known_from"
KNOWN_TO = "requeued_known_to"

logger = Logger(__name__)


class Lookback:
    """The earlier runs in the ledger, and the period for which they are complete."""

    def __init__(self, ledger: Ledger, sacct: Sacct) -> None:
        self._ledger = ledger
        self._sacct = sacct
        self._known = Range(int(ledger.facts.get(KNOWN_FROM)), int(ledger.facts.get(KNOWN_TO)) - LATE_SECONDS)

    @property
    def known_to(self) -> int:
        """The last second (epoch) of the period that is complete."""
        return self._known.end

    def reach(self, start: int) -> None:
        """Reads the runs that ended within :data:`LOOKBACK_SECONDS` before ``start``, unless they are known already.

        A slurmdbd with a MaxQueryTimeRange of hours needs a thousand calls for this, so an interrupted run resumes
        where it stopped.

        :param start: epoch seconds.
        :raises SlurmUnreachable: if sacct does not answer.
        """
        since = max(start - LOOKBACK_SECONDS, 0)
        if not self._known.start <= since <= self._known.end:
            # One hour more: the next walk begins that long before the end of this one.
            first = max(since - LATE_SECONDS, 0)
            self._known = Range(first, first - 1)
        # Few rows have such a state, so a few long slices are enough.
        plan = cover(Range(self._known.end + 1, start - 1), first=86_400, longest=LOOKBACK_SECONDS)
        part = plan(None, 0)
        is_logged = False
        while part:
            call = self._sacct.ask_window(*part, GOING_ON)
            table = call.answer()
            if call.end < part.end and not is_logged:
                is_logged = True
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
        """Notes that everything that ended up to ``end`` is remembered, or is about to be."""
        self._known = self._known._replace(end=max(self._known.end, end))

    def keep(self, runs: Iterable[Run]) -> None:
        """Remembers the runs whose job continues, or may continue."""
        may_continue = [run for run in runs if run.state in MAY_CONTINUE_STATES]
        if may_continue:
            with self._ledger.transaction():
                self._ledger.earlier_runs.add(may_continue)

    def of(self, raw_ids: Sequence[int]) -> dict[int, Runs]:
        """The remembered runs of these raw IDs."""
        return self._ledger.earlier_runs.of(raw_ids)

    def save(self, newest_end: int) -> None:
        """Stores the period that is complete, so that the next run need not look back.

        It ends at the newest End seen at the latest: the clock may be wrong, and sacct shows nothing without the
        necessary rights.
        """
        known_to = min(self._known.end, newest_end)
        if known_to > self._ledger.facts.get(KNOWN_TO):
            with self._ledger.transaction():
                self._ledger.facts.set(KNOWN_FROM, self._known.start)
                self._ledger.facts.set(KNOWN_TO, known_to)


def note_forgotten(ledger: Ledger, *, before: float) -> None:
    """Records that runs that ended before this time are no longer remembered."""
    ledger.facts.set(KNOWN_FROM, max(ledger.facts.get(KNOWN_FROM), before))
