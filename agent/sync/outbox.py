"""The records that are about to be posted, and the queue entries that each of them settles. Nothing is sent here."""

from __future__ import annotations

from itertools import islice
from typing import Sequence, Tuple

from agent.jobs.queue_entry import QueueEntry, is_task
from agent.jobs.record import Record, place

#: The raw ID and the Submit of a record, or of a queue entry in the ledger.
Key = Tuple[int, int]


class Outbox:
    """Records in the order in which they are sent: of each run only its newest version."""

    def __init__(self) -> None:
        self.bytes = 0
        self._records: dict[Key, Record] = {}
        self._booked: set[Key] = set()
        self._newest_tasks: dict[tuple[str, int], Record] = {}  # by their place on the dashboard
        self._waiting: dict[Key, list[Key]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record, waiting: Key | None = None, *, is_booked: bool = False) -> None:
        """Adds a record.

        :param waiting: the ledger's key of the queue entry that this record settles.
        :param is_booked: whether the ledger already lists this very record as delivered.
        """
        newest = self._newest_task(record) if is_task(record.job_id) else record
        if waiting is not None:
            self._waiting.setdefault(newest.key, []).append(waiting)
        if newest is not record:  # the older one would arrive last and overwrite it
            return
        if is_booked:
            self._booked.add(record.key)
        self._remove(record.key)  # an older version of it
        self._records[record.key] = record
        self.bytes += bytes_of(record)

    def next_batch(self, most_records: int, most_bytes: int) -> list[Record]:
        """As many records as are allowed, and at least one; they stay in the outbox."""
        if self.bytes <= most_bytes:
            return list(islice(self._records.values(), most_records))
        batch: list[Record] = []
        left = most_bytes
        for record in self._records.values():
            left -= bytes_of(record)
            if batch and (left < 0 or len(batch) >= most_records):
                break
            batch.append(record)
        return batch

    def take_out(self, records: Sequence[Record]) -> None:
        """Removes records that need not be sent any more."""
        for record in records:
            self._remove(record.key)
        if not self._records:
            self._newest_tasks.clear()

    def unbooked(self, records: Sequence[Record]) -> list[Record]:
        """Those that the ledger does not list as delivered yet."""
        return [record for record in records if record.key not in self._booked]

    def keep(self, record: Record) -> list[Key]:
        """Notes that a record stays queued, and returns its queue entries: a new one if the hook had queued none."""
        return self._waiting.setdefault(record.key, [QueueEntry(record.raw_id).key])

    def settle(self, records: Sequence[Record]) -> list[Key]:
        """Forgets what was noted for records that were accepted or rejected, and returns their queue entries."""
        self._booked.difference_update(record.key for record in records)
        return [key for record in records for key in self._waiting.pop(record.key, ())] if self._waiting else []

    def _newest_task(self, record: Record) -> Record:
        """The latest run of a task in the outbox, with this one: another raw ID may come first, in arbitrary order."""
        where = place(record.job_id, record.submit)
        newest = self._newest_tasks.get(where)
        if newest is None or (newest.submit, newest.end) <= (record.submit, record.end):
            newest = self._newest_tasks[where] = record
        return newest

    def _remove(self, key: Key) -> None:
        removed = self._records.pop(key, None)
        if removed:
            self.bytes -= bytes_of(removed)


def bytes_of(record: Record) -> int:
    """What a record adds to a POST, in bytes: its text is ASCII."""
    return len(record.text) + 1


def size_of(records: Sequence[Record]) -> int:
    """What records add to a POST, in bytes."""
    return sum(len(record.text) for record in records) + len(records)
