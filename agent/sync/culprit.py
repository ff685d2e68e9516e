"""Finds the records that make the dashboard refuse a batch, and delivers the others along the way.

Either the dashboard names them, or the batch is bisected: one bad record among n costs 2 x log2(n) requests.
"""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

from agent.errors import BatchRefused
from agent.jobs.record import Record

#: Sends records. Returns the refusal, or None if they were accepted.
Attempt = Callable[[Sequence[Record]], "BatchRefused | None"]


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
