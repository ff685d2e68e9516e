"""The outcome of a run, and what it writes to the ledger about itself, about what it saw, and for later runs."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Callable

from agent.config import Config
from agent.errors import STOPPED, DashboardUnreachable, RecordsRejected
from agent.localtime import Range, day_start, local_day
from agent.spool.facts import DELIVERED_BY, MISSED, MISSED_END, ODD_ROWS, PAUSE
from agent.spool.ledger import Ledger
from agent.spool.run_history import RunReport
from agent.sync.work_due import LONGEST_KEPT_PAUSE_SECONDS

if TYPE_CHECKING:
    from agent.sync.delivery import Delivery
    from agent.sync.prepare import Settings
    from agent.sync.reconcile import Tally

#: The ledger keeps deliveries for the collection window and this many days more.
SPARE_DAYS = 2
RUNS_KEPT_SECONDS = 30 * 86_400.0
#: The note that identifies what turned rows into records.
ROWS_NOTE = "rows_made_by"


class Outcome:
    """The outcome of one flush or reconcile.

    ``missed`` counts the jobs that the hook had not queued, and ``message`` says in one line what was done.
    """

    def __init__(self) -> None:
        self.delivery: Delivery | None = None
        self.missed = 0
        self.message = "nothing to do"

    def raise_if_refused(self) -> None:
        """Makes a failure of a run in which the dashboard did not accept some of the records.

        :raises DashboardUnreachable: if some are still queued.
        :raises RecordsRejected: if some were set aside.
        """
        if self.delivery and self.delivery.refused:
            hint = "see `queue list` for the error messages, and the dashboard's own log"
            raise DashboardUnreachable(self.message, hint=hint)
        if self.delivery and self.delivery.rejected:
            hint = "see `queue list`; `queue retry` sends them again, `queue drop JOBID` discards one"
            raise RecordsRejected(self.message, hint=hint)

    def report(self, command: str, started_at: float, seconds: float, failure: BaseException | None) -> RunReport:
        """The report of the run.

        :param started_at: epoch seconds.
        :param seconds: how long it took.
        """
        return RunReport(
            command,
            started_at,
            seconds,
            getattr(failure, "exit_code", STOPPED) if failure else 0,
            str(failure) or "stopped" if failure else self.message,
            self.delivery.delivered if self.delivery else 0,
            self.delivery.rejected if self.delivery else 0,
            self.missed,
        )


def describe(delivery: Delivery, *, dry_run: bool) -> str:
    """What was delivered, in words for the log."""
    from agent.jobs.record import SECONDS_PER_HOUR  # noqa: PLC0415

    would_be = " would be" if dry_run else ""
    cpu_hours = delivery.cpu_seconds / SECONDS_PER_HOUR
    gpu_hours = delivery.gpu_seconds / SECONDS_PER_HOUR
    return (
        f"{delivery.delivered}{would_be} delivered ({cpu_hours:.1f} CPU-hours, {gpu_hours:.1f} GPU-hours), "
        f"{delivery.rejected} rejected" + (f", {delivery.refused} refused and kept" if delivery.refused else "")
    )


def describe_reconcile(tally: Tally, delivery: Delivery, *, dry_run: bool) -> str:
    """Likewise, and what a reconcile has seen."""
    return (
        f"{tally.jobs} jobs ended in the range, {describe(delivery, dry_run=dry_run)}, "
        + (f"{tally.unchanged} unchanged, " if tally.unchanged else "")
        + f"{tally.missed} missed by the hook"
    )


class Bookkeeping:
    """Writes to the ledger of one spool what its runs did and saw.

    :param clock: epoch seconds.
    """

    def __init__(self, config: Config, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._config = config
        self._ledger = ledger
        self._history = ledger.history
        self._facts = ledger.facts
        self._clock = clock

    @property
    def oldest(self) -> int:
        """Epoch seconds; no reconcile of the window asks again for jobs that ended earlier."""
        kept_days = self._config.collection_window_days + SPARE_DAYS
        return day_start(local_day(self._clock()) - timedelta(days=kept_days))

    def write_down(self, report: RunReport, failure: BaseException | None, *, odd_rows: int) -> None:
        """Records the outcome of a run, and a Retry-After of the dashboard.

        :param odd_rows: how many rows of sacct the run could not read.
        """
        with self._ledger.transaction():
            if isinstance(failure, DashboardUnreachable) and failure.retry_after_seconds:
                pause = min(failure.retry_after_seconds, LONGEST_KEPT_PAUSE_SECONDS)
                self._facts.set(PAUSE, self._clock() + pause)
            self._history.add_run(report)
            # A reconcile meets every odd row again, so its count replaces the previous one.
            known = 0.0 if report.command == "reconcile" and not report.exit_code else self._facts.get(ODD_ROWS)
            self._facts.set(ODD_ROWS, max(known, odd_rows))
            for name, amount in ((DELIVERED_BY + report.command, report.delivered), (MISSED, report.missed)):
                if amount:
                    self._facts.add(name, amount)

    def keep(self, tally: Tally, wanted: Range) -> None:
        """Records the coverage of complete days, and deletes what is older than any window."""
        from agent.jobs.job import LOOKBACK_SECONDS  # noqa: PLC0415
        from agent.sync.lookback import note_forgotten  # noqa: PLC0415

        oldest = self.oldest
        days = {
            day.isoformat(): (jobs, tally.hooked_by_day[day])
            for day, jobs in tally.jobs_by_day.items()
            if day_start(day) >= max(wanted.start, oldest)
        }
        requeued_before = oldest - LOOKBACK_SECONDS
        with self._ledger.transaction():
            self._history.set_coverage(days)
            self._history.extend_history(wanted.start, wanted.end)
            self._facts.set(MISSED_END, max(tally.missed_end, self._facts.get(MISSED_END)))
            self._ledger.prune(
                ended_before=oldest,
                requeued_before=requeued_before,
                runs_before=self._clock() - RUNS_KEPT_SECONDS,
            )
            note_forgotten(self._ledger, before=requeued_before)

    def recognize_rows(self, settings: Settings) -> None:
        """Forgets the delivered rows if the settings, the time zone or the record format have changed since."""
        import json  # noqa: PLC0415

        from agent.jobs.record import FORMAT  # noqa: PLC0415

        made_by = json.dumps([FORMAT, settings.cluster, settings.requeued_runs, time.tzname, time.timezone])
        if self._facts.text(ROWS_NOTE) != made_by:
            with self._ledger.transaction():
                self._ledger.delivered.forget_rows()
                self._facts.set_text(ROWS_NOTE, made_by)
