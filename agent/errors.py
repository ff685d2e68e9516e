"""The errors, each kind with its exit code and a hint for the admin."""

from __future__ import annotations

from typing import ClassVar

from agent.sanitize import printable

#: The exit code of a run stopped by Ctrl-C or SIGTERM.
STOPPED = 130


class ExporterError(Exception):
    """A failure that is reported to the admin in a sentence instead of a traceback.

    :param message: what happened, for the admin.
    :param hint: what to do about it; may be empty.
    :param subject: the offending object (a path, an answer, a record), for the code that handles the error.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", subject: object = None) -> None:
        # Every text from outside passes here before it reaches the log, the ledger or a screen.
        super().__init__(printable(message))
        self.hint = printable(hint)
        self.subject = subject

    def with_hint(self) -> str:
        """The message, followed by the hint in brackets."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class UsageError(ExporterError):
    """Wrong usage of the command line."""

    exit_code = 2


class RecordsRejected(ExporterError):
    """The dashboard permanently rejected some records; the others were delivered."""

    exit_code = 65


class UnreadableRow(ExporterError):
    """An unreadable row of sacct's; ``subject`` holds its values. It is counted and skipped."""


class UnreadableLine(ExporterError):
    """A line of the queue without a valid JobID; ``subject`` holds it. It is counted and skipped."""


class Unreachable(ExporterError):
    """Slurm or the dashboard gives no usable answer. Everything is kept for a later run."""

    exit_code = 69


class SlurmUnreachable(Unreachable):
    """sacct or scontrol failed, or gave an answer that can't be trusted."""


class TimeRangeTooWide(SlurmUnreachable):
    """The time range exceeds slurmdbd's MaxQueryTimeRange, which applies to this user."""


class DashboardUnreachable(Unreachable):
    """After all retries, the dashboard could not be reached or did not accept the records.

    :param retry_after_seconds: the Retry-After that the dashboard asked for, 0 if none.
    :param permanent: retrying within this run cannot help.
    :param timed_out: no answer came in time; the dashboard may still be processing the request.
    :param overwhelmed: the dashboard, or a proxy in front of it, gave up on the request; a smaller one may succeed.
    :param foreign: something else answered in its place, such as a firewall that blocks one record.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        subject: object = None,
        retry_after_seconds: float = 0.0,
        permanent: bool = False,
        timed_out: bool = False,
        overwhelmed: bool = False,
        foreign: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, subject=subject)
        self.retry_after_seconds = retry_after_seconds
        self.permanent = permanent
        self.timed_out = timed_out
        self.overwhelmed = overwhelmed
        self.foreign = foreign


class BatchRefused(ExporterError):
    """The dashboard answers, but does not accept this batch. Handled inside the delivery.

    :param named: the dashboard's error message for each record that it names, by index in the batch.
    """

    def __init__(self, message: str, *, named: dict[int, str] | None = None) -> None:
        super().__init__(message)
        self.named = named or {}


class BatchTooLarge(BatchRefused):
    """The dashboard, or a proxy in front of it, accepts no POST of this size."""


class BatchForbidden(BatchRefused):
    """The key lacks the right, or a firewall in front of the dashboard blocks a record."""


class SpoolError(ExporterError):
    """The spool cannot be used safely: it is missing, full, read-only, or writable by others."""

    exit_code = 1


class LedgerDamaged(SpoolError):
    """The ledger is damaged, or written by a newer version. It can be rebuilt from Slurm's accounting."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="the next flush or reconcile sets it aside and starts a new one; no job is lost")


class MetricsError(ExporterError):
    """The metrics file cannot be written. The run continues without it."""


class Busy(ExporterError):
    """Another run holds the lock."""

    exit_code = 75


class KeyRefused(ExporterError):
    """The dashboard does not accept the API key."""

    exit_code = 77


class ConfigError(ExporterError):
    """The configuration is missing, unreadable or wrong."""

    exit_code = 78
