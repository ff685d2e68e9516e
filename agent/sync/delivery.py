"""Brings records to the dashboard in batches, and finds the record for whose sake it refuses one.

The one place where jobs leave the books: in the transaction that follows a 2xx, or the refusal of a single record by
a dashboard that is proven to take others.
"""

from __future__ import annotations

import logging
from typing import Callable, Iterator, Mapping, Protocol, Sequence

from agent.dashboard import backoff
from agent.dashboard.answer import refused_key
from agent.errors import BatchForbidden, BatchRefused, BatchTooLarge, DashboardUnreachable
from agent.jobs.entry import QueueEntry
from agent.jobs.record import Record
from agent.spool.facts import BATCH_SIZE
from agent.spool.ledger import Ledger

#: The most requests that a run spends on searching. One bad record among n takes 2 x log2(n) of them, and up to eight
#: more: to see before and after that the dashboard is well, and to try the batch and the record itself again.
SEARCH_REQUESTS = 200
#: So many records of a batch refused alone, or so many batches, by a dashboard that has not taken anything yet: it is
#: at fault, and no more are tried.
MOST_UNPROVEN = 3
#: What was refused without proof is tried again after so long, or together with the next job that comes.
REFUSED_PAUSE_SECONDS = 1800.0
#: However slow the dashboard is, batches are not made smaller than this for it.
SMALLEST_BATCH = 100

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """What takes the records: a Dashboard, or its stand-in for a dry run."""

    ingest_url: str

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = ...) -> str:
        """See :meth:`agent.dashboard.client.Dashboard.submit`."""


