"""A run of flush or reconcile from end to end: does it, and writes down how it went."""

from __future__ import annotations

import logging
import time
from datetime import date, timedelta
from typing import Callable

from agent.assembly import Parts
from agent.errors import STOPPED, DashboardUnreachable, ExporterError, RecordsRejected, UsageError
from agent.jobs.job import SECONDS_PER_HOUR
from agent.localtime import Range, day_end, day_start, local_day, local_text
from agent.spool.facts import DELIVERED_BY, MISSED, MISSED_END, PAUSE
from agent.spool.journal import RunReport
from agent.sync import earlier
from agent.sync.delivery import Delivery
from agent.sync.flush import LONGEST_PAUSE_SECONDS, check_pause, has_work
from agent.sync.reconcile import Progress, Reconcile

#: Beyond the collection window the ledger keeps so many days more of what was delivered.
SPARE_DAYS = 2
RUNS_KEPT_SECONDS = 30 * 86_400.0

logger = logging.getLogger(__name__)


class Account:
    """What a run has done so far, for the report on it."""

    def __init__(self) -> None:
        self.delivery: Delivery | None = None
        self.missed = 0
        self.message = "nothing to do"


def run_flush(parts: Parts) -> RunReport:
    """Delivers what the hook has queued.

    :raises ExporterError: see :mod:`agent.errors`; everything that is not delivered is kept.
    """

    def work(account: Account) -> None:
        parts.spool.take_over(time.time())
        if not has_work(parts.ledger, time.time()):
            return
        account.delivery = parts.delivery("flush")
        parts.flush(account.delivery).run()
        waiting, _ = parts.ledger.waiting.count()
        account.message = f"{_describe(account.delivery)}, {waiting} waiting"

    return _record(parts, "flush", work)


def run_reconcile(
    parts: Parts, wanted: Range, *, only_missing: bool, on_progress: Callable[[Progress], None]
) -> RunReport:
    """Replays a range of time.

    :raises ExporterError: see :mod:`agent.errors`; with the dates to go on with in its hint.
    :raises KeyboardInterrupt: with them in its words.
    """
    done_to = wanted.start - 1

    def progressed(progress: Progress) -> None:
        nonlocal done_to
        done_to = progress.done_to
        on_progress(progress)

    def work(account: Account) -> None:
        check_pause(parts.ledger.journal, time.time())
        account.delivery = parts.delivery("reconcile")
        reconcile = parts.reconcile(account.delivery, only_missing=only_missing, on_progress=progressed)
        logger.info("Extracting jobs from %s to %s", local_day(wanted.start), local_day(wanted.end))
        try:
            reconcile.run(wanted)
        except ExporterError as error:
            error.hint = f"{error.hint}; {_go_on(done_to, wanted)}".lstrip("; ")
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_go_on(done_to, wanted)) from None
        finally:
            account.missed = reconcile.tally.missed
        _keep_books(parts, reconcile, wanted)
        account.message = (
            f"{reconcile.tally.jobs} jobs ended in the range, {_describe(account.delivery)}, "
            f"{reconcile.tally.missed} missed by flush"
        )

    return _record(parts, "reconcile", work)


def window(days: int, first: date | None, last: date | None, now: float) -> Range:
    """The range that reconcile replays, in the cluster's local days, both included.

    :param days: the collection window; where ``first`` is absent, the range begins so many days before ``last``.
    :param now: epoch seconds; nothing has ended after it.
    :raises UsageError: where the range lies in the future.
    """
    today = local_day(now)
    if first and first > today:
        raise UsageError(f"--start-date {first} is in the future", hint=f"today is {today}")
    start = first or (min(last, today) if last else today) - timedelta(days=days)
    return Range(day_start(start), min(day_end(last or today), int(now)))


