"""When a daily reconcile resends everything, and how far the last resend got."""

from __future__ import annotations

from typing import Callable

from agent.localtime import Range
from agent.spool.facts import RESEND_BEGAN, RESENT, RESENT_TO
from agent.spool.ledger import Ledger
from agent.sync.prepare import Resend


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

    def is_due(self) -> bool:
        """Whether this daily reconcile is one that resends everything."""
        since = self._clock() - self._facts.get(RESENT)
        # Timers are randomized, and clocks are set.
        return bool(self._days) and not 0 <= since < (self._days - 0.5) * 86_400

    def begin(self, began: float) -> Resend:
        """Records that a resend has begun, or continues one that was interrupted.

        :param began: epoch seconds.
        """
        first = self._facts.get(RESEND_BEGAN)
        if not 0 < first <= began:
            first = began
            with self._ledger.transaction():
                self._facts.set(RESEND_BEGAN, first)
        return Resend(self._facts.get(RESENT_TO), Range(int(first), int(began) - 1))

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
