"""Finds the records for whose sake the dashboard refuses a batch, and has the others delivered meanwhile.

It is the dashboard that names them, or halving that finds them: one bad record among n costs 2 x log2(n) requests.
"""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple, Sequence

from agent.errors import BatchRefused
from agent.jobs.record import Record

#: Sends some records. Returns the refusal, None where they were taken.
Attempt = Callable[[Sequence[Record]], "BatchRefused | None"]


class Budget:
    """What a run may spend on searching.

    :param requests: how many.
    """

    def __init__(self, requests: int) -> None:
        self._left = requests

    def spend(self) -> bool:
        """Takes one request out of it; False where there is none left."""
        self._left -= 1
        return self._left >= 0


class Findings(NamedTuple):
    """What a search has found."""

    suspects: list[tuple[Record, str]]  # refused alone, or named; each with the dashboard's words
    unsearched: list[tuple[Sequence[Record], str]]  # what is left of refused batches, and why


class Search:
    """One search.

    :param attempt: how records are sent.
    :param budget: without any left, the rest stays unsearched.
    :param has_enough: told how many suspects there are, whether more are of no use.
    """

    def __init__(self, attempt: Attempt, budget: Budget, has_enough: Callable[[int], bool]) -> None:
        self.findings = Findings([], [])
        self._attempt = attempt
        self._budget = budget
        self._has_enough = has_enough

    def look_into(self, records: Sequence[Record], refusal: BatchRefused) -> None:
        """Looks for the records at fault among some that were refused together."""
        suspects, unsearched = self.findings
        if self._has_enough(len(suspects)):
            unsearched.append((records, str(refusal)))
            return
        named = _named(records, refusal)
        suspects += [(records[index], words) for index, words in named.items()]
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
        self.findings.unsearched.append((records, "among others that the dashboard refused"))
        return None


def _named(records: Sequence[Record], refusal: BatchRefused) -> Mapping[int, str]:
    """The records that a refusal is about, by their index, with its words; none where it names none of several."""
    named = {index: words for index, words in refusal.named.items() if 0 <= index < len(records)}
    return named or ({0: str(refusal)} if len(records) == 1 else {})


def _others(records: Sequence[Record], named: Mapping[int, str]) -> list[Sequence[Record]]:
    others = [record for index, record in enumerate(records) if index not in named]
    return [others] if others else []


def _halves(records: Sequence[Record]) -> list[Sequence[Record]]:
    middle = len(records) // 2
    return [records[:middle], records[middle:]]
