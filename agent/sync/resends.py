"""When a daily reconcile resends everything, and how far the last one that did so got."""

from __future__ import annotations

import math
from typing import Callable

from agent.spool.facts import RESEND_BEGAN, RESENT, RESENT_TO
from agent.spool.ledger import Ledger


class Resends:
    """The resends of one spool: every ``days``, in one run or continued by the next after an interruption.

    :param days: 0 for none.
    :param clock: epoch seconds.
    """

    def __init__(self, ledger: Ledger, days: int, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._facts = ledger.facts
        self._days = days
        self._clock = clock

    def due_after(self) -> float:
        """From which End on a daily reconcile resends unchanged jobs; on most days it resends none.

        :returns: epoch seconds; infinite unless a resend is due.
        """
        since = self._clock() - self._facts.get(RESENT)
        if not self._days or 0 <= since < (self._days - 0.5) * 86_400:  # timers are randomized, and clocks are set
            return math.inf
        return self._facts.get(RESENT_TO)

    def begin(self, began: float) -> float:
        """Records that a resend has begun; returns when the first run of it did.

        Interrupted runs and the one that completes them count as one.
        """
        first = self._facts.get(RESEND_BEGAN)
        if not 0 < first <= began:
            first = began
            with self._ledger.transaction():
                self._facts.set(RESEND_BEGAN, first)
        return first

    def reach(self, end: int) -> None:
        """Records how far the resend got, so that the next run can continue there."""
        with self._ledger.transaction():
            self._facts.set(RESENT_TO, end)

    def complete(self, began: float) -> None:
        """Records that everything was resent, and when that run began."""
        with self._ledger.transaction():
            self._facts.set(RESENT, began)
            self._facts.set(RESENT_TO, 0)
            self._facts.set(RESEND_BEGAN, 0)
