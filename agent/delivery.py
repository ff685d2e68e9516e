"""Brings records to the dashboard in batches, and finds the record for whose sake it refuses one.

The one place where jobs leave the books: in the transaction that follows a 2xx, or the refusal of a single record.
"""

from __future__ import annotations

import logging
from typing import Callable, Iterable, Iterator, NamedTuple, Protocol, Sequence

from agent import retry
from agent.errors import BatchRefused, BatchTooLarge, DashboardUnreachable
from agent.jobs import Record
from agent.ledger import Ledger

#: The most extra requests that one refused batch may cost. One bad record among n takes 2 x log2(n) of them.
SEARCH_REQUESTS = 200

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """What takes the records: a Dashboard, or its stand-in for a dry run."""

    ingest_url: str

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = ...) -> str:
        """See :meth:`agent.dashboard.Dashboard.submit`."""


class Doubt(NamedTuple):
    """A record that was refused alone while nothing else was taken: it, or the dashboard, may be at fault."""

    record: Record
    words: str
    waiting: Sequence[tuple[int, int]]


class Delivery:
    """Collects records and posts them, one batch at a time.

    :param command: ``flush`` or ``reconcile``, on whose behalf; flush delivers what the hook has caught.
    :param clock: epoch seconds.
    :param level: the log level of the routine lines.
    """

    def __init__(
        self,
        dashboard: Receiver,
        ledger: Ledger,
        cluster: str,
        *,
        command: str,
        batch_size: int,
        clock: Callable[[], float],
        level: int = logging.INFO,
    ) -> None:
        self.delivered = 0
        self.rejected = 0
        self.cpu_seconds = 0
        self.gpu_seconds = 0
        self._doubts: list[Doubt] = []
        self._dashboard = dashboard
        self._ledger = ledger
        self._cluster = cluster
        self._command = command
        self._batch_size = batch_size
        self._clock = clock
        self._level = level
        self._outbox: dict[tuple[int, int], Record] = {}
        self._waiting: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(self, record: Record, waiting: tuple[int, int] | None = None) -> None:
        """Takes a record on; a full batch goes out at once.

        :param waiting: the key in the ledger of the queue entry that is served by it.
        """
        self._outbox[record.key] = record
        if waiting is not None:
            self._waiting.setdefault(record.key, []).append(waiting)
        if len(self._outbox) >= self._batch_size:
            self.flush()

    def flush(self) -> None:
        """Sends what was taken on.

        :raises DashboardUnreachable: what is left is not delivered, and stays on the books.
        :raises KeyRefused: likewise.
        """
        records = list(self._outbox.values())
        self._outbox.clear()
        for start in range(0, len(records), self._batch_size):
            self._send(records[start : start + self._batch_size])

    def take_doubts(self) -> list[Doubt]:
        """The records that were refused without proof that they are at fault; once."""
        doubts, self._doubts = self._doubts, []
        return doubts

    def reject(self, record: Record, words: str, waiting: Iterable[tuple[int, int]] = ()) -> None:
        """Sets a record aside for good, with the dashboard's words."""
        with self._ledger.transaction():
            self._ledger.add_rejected(self._cluster, record, words, self._clock(), hooked=self._hooked)
            self._ledger.forget_waiting([*waiting, *self._waiting.pop(record.key, [])])
        self.rejected += 1
        logger.error(
            "job %s was refused by the dashboard and set aside: %s; `queue retry %d` sends it again",
            record.job_id,
            words,
            record.raw_id,
        )

    @property
    def _hooked(self) -> bool:
        return self._command == "flush"

    def _send(self, records: Sequence[Record]) -> None:
        while records:
            try:
                self._submit(records)
                return
            except BatchTooLarge as refusal:
                if len(records) == 1:
                    self.reject(records[0], str(refusal))
                    return
                self._batch_size = max(len(records) // 2, 1)
                for half in _halves(records):
                    self._send(half)
                return
            except BatchRefused as refusal:
                named = {index: words for index, words in refusal.named.items() if 0 <= index < len(records)}
                if not named:
                    self._search(records, refusal)
                    return
                for index, words in named.items():
                    self.reject(records[index], words)
                records = [record for index, record in enumerate(records) if index not in named]

    def _submit(self, records: Sequence[Record], *, tries: int = retry.TRIES) -> None:
        logger.log(self._level, "Submitting %d jobs to %s", len(records), self._dashboard.ingest_url)
        message = self._dashboard.submit(self._cluster, [record.text for record in records], tries=tries)
        logger.log(self._level, "Successfully submitted: %s", message)
        with self._ledger.transaction():
            self._ledger.add_delivered(self._cluster, records, self._command, self._clock(), hooked=self._hooked)
            for record in records:
                self._ledger.forget_waiting(self._waiting.pop(record.key, []))
        self.delivered += len(records)
        self.cpu_seconds += sum(record.cpu_seconds for record in records)
        self.gpu_seconds += sum(record.gpu_seconds for record in records)

    def _search(self, records: Sequence[Record], refusal: BatchRefused) -> None:
        """Splits a refused batch until the records at fault stand alone."""
        self._check_dashboard(refusal)
        logger.warning("%s; looking for the record at fault among %d", refusal, len(records))
        suspects: list[tuple[Record, str]] = []
        proven = False
        requests = 0
        pending = [(records, str(refusal))]
        try:
            while pending:
                part, words = pending.pop()
                if len(part) == 1:
                    suspects.append((part[0], words))
                    continue
                for half in _halves(part):
                    requests += 1
                    if requests > SEARCH_REQUESTS:
                        raise DashboardUnreachable(
                            f"the dashboard refuses too many records of one batch: {refusal}",
                            hint="see the dashboard's own log; what is left is kept for the next run",
                        )
                    try:
                        self._submit(half, tries=1)
                        proven = True
                    except BatchRefused as error:
                        pending.append((half, _words_for(error)))
        finally:
            for record, words in suspects:
                if proven:
                    self.reject(record, words)
                else:
                    self._doubts.append(Doubt(record, words, self._waiting.pop(record.key, [])))

    def _check_dashboard(self, refusal: BatchRefused) -> None:
        """An empty batch is always taken by a dashboard that works."""
        try:
            self._dashboard.submit(self._cluster, [], tries=1)
        except BatchRefused:
            raise DashboardUnreachable(
                f"the dashboard takes nothing at all: {refusal}",
                hint="see the dashboard's own log; everything is kept",
            ) from refusal


def _words_for(refusal: BatchRefused) -> str:
    return "; ".join(refusal.named.values()) or str(refusal)


def _halves(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    middle = len(records) // 2
    yield records[:middle]
    yield records[middle:]
