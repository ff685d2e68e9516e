"""The earlier runs of requeued and resized jobs, wherever they ended: learnt from sacct once, then remembered.

Asking for each such job by its ID would cost a reconcile as much again as everything else.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Sequence

from agent.ledger import Ledger
from agent.records import CONTINUED_STATES, REQUEUEABLE_STATES, Run
from agent.sacct import GOES_ON_STATES, Slurm
from agent.slices import Range, first_slice, next_slice

#: Rows whose job goes on, or may have gone on, in a newer one.
GOES_ON = CONTINUED_STATES | REQUEUEABLE_STATES
#: How long before a range the earlier runs of the jobs that ended in it are looked for.
LOOKBACK_SECONDS = 90 * 86_400
KNOWN_FROM = "requeued_known_from"
KNOWN_TO = "requeued_known_to"


class EarlierRuns:
    """What the ledger remembers of them, and from when to when that is all there are."""

    def __init__(self, ledger: Ledger, slurm: Slurm) -> None:
        self._ledger = ledger
        self._slurm = slurm

    def learn(self, wanted: Range) -> None:
        """Finds those that ended before the range, as far as they are not known yet.

        :raises SlurmUnreachable: where sacct does not answer.
        """
        known_from, known_to = self._known()
        earliest = wanted.start - LOOKBACK_SECONDS
        since = int(known_to) if known_from <= earliest <= known_to else earliest
        for rows in self._look_back(Range(max(since, 0), wanted.start - 1)):
            self.keep(rows)

    def keep(self, runs: Iterable[Run]) -> None:
        """Remembers those of some runs whose job goes on."""
        with self._ledger.transaction():
            self._ledger.add_earlier_runs(run for run in runs if run.state in GOES_ON)

    def of(self, raw_ids: Sequence[int]) -> dict[int, list[Run]]:
        """What is remembered of some raw IDs."""
        return self._ledger.earlier_runs(raw_ids)

    def note_done(self, wanted: Range) -> None:
        """Writes down that all in a range are remembered, so that the next run need not look back."""
        known_from, known_to = self._known()
        if wanted.end <= known_to:
            return
        joined = known_from <= wanted.start - LOOKBACK_SECONDS <= known_to
        with self._ledger.transaction():
            if not joined:
                self._ledger.set_fact(KNOWN_FROM, wanted.start - LOOKBACK_SECONDS)
            self._ledger.set_fact(KNOWN_TO, wanted.end)

    def _look_back(self, wanted: Range) -> Iterator[list[Run]]:
        part = first_slice(wanted)
        while part:
            rows = list(self._slurm.ask_window(*part, GOES_ON_STATES).answer())
            yield rows
            # Few rows have such a state, so that few long slices do.
            part = next_slice(part, len(rows), wanted.end, longest=LOOKBACK_SECONDS)

    def _known(self) -> tuple[float, float]:
        return self._ledger.fact(KNOWN_FROM), self._ledger.fact(KNOWN_TO)


def note_forgotten(ledger: Ledger, *, before: float) -> None:
    """Writes down that what ended before an instant is not remembered any more."""
    ledger.set_fact(KNOWN_FROM, max(ledger.fact(KNOWN_FROM), before))
