"""The earlier runs of requeued and resized jobs, wherever they ended: learnt from sacct once, then remembered.

Asking for each such job by its ID would cost a reconcile as much again as everything else.
"""

from __future__ import annotations

from typing import Iterable, Sequence

from agent.ledger import Ledger
from agent.records import CONTINUED_STATES, REQUEUEABLE_STATES, Run
from agent.sacct import GOES_ON_STATES, Slurm
from agent.slices import Range, cover

#: Rows whose job goes on, or may have gone on, in a newer one.
GOES_ON = CONTINUED_STATES | REQUEUEABLE_STATES
#: How long before a range the earlier runs of the jobs that ended in it are looked for.
LOOKBACK_SECONDS = 90 * 86_400
#: slurmctld may tell slurmdbd of an end so much later, where one of them was down: so much is looked at again.
LATE_SECONDS = 86_400
KNOWN_FROM = "requeued_known_from"
KNOWN_TO = "requeued_known_to"


class EarlierRuns:
    """What the ledger remembers of them, and from when to when that is all there are."""

    def __init__(self, ledger: Ledger, slurm: Slurm) -> None:
        self._ledger = ledger
        self._slurm = slurm

    def learn(self, since: int, until: int) -> None:
        """Finds those that ended in a time (epoch seconds, both included), as far as they are not known yet.

        :raises SlurmUnreachable: where sacct does not answer.
        """
        known_from, known_to = self._known()
        start = int(known_to) - LATE_SECONDS if known_from <= since <= known_to else since
        # Few rows have such a state, so that few long slices do.
        plan = cover(Range(max(start, 0), until), first=86_400, longest=LOOKBACK_SECONDS)
        part = plan(None, 0)
        while part:
            answer = self._slurm.ask_window(*part, GOES_ON_STATES).answer()
            self.keep(answer)
            part = plan(part, answer.rows)

    def keep(self, runs: Iterable[Run]) -> None:
        """Remembers those of some runs whose job goes on."""
        with self._ledger.transaction():
            self._ledger.add_earlier_runs(run for run in runs if run.state in GOES_ON)

    def of(self, raw_ids: Sequence[int]) -> dict[int, list[Run]]:
        """What is remembered of some raw IDs."""
        return self._ledger.earlier_runs(raw_ids)

    def note(self, since: int, until: int) -> None:
        """Writes down that all that ended in a time are remembered, so that the next run need not look back.

        The clock may be wrong, and sacct may show nothing for lack of rights: ``until`` is an end that was seen.
        """
        known_from, known_to = self._known()
        if until <= known_to:
            return
        with self._ledger.transaction():
            if not known_from <= since <= known_to:
                self._ledger.set_fact(KNOWN_FROM, since)
            self._ledger.set_fact(KNOWN_TO, until)

    def _known(self) -> tuple[float, float]:
        return self._ledger.fact(KNOWN_FROM), self._ledger.fact(KNOWN_TO)


def note_forgotten(ledger: Ledger, *, before: float) -> None:
    """Writes down that what ended before an instant is not remembered any more."""
    ledger.set_fact(KNOWN_FROM, max(ledger.fact(KNOWN_FROM), before))
