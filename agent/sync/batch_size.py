"""How large a batch may be: it grows only after a success, and a size that failed is remembered. Pure.

The size is in bytes, not records: proxies limit bytes, and a record with two thousand nodes costs as much as fifty
others.
"""

from __future__ import annotations

from typing import NamedTuple

#: The first batch for an unknown dashboard: some 600 jobs. A proxy's limit is rarely below a megabyte.
FIRST_BYTES = 1 << 18
#: The largest batch ever sent: some 9,000 jobs.
LARGEST_BYTES = 1 << 22
#: A larger batch is tried again after this long.
CEILING_SECONDS = 86_400.0
#: If a batch fails that is this many times smaller than an accepted one, its size is not the cause.
MUCH_SMALLER = 8


class Capacity(NamedTuple):
    """How much a dashboard is known to accept at once."""

    size: int = FIRST_BYTES
    ceiling: int = 0  # larger batches, in bytes, have failed; 0 if none has
    ceiling_at: float = 0.0  # epoch seconds
    accepted: int = 0  # bytes of the largest batch accepted since the ceiling was found


class Trouble:
    """A batch that failed and is sent again, perhaps in parts: its size may be at fault, or one of its records.

    True while records of it are left.
    """

    def __init__(self) -> None:
        self.before = Capacity()  # what was known when it began
        self._left = 0

    def __bool__(self) -> bool:
        return self._left > 0

    def begin(self, records: int, capacity: Capacity) -> None:
        """Notes that a batch failed, unless it is a part of one that did."""
        if not self:
            self.before = capacity
            self._left = records

    def settle(self, records: int) -> None:
        """Notes that this many records were delivered, or set aside."""
        self._left = max(self._left - records, 0)


def first_bytes(timeout: float) -> int:
    """The size of the first batch; a short time-out makes it smaller."""
    return int(FIRST_BYTES * min(timeout / 30, 1))


class BatchSize:
    """The size of the next batch, derived from the outcome of those before it.

    :param capacity: what an earlier run learned.
    :param timeout: seconds that a request may take.
    """

    def __init__(self, capacity: Capacity, *, timeout: float) -> None:
        self.capacity = capacity
        self._timeout = timeout
        self._failed = 0  # bytes of the smallest batch that was too large since the last success
        self._failures = 0
        self._before = capacity  # what was known before these failures
        self._is_innocent = False  # whether the cause is probably another

    @property
    def bytes(self) -> int:
        """The current limit of a batch."""
        return self.capacity.size

    def has_accepted(self, size: int) -> bool:
        """Whether a batch at least as large was accepted."""
        return size <= self.capacity.accepted

    def failed(self, size: int) -> None:
        """Notes that a batch of this size was too large. The next is half of it, then a quarter of that, and so on."""
        if not self._failures:
            self._before, self._is_innocent = self.capacity, self.has_accepted(size * MUCH_SMALLER)
        self._failed = min(self._failed or size, size)
        self._failures += 1
        self.capacity = self.capacity._replace(size=max(min(size, self.bytes) >> self._failures, 1))

    def went_through(self, size: int, seconds: float, now: float, *, full: bool) -> None:
        """Notes that a batch was accepted.

        After a full batch the next may be up to twice as large, provided that at the same speed it would take at most
        half of the time-out. If a batch had failed before that was much smaller than accepted ones, its
        failure is ignored, but those are no longer proof that such sizes are accepted.

        :param seconds: how long the request took.
        :param now: epoch seconds.
        """
        if self._failed and self._is_innocent:
            self.forget_failures(self._before._replace(accepted=self._before.accepted // MUCH_SMALLER))
        _, ceiling, ceiling_at, accepted = self.capacity
        if self._failed:
            ceiling, ceiling_at, accepted = max(self._failed // 2, size), now, 0
            self._failed = self._failures = 0
        elif ceiling and not 0 <= now - ceiling_at < CEILING_SECONDS:
            ceiling, ceiling_at = 0, 0.0
        larger = min(2 * size, int(size * self._timeout / 2 / max(seconds, 1e-3)), ceiling or LARGEST_BYTES)
        grown = max(self.bytes, min(larger, LARGEST_BYTES)) if full else self.bytes
        self.capacity = Capacity(grown, ceiling, ceiling_at, max(accepted, min(size, LARGEST_BYTES)))

    def forget_failures(self, capacity: Capacity) -> None:
        """Restores ``capacity``: the failures since then were not caused by the size."""
        self.capacity = capacity
        self._failed = self._failures = 0
