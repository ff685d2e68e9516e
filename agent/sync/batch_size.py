"""How large a batch may be: it grows only on proof, and what was too much once is remembered. Pure.

Bytes are counted, not records: a proxy's limit is one of bytes, and a record with two thousand nodes is as much work as
fifty others.
"""

from __future__ import annotations

from typing import NamedTuple

#: What a dashboard is sent first that nothing is known of: some 600 jobs. A proxy's limit is seldom below a megabyte.
FIRST_BYTES = 1 << 18
#: No batch is larger: some 9,000 jobs.
LARGEST_BYTES = 1 << 22
#: After so long a larger batch is tried again.
CEILING_SECONDS = 86_400.0


class Trust(NamedTuple):
    """What is known of a dashboard: how much it takes at once."""

    size: int = FIRST_BYTES
    ceiling: int = 0  # bytes, above which it fails; 0: none is known
    ceiling_at: float = 0.0  # epoch seconds


def first_bytes(timeout: float) -> int:
    """With a short time-out even less is sent first, as that much more may not be done in time."""
    return int(FIRST_BYTES * min(timeout / 30, 1))


class BatchSize:
    """The size of the next batch, by how the ones before it fared.

    :param trust: as it was left by an earlier run.
    :param timeout: seconds that a request may take.
    """

    def __init__(self, trust: Trust, *, timeout: float) -> None:
        self.trust = trust
        self._timeout = timeout
        self._failed = 0  # bytes of the smallest batch that was too large, since one went through
        self._failures = 0

    @property
    def bytes(self) -> int:
        """What a batch may have now."""
        return self.trust.size

    def failed(self, size: int) -> None:
        """A batch of so many bytes was too much. The next is half of it, then a quarter of that, then an eighth."""
        self._failed = min(self._failed or size, size)
        self._failures += 1
        self.trust = self.trust._replace(size=max(min(size, self.bytes) >> self._failures, 1))

    def went_through(self, size: int, seconds: float, now: float, *, full: bool) -> None:
        """A batch was taken.

        If it was full, the next may be up to twice as large, and no larger than what can be done in half of the
        time-out if each byte takes as long as these did.

        :param seconds: that it took.
        :param now: epoch seconds.
        """
        ceiling, ceiling_at = self.trust.ceiling, self.trust.ceiling_at
        if self._failed:
            ceiling, ceiling_at = max(self._failed // 2, size), now
            self._failed = self._failures = 0
        elif ceiling and not 0 <= now - ceiling_at < CEILING_SECONDS:
            ceiling, ceiling_at = 0, 0.0
        larger = min(2 * size, int(size * self._timeout / 2 / max(seconds, 1e-3)), ceiling or LARGEST_BYTES)
        grown = max(self.bytes, min(larger, LARGEST_BYTES)) if full else self.bytes
        self.trust = Trust(grown, ceiling, ceiling_at)

    def forget_failures(self, trust: Trust) -> None:
        """The failures since it was as in ``trust`` had another cause than size."""
        self.trust = trust
        self._failed = self._failures = 0
