"""What a run has done so far, and the report that it leaves in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import STOPPED, DashboardUnreachable, RecordsRejected
from agent.spool.run_history import RunReport

if TYPE_CHECKING:
    from agent.sync.delivery import Delivery
    from agent.sync.reconcile import Tally


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
