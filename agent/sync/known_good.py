"""Finds out whether a refusal is the record's fault or the dashboard's, by resending the last accepted record."""

from __future__ import annotations

from typing import Protocol, Sequence

from agent.dashboard.answer import refused_key
from agent.errors import BatchForbidden, BatchRefused, DashboardUnreachable
from agent.jobs.record import Record

#: If a dashboard that has not accepted anything yet refuses this many single records of a batch, or this many batches,
#: the fault is its own, and no more are tried.
MOST_UNPROVEN = 3
LOG_HINT = "see the dashboard's own log; everything is kept"


class Receiver(Protocol):
    """Accepts the records: a Dashboard, or its stand-in for a dry run."""

    ingest_url: str

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = ...) -> str:
        """See :meth:`agent.dashboard.client.Dashboard.submit`."""

    def answers(self) -> bool:
        """See :meth:`agent.dashboard.client.Dashboard.answers`."""


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
