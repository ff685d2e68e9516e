"""Sends records to the dashboard in batches of a size that it accepts.

Only here are jobs acknowledged: in the transaction that follows a 2xx, or after a single record was refused by a
dashboard that demonstrably accepts others. :mod:`agent.sync.outbox` holds the records until then,
:mod:`agent.sync.batch_size` decides how large a batch may be, and :mod:`agent.sync.culprit` finds out which record a
batch was refused for, or whether the fault is the dashboard's.
"""

from __future__ import annotations

import time
from typing import Callable, Sequence

from agent.dashboard import request_retry
from agent.dashboard.client import Receiver
from agent.errors import BatchRefused, BatchTooLarge, DashboardUnreachable
from agent.jobs.record import Record
from agent.logger import INFO, Logger
from agent.spool.facts import BATCH_ACCEPTED, BATCH_BYTES, BATCH_CEILING, BATCH_CEILING_AT
from agent.spool.ledger import Ledger
from agent.sync.batch_size import LARGEST_BYTES, BatchSize, Capacity, Trouble, first_bytes
from agent.sync.culprit import Budget, KnownGood, Search
from agent.sync.outbox import Outbox, size_of

#: The number of requests that a run may spend on searching. One bad record among n takes 2 x log2(n) of them, and up to
#: eight more to check the dashboard before and after, and to retry the batch and the record itself.
SEARCH_REQUESTS = 200
#: A record that was refused without proof of its fault is retried after this long, or together with the next job.
REFUSED_PAUSE_SECONDS = 1800.0
#: The facts in which the ledger keeps a Capacity.
CAPACITY = (BATCH_BYTES, BATCH_CEILING, BATCH_CEILING_AT, BATCH_ACCEPTED)

logger = Logger(__name__)


