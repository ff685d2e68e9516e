"""The earlier runs of requeued and resized jobs, wherever they ended: learnt from sacct once, then remembered.

Asking for each such job by its ID would cost a reconcile as much again as everything else.
"""

from __future__ import annotations

from typing import Iterable, Sequence

from agent.jobs.run import CONTINUED_STATES, REQUEUEABLE_STATES, Run
from agent.localtime import Range
from agent.slurm.sacct import GOES_ON_STATES, Slurm
from agent.spool.ledger import Ledger
from agent.sync.slices import cover

#: Rows whose job goes on, or may have gone on, in a newer one.
GOES_ON = CONTINUED_STATES | REQUEUEABLE_STATES
#: How long before a job's last run its earlier runs are looked for.
LOOKBACK_SECONDS = 90 * 86_400
#: What slurmctld has to tell it tells slurmdbd in its order, give or take: only so much is looked at again.
LATE_SECONDS = 3600
KNOWN_FROM = "requeued_known_from"
KNOWN_TO = "requeued_known_to"


class EarlierRuns:
    """What the ledger remembers of them, and from when to when that is all there are."""

    def __init__(self, ledger: Ledger, slurm: Slurm) -> None:
        self._ledger = ledger
        self._slurm = slurm
        self._known_from = int(ledger.journal.fact(KNOWN_FROM))
        self.known_to = int(ledger.journal.fact(KNOWN_TO)) - LATE_SECONDS

    def reach(self, start: int) -> None:
        """Finds those that ended before an instant (epoch seconds), as far as they are not known yet.

        :raises SlurmUnreachable: where sacct does not answer.
        """
        since = max(start - LOOKBACK_SECONDS, 0)
        if not self._known_from <= since <= self.known_to:
            # An hour more: the next walk begins so much before the end of this one.
            self._known_from = max(since - LATE_SECONDS, 0)
            self.known_to = self._known_from - 1
        # Few rows have such a state, so that few long slices do.
        plan = cover(Range(self.known_to + 1, start - 1), first=86_400, longest=LOOKBACK_SECONDS)
        part = plan(None, 0)
        while part:
            answer = self._slurm.ask_window(*part, GOES_ON_STATES).answer()
            self.keep(answer)
            self.known_to = part.end
            part = plan(part, answer.rows)

    def keep(self, runs: Iterable[Run]) -> None:
        """Remembers those of some runs whose job goes on."""
        with self._ledger.transaction():
            self._ledger.earlier_runs.add(run for run in runs if run.state in GOES_ON)

    def of(self, raw_ids: Sequence[int]) -> dict[int, list[Run]]:
        """What is remembered of some raw IDs."""
        return self._ledger.earlier_runs.of(raw_ids)

    def save(self, newest_end: int) -> None:
        """Writes down from when to when all are remembered, so that the next run need not look back.

        The clock may be wrong, and sacct may show nothing for lack of rights: that is true up to an End that was seen.
        """
        known_to = min(self.known_to, newest_end)
        if known_to > self._ledger.journal.fact(KNOWN_TO):
            with self._ledger.transaction():
                self._ledger.journal.set_fact(KNOWN_FROM, self._known_from)
                self._ledger.journal.set_fact(KNOWN_TO, known_to)


def note_forgotten(ledger: Ledger, *, before: float) -> None:
    """Writes down that what ended before an instant is not remembered any more."""
    ledger.journal.set_fact(KNOWN_FROM, max(ledger.journal.fact(KNOWN_FROM), before))
