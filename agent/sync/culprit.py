"""Finds out why the dashboard refuses a batch: which records are at fault, or whether the dashboard is.

Either the dashboard names the records, or the batch is bisected: one bad record among n costs 2 x log2(n) requests. The
others are delivered along the way. Whether the dashboard accepts anything at all is found out by resending the last
record that it accepted.
"""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

from agent.dashboard.answer import refused_key
from agent.dashboard.client import Receiver
from agent.errors import BatchForbidden, BatchRefused, DashboardUnreachable
from agent.jobs.record import Record

#: If a dashboard that has not accepted anything yet refuses this many single records of a batch, or this many batches,
#: the fault is its own, and no more are tried.
MOST_UNPROVEN = 3
LOG_HINT = "see the dashboard's own log; everything is kept"

#: Sends records. Returns the refusal, or None if they were accepted.
Attempt = Callable[[Sequence[Record]], "BatchRefused | None"]


class KnownGood:
    """Knows whether the dashboard accepts records in this run."""

    def __init__(self, dashboard: Receiver, cluster: str) -> None:
        self._dashboard = dashboard
        self._cluster = cluster
        self._accepted: Record | None = None  # the last record that the dashboard accepted
        self._refusals = 0  # batches refused before it accepted any

    def __bool__(self) -> bool:
        return self._accepted is not None

    def accepted(self, record: Record) -> None:
        """Notes that the dashboard has accepted a record."""
        self._accepted = record

    def forget(self) -> None:
        """Forgets the record: after other deliveries it may be out of date, and must not be sent again."""
        self._accepted = None

    def has_enough(self, suspects: int) -> bool:
        """Whether that many refused single records are proof enough that the fault is the dashboard's."""
        return not self and suspects >= MOST_UNPROVEN

    def count_refusal(self, words: str) -> None:
        """Notes that a batch was refused.

        :raises DashboardUnreachable: if the dashboard has refused several, and accepted nothing.
        """
        if not self:
            self._refusals += 1
            if self._refusals > MOST_UNPROVEN:
                raise DashboardUnreachable(f"the dashboard refuses every record: {words}", hint=LOG_HINT)

    def confirm(self, refusal: BatchRefused) -> bool:
        """Resends the last accepted record, or an empty batch if there is none yet.

        :returns: whether the dashboard accepts records.
        :raises DashboardUnreachable: if it refuses that, too: the fault is its own.
        :raises KeyRefused: if it forbids that, too.
        """
        texts = [self._accepted.text] if self._accepted else []
        try:
            self._dashboard.submit(self._cluster, texts, tries=1)
        except BatchForbidden as error:
            raise refused_key(str(error)) from refusal
        except BatchRefused:
            raise DashboardUnreachable(f"the dashboard accepts nothing: {refusal}", hint=LOG_HINT) from refusal
        return bool(self)


class Budget:
    """Limits the number of requests that a run spends on searching."""

    def __init__(self, requests: int) -> None:
        self._left = requests

    def spend(self) -> bool:
        """Spends one request; False if none is left."""
        self._left -= 1
        return self._left >= 0


class Search:
    """One search.

    :param attempt: sends records.
    :param budget: once it is spent, the rest stays unsearched.
    :param has_enough: given the number of suspects, whether to stop searching.
    """

    def __init__(self, attempt: Attempt, budget: Budget, has_enough: Callable[[int], bool]) -> None:
        self.suspects: list[tuple[Record, str]] = []  # refused alone, or named; each with the error message
        self.unsearched: list[tuple[Sequence[Record], str]] = []  # parts of refused batches, and why
        self._attempt = attempt
        self._budget = budget
        self._has_enough = has_enough

    def look_into(self, records: Sequence[Record], refusal: BatchRefused) -> None:
        """Searches records that were refused together for those at fault."""
        if self._has_enough(len(self.suspects)):
            self.unsearched.append((records, str(refusal)))
            return
        named = _named(records, refusal)
        self.suspects += [(records[index], words) for index, words in named.items()]
        refused: list[tuple[Sequence[Record], BatchRefused]] = []
        for part in _others(records, named) if named else _halves(records):
            again = self._try(part)
            if again:
                refused.append((part, again))
        for part, again in refused:
            self.look_into(part, again)

    def _try(self, records: Sequence[Record]) -> BatchRefused | None:
        if self._budget.spend():
            return self._attempt(records)
        self.unsearched.append((records, "among others that the dashboard refused"))
        return None


def _named(records: Sequence[Record], refusal: BatchRefused) -> Mapping[int, str]:
    """The records that a refusal names, by index, with the error message. A single record counts as named."""
    named = {index: words for index, words in refusal.named.items() if 0 <= index < len(records)}
    return named or ({0: str(refusal)} if len(records) == 1 else {})


def _others(records: Sequence[Record], named: Mapping[int, str]) -> list[Sequence[Record]]:
    others = [record for index, record in enumerate(records) if index not in named]
    return [others] if others else []


def _halves(records: Sequence[Record]) -> list[Sequence[Record]]:
    middle = len(records) // 2
    return [records[:middle], records[middle:]]