def _record(parts: Parts, command: str, work: Callable[[Account], None]) -> RunReport:
    account = Account()
    started_at, started = time.time(), time.monotonic()
    failure: ExporterError | KeyboardInterrupt | None = None
    try:
        work(account)
        if account.delivery and account.delivery.refused:
            hint = "see `queue list` for the dashboard's words, and the dashboard's own log"
            raise DashboardUnreachable(account.message, hint=hint)
        if account.delivery and account.delivery.rejected:
            hint = "see `queue list`; `queue retry` sends them again, `queue drop JOBID` never"
            raise RecordsRejected(account.message, hint=hint)
    except ExporterError as error:
        failure = error
    except KeyboardInterrupt as error:
        failure = error
    report = RunReport(
        command,
        started_at,
        time.monotonic() - started,
        getattr(failure, "exit_code", STOPPED) if failure else 0,
        str(failure) or "stopped" if failure else account.message,
        account.delivery.delivered if account.delivery else 0,
        account.delivery.rejected if account.delivery else 0,
        account.missed,
    )
    _write_down(parts, report, failure)
    _write_metrics(parts)
    if failure:
        raise failure
    return report


def _write_down(parts: Parts, report: RunReport, failure: BaseException | None) -> None:
    with parts.ledger.transaction():
        if isinstance(failure, DashboardUnreachable) and failure.retry_after_seconds:
            parts.ledger.journal.set_fact(PAUSE, time.time() + min(failure.retry_after_seconds, LONGEST_PAUSE_SECONDS))
        parts.ledger.journal.add_run(report)
        for name, amount in ((DELIVERED_BY + report.command, report.delivered), (MISSED, report.missed)):
            if amount:
                parts.ledger.journal.raise_fact(name, amount)


def _write_metrics(parts: Parts) -> None:
    config = parts.config
    if config.metrics_file is None or parts.dry_run:
        return
    from agent.status import metrics  # noqa: PLC0415  # not needed by a flush that writes none
    from agent.status import snapshot as status  # noqa: PLC0415  # not needed by a flush that writes none

    try:
        metrics.write_metrics(config.metrics_file, status.take_snapshot(config, parts.ledger, time.time()))
    except ExporterError as error:  # the run itself went as it went
        logger.warning("%s (%s)", error, error.hint)


def _keep_books(parts: Parts, reconcile: Reconcile, wanted: Range) -> None:
    """Coverage of the days that were seen whole, and an end to what is older than any window."""
    tally = reconcile.tally
    oldest = day_start(local_day(time.time()) - timedelta(days=parts.config.collection_window_days + SPARE_DAYS))
    days = {
        day.isoformat(): (jobs, tally.hooked_by_day[day])
        for day, jobs in tally.jobs_by_day.items()
        if day_start(day) >= max(wanted.start, oldest)
    }
    with parts.ledger.transaction():
        parts.ledger.journal.set_coverage(days)
        parts.ledger.journal.set_fact(MISSED_END, max(tally.missed_end, parts.ledger.journal.fact(MISSED_END)))
        requeued_before = oldest - earlier.LOOKBACK_SECONDS
        parts.ledger.prune(
            ended_before=oldest, requeued_before=requeued_before, runs_before=time.time() - RUNS_KEPT_SECONDS
        )
        earlier.note_forgotten(parts.ledger, before=requeued_before)


def _describe(delivery: Delivery) -> str:
    cpu_hours = delivery.cpu_seconds / SECONDS_PER_HOUR
    gpu_hours = delivery.gpu_seconds / SECONDS_PER_HOUR
    return (
        f"{delivery.delivered} delivered ({cpu_hours:.1f} CPU-hours, {gpu_hours:.1f} GPU-hours), "
        f"{delivery.rejected} rejected" + (f", {delivery.refused} refused and kept" if delivery.refused else "")
    )


def _go_on(done_to: int, wanted: Range) -> str:
    """How to take up a range again; days are done again from their first second on."""
    if done_to < wanted.start:
        return "nothing of the range was done"
    dates = f"--start-date {local_day(done_to + 1)}"
    if local_day(wanted.end) < local_day(time.time()):
        dates += f" --end-date {local_day(wanted.end)}"
    return f"done up to {local_text(done_to)}; go on with {dates}"
