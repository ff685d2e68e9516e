"""Runs flush and reconcile on a schedule in one long process, for hosts without systemd and cron."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

from agent.errors import ExporterError
from agent.spool.disk import replace_file

#: A failed reconcile is retried after this long, not with each flush.
RETRY_SECONDS = 3600.0


def run_rounds(
    flush: Callable[[], str],
    reconcile: Callable[[], str],
    *,
    flush_seconds: float,
    reconcile_seconds: float,
    last_reconcile: Callable[[], float],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[str | ExporterError]:
    """A flush at regular intervals, and a reconcile whenever one is due.

    Yields the outcome of each run, endlessly. After a failure the next round tries again.

    :param flush: runs one and returns its summary line.
    :param reconcile: likewise.
    :param last_reconcile: when the last successful one ended, in epoch seconds; 0 if there was none.
    :param clock: epoch seconds.
    :param sleep: waits some seconds.
    """
    not_before = 0.0
    while True:
        began = clock()
        yield _attempt(flush)
        if began >= not_before and _is_due(last_reconcile, reconcile_seconds, began):
            outcome = _attempt(reconcile)
            not_before = clock() + min(RETRY_SECONDS, reconcile_seconds)
            yield outcome
        rest = flush_seconds - (clock() - began)
        sleep(min(max(rest, 0.0), flush_seconds))  # setting the clock back delays nothing


def _is_due(last_reconcile: Callable[[], float], seconds: float, now: float) -> bool:
    try:
        return not 0 <= now - last_reconcile() < seconds
    except ExporterError:  # the flush before has reported it
        return False


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