class Delivery:
    """Collects records and posts them, one batch at a time.

    Counts what was ``delivered``, ``rejected`` (set aside for good) and ``refused`` (kept: it may be the dashboard's
    fault).

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
        self.refused = 0
        self.cpu_seconds = 0
        self.gpu_seconds = 0
        self._requests_left = SEARCH_REQUESTS
        self._witness: Record | None = None  # the last one that the dashboard has taken
        self._unproven = 0  # batches refused before it had taken any
        self._suspects: list[Record] = []  # refused alone before it had taken any
        self._dashboard = dashboard
        self._ledger = ledger
        self._cluster = cluster
        self._command = command
        self._most = batch_size
        self._batch_size = min(int(ledger.journal.fact(BATCH_SIZE)) or batch_size, batch_size)
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
        while records:
            batch, records = records[: self._batch_size], records[self._batch_size :]
            self._send(batch)
        if self._witness and self._suspects:
            suspects, self._suspects = self._suspects, []
            self.refused -= len(suspects)
            self._send(suspects)

    def forget_witness(self) -> None:
        """Tells that others have delivered meanwhile: what was sent before may be out of date and is not sent again."""
        self._witness = None

    @property
    def _hooked(self) -> bool:
        return self._command == "flush"

    def _send(self, records: Sequence[Record]) -> None:
        try:
            self._submit(records)
        except BatchTooLarge as refusal:
            if len(records) == 1:
                self._search(records, refusal)
                return
            self._batch_size = self._most = len(records) // 2
            for half in _halves(records):
                self._send(half)
        except BatchRefused as refusal:
            self._search(records, refusal)

    def _submit(self, records: Sequence[Record], *, tries: int = backoff.TRIES) -> None:
        logger.log(self._level, "Submitting %d jobs to %s", len(records), self._dashboard.ingest_url)
        try:
            message = self._dashboard.submit(self._cluster, [record.text for record in records], tries=tries)
        except DashboardUnreachable as error:
            if error.timed_out:
                self._trust(len(records) // 2)
            raise
        logger.log(self._level, "Successfully submitted: %s", message)
        if self._batch_size < self._most and len(records) >= self._batch_size:
            self._trust(self._batch_size * 2)
        with self._ledger.transaction():
            self._ledger.delivered.add(self._cluster, records, self._command, self._clock(), hooked=self._hooked)
            self._ledger.waiting.forget(key for record in records for key in self._waiting.pop(record.key, []))
        self._witness = records[-1]
        self.delivered += len(records)
        self.cpu_seconds += sum(record.cpu_seconds for record in records)
        self.gpu_seconds += sum(record.gpu_seconds for record in records)

    def _trust(self, records: int) -> None:
        """Makes the batches smaller that the dashboard could not take in time, in the next run, or larger again."""
        self._batch_size = max(min(records, self._most), min(SMALLEST_BATCH, self._most))
        with self._ledger.transaction():
            self._ledger.journal.set_fact(BATCH_SIZE, self._batch_size)

    def _search(self, records: Sequence[Record], refusal: BatchRefused) -> None:
        """Finds the records at fault in a refused batch, sets them aside, and sends the others."""
        self._unproven += not self._witness
        if not self._witness and self._unproven > MOST_UNPROVEN:
            raise DashboardUnreachable(f"the dashboard refuses every record: {refusal}", hint=_LOG_HINT)
        if len(records) > 1:
            self._check_dashboard(refusal)
            logger.warning("%s; looking for the record at fault among %d", refusal, len(records))
        suspects: list[tuple[Record, str]] = []
        pending = [(records, refusal)]
        while pending:
            part, refusal = pending.pop()
            if not self._witness and len(suspects) >= MOST_UNPROVEN:
                self._keep(part, str(refusal))
                continue
            named = _named(part, refusal)
            suspects += [(part[index], words) for index, words in named.items()]
            for rest in _others(part, named) if named else _halves(part):
                again = self._try(rest)
                if again:
                    pending.append((rest, again))
        proven = bool(suspects) and self._check_dashboard(refusal)
        for record, words in suspects:
            if proven:
                self._reject(record, words)
            else:
                self._suspects.append(record)
                self._keep([record], words)

    def _try(self, records: Sequence[Record]) -> BatchRefused | None:
        """Sends a part of a refused batch; returns the refusal, None where there is nothing left to look into."""
        if not self._requests_left:
            self._keep(records, "among others that the dashboard refused")
            return None
        self._requests_left -= 1
        try:
            # A single record is not condemned for the dashboard's passing trouble.
            self._submit(records, tries=backoff.TRIES if len(records) == 1 else 1)
        except BatchRefused as refusal:
            return refusal
        return None

    def _check_dashboard(self, refusal: BatchRefused) -> bool:
        """Sends again what the dashboard has just taken, or nothing where it has not taken any record yet.

        :returns: whether it takes records.
        :raises DashboardUnreachable: where it refuses that, too: it is the one at fault.
        :raises KeyRefused: where it forbids that, too.
        """
        texts = [self._witness.text] if self._witness else []
        try:
            self._dashboard.submit(self._cluster, texts, tries=1)
        except BatchForbidden as error:
            raise refused_key(str(error)) from refusal
        except BatchRefused:
            raise DashboardUnreachable(f"the dashboard takes nothing at all: {refusal}", hint=_LOG_HINT) from refusal
        return self._witness is not None

    def _reject(self, record: Record, words: str) -> None:
        """Sets a record aside for good, with the dashboard's words."""
        with self._ledger.transaction():
            self._ledger.rejected.add(self._cluster, record, words, self._clock(), hooked=self._hooked)
            self._ledger.waiting.forget(self._waiting.pop(record.key, []))
        self.rejected += 1
        logger.error(
            "job %s was refused by the dashboard and set aside: %s; `queue retry %d` sends it again",
            record.job_id,
            words,
            record.raw_id,
        )

    def _keep(self, records: Sequence[Record], words: str) -> None:
        """Leaves records to a later flush: nobody knows whether they are at fault, or the dashboard."""
        now = self._clock()
        with self._ledger.transaction():
            for record in records:
                for key in self._waiting.setdefault(record.key, [QueueEntry(record.raw_id).key]):
                    self._ledger.waiting.add_refused(key, record, words, now, due_at=now + REFUSED_PAUSE_SECONDS)
        self.refused += len(records)
        logger.warning("%d jobs, %s first, were refused and are kept: %s", len(records), records[0].job_id, words)


_LOG_HINT = "see the dashboard's own log; everything is kept"


def _named(records: Sequence[Record], refusal: BatchRefused) -> dict[int, str]:
    """The records that a refusal is about, by their index, with its words; none where it names none of several."""
    named = {index: words for index, words in refusal.named.items() if 0 <= index < len(records)}
    return named or ({0: str(refusal)} if len(records) == 1 else {})


def _others(records: Sequence[Record], named: Mapping[int, str]) -> Iterator[Sequence[Record]]:
    others = [record for index, record in enumerate(records) if index not in named]
    if others:
        yield others


def _halves(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    middle = len(records) // 2
    yield records[:middle]
    yield records[middle:]