class Delivery:
    """Collects records and posts them, one batch at a time.

    Counts the records that were ``delivered``, ``rejected`` (set aside permanently) and ``refused`` (still queued: the
    fault may be the dashboard's).

    :param command: the command that delivers, ``flush`` or ``reconcile``; the jobs of flush were queued by the hook.
    :param batch_size: the maximum number of records in a batch.
    :param timeout: seconds that a request may take.
    :param clock: epoch seconds.
    :param stopwatch: monotonic seconds, to measure how long the dashboard takes.
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
        timeout: float = 30.0,
        stopwatch: Callable[[], float] = time.monotonic,
        level: int = INFO,
    ) -> None:
        self.delivered = 0
        self.rejected = 0
        self.refused = 0
        self.cpu_seconds = 0
        self.gpu_seconds = 0
        self._budget = Budget(SEARCH_REQUESTS)
        self._known_good = KnownGood(dashboard, cluster)
        self._suspects: list[Record] = []  # refused alone before it accepted any
        self._dashboard = dashboard
        self._ledger = ledger
        self._cluster = cluster
        self._command = command
        self._most_records = batch_size
        self._size = BatchSize(_load_capacity(ledger, timeout), timeout=timeout)
        self._trouble = Trouble()
        self._clock = clock
        self._stopwatch = stopwatch
        self._level = level
        self._outbox = Outbox()

    def add(self, record: Record, waiting: tuple[int, int] | None = None, *, is_booked: bool = False) -> None:
        """Adds a record to the outbox; a full batch is sent at once.

        :param waiting: the ledger's key of the queue entry that this record settles.
        :param is_booked: whether the ledger already lists this very record as delivered.
        """
        self._outbox.add(record, waiting, is_booked=is_booked)
        while len(self._outbox) >= self._most_records or self._outbox.bytes > self._size.bytes:
            self._send_next()

    def flush(self) -> None:
        """Sends the outbox.

        :raises DashboardUnreachable: undelivered jobs stay queued.
        :raises KeyRefused: likewise.
        """
        while self._outbox:
            self._send_next()
        if self._known_good and self._suspects:
            suspects, self._suspects = self._suspects, []
            self.refused -= len(suspects)
            for record in suspects:
                self.add(record)
            self.flush()

    def forget_known_good(self) -> None:
        """Stops resending the last accepted record as a probe: after other deliveries it may be out of date."""
        self._known_good.forget()

    @property
    def _hooked(self) -> bool:
        return self._command == "flush"

    # A batch

    def _send_next(self) -> None:
        """Sends a batch. Settled records leave the outbox, delivered or not; the others are sent again."""
        batch = self._outbox.next_batch(self._most_records, self._size.bytes)
        full = len(batch) < len(self._outbox) or size_of(batch) >= self._size.bytes
        rest = {record.key for record in self._send(batch, full=full)}
        settled = [record for record in batch if record.key not in rest]
        self._outbox.take_out(settled)
        self._trouble.settle(len(settled))

    def _send(self, batch: Sequence[Record], *, full: bool) -> Sequence[Record]:
        """Sends records and handles failures.

        :param full: whether they are as many as may be sent at once.
        :returns: the records to send again.
        """
        try:
            self._post(batch, full=full)
        except BatchTooLarge as refusal:
            return self._go_smaller(batch, str(refusal)) if len(batch) > 1 else self._find_culprits(batch, refusal)
        except BatchRefused as refusal:
            return self._find_culprits(batch, refusal)
        except DashboardUnreachable as error:
            return self._recover(batch, error)
        return []

    def _post(self, records: Sequence[Record], *, tries: int = request_retry.TRIES, full: bool = False) -> None:
        """Sends records, and acknowledges those that the dashboard accepted."""
        logger.log(self._level, "Submitting %d jobs to %s", len(records), self._dashboard.ingest_url)
        started = self._stopwatch()
        message = self._dashboard.submit(self._cluster, [record.text for record in records], tries=tries)
        seconds = self._stopwatch() - started
        logger.log(self._level, "Successfully submitted: %s", message)
        before = self._size.capacity
        self._size.went_through(size_of(records), seconds, self._clock(), full=full)
        with self._ledger.transaction():
            news = self._outbox.unbooked(records)
            self._ledger.delivered.add(self._cluster, news, self._command, self._clock(), hooked=self._hooked)
            self._ledger.waiting.forget(self._outbox.settle(records))
            if self._size.capacity != before:
                self._write_capacity()
        self._known_good.accepted(records[-1])
        self.delivered += len(records)
        self.cpu_seconds += sum(record.cpu_seconds for record in records)
        self.gpu_seconds += sum(record.gpu_seconds for record in records)

    # A batch that was too large

    def _recover(self, batch: Sequence[Record], error: DashboardUnreachable) -> Sequence[Record]:
        """Continues after an unanswered request, as long as the dashboard is reachable.

        :returns: the records to send again.
        :raises DashboardUnreachable: if it is not reachable.
        """
        if error.foreign:
            return self._find_culprits(batch, BatchRefused(str(error)))
        if not error.overwhelmed:
            raise error
        if not self._dashboard.answers():
            if error.timed_out:  # this batch may keep it busy: the next run begins with a smaller one
                self._go_smaller(batch, "")
            raise error
        if len(batch) == 1:
            return self._hold_back(batch[0], error)
        if self._trouble or (error.timed_out and not self._size.has_accepted(size_of(batch))):
            return self._go_smaller(batch, str(error))
        logger.warning("%s; the dashboard is reachable, trying again", error)
        self._trouble.begin(len(batch), self._size.capacity)
        return batch

    def _go_smaller(self, batch: Sequence[Record], words: str) -> Sequence[Record]:
        """Makes the next batches smaller; all records of this one are sent again."""
        self._trouble.begin(len(batch), self._size.capacity)
        self._size.failed(size_of(batch))
        self._save_capacity()
        if words:
            logger.warning("%s; continuing with at most %d kB at a time", words, -(-self._size.bytes // 1024))
        return batch

    def _hold_back(self, record: Record, error: DashboardUnreachable) -> Sequence[Record]:
        """Keeps a record that the dashboard does not answer, though it is reachable and may accept others."""
        self._known_good.count_refusal(str(error))
        proven = self._known_good.confirm(BatchRefused(str(error)))
        if not proven:
            self._suspects.append(record)
        if self._trouble:  # parts of a batch failed because of this record, not because of their size
            before = self._trouble.before
            self._size.forget_failures(before if proven else before._replace(size=self._size.bytes))
            self._save_capacity()
        self._keep([record], str(error))
        return []

    def _save_capacity(self) -> None:
        with self._ledger.transaction():
            self._write_capacity()

    def _write_capacity(self) -> None:
        for name, value in zip(CAPACITY, self._size.capacity):
            self._ledger.facts.set(name, value)

    # A batch that was refused

    def _find_culprits(self, batch: Sequence[Record], refusal: BatchRefused) -> Sequence[Record]:
        """Finds the records at fault in a refused batch, sets them aside, and sends the others.

        If there are none, its size was at fault.

        :returns: the records to send again: those of parts that failed without being refused.
        """
        self._known_good.count_refusal(str(refusal))
        if len(batch) > 1:
            self._known_good.confirm(refusal)
            logger.warning("%s; searching %d records for the one at fault", refusal, len(batch))
        before = self._size.capacity
        self._size.failed(size_of(batch))
        too_much: list[Record] = []
        search = Search(lambda part: self._attempt(part, too_much), self._budget, self._known_good.has_enough)
        search.look_into(batch, refusal)
        if search.suspects:
            self._size.forget_failures(before)
        self._save_capacity()
        for part, words in search.unsearched:
            self._keep(part, words)
        self._judge(search.suspects)
        return too_much

    def _attempt(self, part: Sequence[Record], too_much: list[Record]) -> BatchRefused | None:
        """Sends a part of a refused batch. A single record gets all retries, so a temporary failure does not reject it.

        :param too_much: receives the records to send again if the part failed without being refused.
        """
        try:
            self._post(part, tries=request_retry.TRIES if len(part) == 1 else 1)
        except BatchRefused as refusal:
            if not refusal.named:
                self._size.failed(size_of(part))
            return refusal
        except DashboardUnreachable as error:
            if error.foreign:
                return BatchRefused(str(error))
            too_much += self._recover(part, error)
        return None

    def _judge(self, suspects: Sequence[tuple[Record, str]]) -> None:
        """Sets aside the records that were refused alone, or keeps them if the fault may be the dashboard's."""
        if suspects and self._known_good.confirm(BatchRefused(suspects[-1][1])):
            for record, words in suspects:
                self._reject(record, words)
            return
        for record, words in suspects:
            self._suspects.append(record)
            self._keep([record], words)

    def _reject(self, record: Record, words: str) -> None:
        """Sets a record aside permanently, with the error message."""
        with self._ledger.transaction():
            self._ledger.rejected.add(self._cluster, record, words, self._clock(), hooked=self._hooked)
            self._ledger.waiting.forget(self._outbox.settle([record]))
        self.rejected += 1
        logger.error(
            "job %s was rejected by the dashboard and set aside: %s; `queue retry %d` sends it again",
            record.job_id,
            words,
            record.raw_id,
        )

    def _keep(self, records: Sequence[Record], words: str) -> None:
        """Leaves records to a later flush, as the fault may be theirs or the dashboard's."""
        now = self._clock()
        with self._ledger.transaction():
            for record in records:
                for key in self._outbox.keep(record):
                    self._ledger.waiting.add_refused(key, record, words, now, due_at=now + REFUSED_PAUSE_SECONDS)
        self.refused += len(records)
        logger.warning("%d jobs (first: %s) were refused and kept: %s", len(records), records[0].job_id, words)


def _load_capacity(ledger: Ledger, timeout: float) -> Capacity:
    """What earlier runs learned, unless a bad disk has changed it beyond the limits."""
    size, ceiling, ceiling_at, accepted = map(ledger.facts.get, CAPACITY)
    if not (1 <= size <= LARGEST_BYTES and 0 <= ceiling <= LARGEST_BYTES and 0 <= accepted <= LARGEST_BYTES):
        return Capacity(first_bytes(timeout))
    return Capacity(int(size), int(ceiling), ceiling_at, int(accepted))
