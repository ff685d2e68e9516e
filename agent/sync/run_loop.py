"""Runs flush and reconcile on a schedule in one long process, for hosts without systemd and cron."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

from agent.errors import ExporterError
from agent.spool.disk import replace_file

#: A failed reconcile is retried after this long, not with each flush.
RETRY_SECONDS = 3600.0


class RunLoop:
    """A flush at regular intervals, and a reconcile whenever one is due.

    :param flush: runs one and returns its summary line.
    :param reconcile: likewise.
    :param last_reconcile: when the last successful one ended, in epoch seconds; 0 if there was none.
    :param clock: epoch seconds.
    :param sleep: waits some seconds.
    """

    def __init__(
        self,
        flush: Callable[[], str],
        reconcile: Callable[[], str],
        *,
        flush_seconds: float,
        reconcile_seconds: float,
        last_reconcile: Callable[[], float],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._flush = flush
        self._reconcile = reconcile
        self._flush_seconds = flush_seconds
        self._reconcile_seconds = reconcile_seconds
        self._last_reconcile = last_reconcile
        self._clock = clock
        self._sleep = sleep
        self._not_before = 0.0

    def __iter__(self) -> Iterator[str | ExporterError]:
        """The outcome of each run, endlessly. After a failure the next round tries again."""
        while True:
            began = self._clock()
            yield self._attempt(self._flush)
            if self._reconcile_is_due(began):
                outcome = self._attempt(self._reconcile)
                self._not_before = self._clock() + min(RETRY_SECONDS, self._reconcile_seconds)
                yield outcome
            rest = self._flush_seconds - (self._clock() - began)
            self._sleep(min(max(rest, 0.0), self._flush_seconds))  # setting the clock back delays nothing

    def _reconcile_is_due(self, now: float) -> bool:
        if now < self._not_before:
            return False
        try:
            last = self._last_reconcile()
        except ExporterError:  # the flush before has reported it
            return False
        return not 0 <= now - last < self._reconcile_seconds

    @staticmethod
    def _attempt(run: Callable[[], str]) -> str | ExporterError:
        try:
            return run()
        except ExporterError as error:
            return error


def write_health(path: Path, line: str) -> None:
    """Atomically writes the outcome of the last run. The file's age shows whether the process is still running.

    :raises OSError: if it can't be written.
    """
    replace_file(path, f"{line}\n".encode())
