"""What can go wrong, each kind with its exit code and a hint for the admin."""

from __future__ import annotations

from typing import ClassVar

from agent.wording import printable

#: The exit code of a run that Ctrl-C or SIGTERM has stopped.
STOPPED = 130


class ExporterError(Exception):
    """Any failure that the admin is told in a sentence instead of a traceback.

    :param message: what happened, for the admin.
    :param hint: what to do about it; may be empty.
    :param subject: the thing that was wrong (a file's path, an answer, a record), for whoever handles the error.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", subject: object = None) -> None:
        # Here all words of others' pass on their way into the log, the ledger and onto a screen.
        super().__init__(printable(message))
        self.hint = printable(hint)
        self.subject = subject


class UsageError(ExporterError):
    """The command line asks for something impossible."""

    exit_code = 2


class RecordsRejected(ExporterError):
    """The dashboard refused some records for good; the others went through."""

    exit_code = 65


class UnreadableRow(ExporterError):
    """A row of sacct that makes no sense; ``subject`` holds its values. It is counted and passed over."""


class UnreadableLine(ExporterError):
    """A line of the queue that is no JobID; ``subject`` holds it. It is counted and passed over."""


class Unreachable(ExporterError):
    """A neighbour does not answer, or not sensibly. Everything is kept for a later run."""

    exit_code = 69


class SlurmUnreachable(Unreachable):
    """sacct or scontrol failed, or gave an answer that can't be trusted."""


class TimeRangeTooWide(SlurmUnreachable):
    """slurmdbd's MaxQueryTimeRange does not allow this user to ask for so long a time at once."""


class DashboardUnreachable(Unreachable):
    """The dashboard could not be reached or did not take the records, after the retries.

    :param retry_after_seconds: how long the dashboard asked to be left alone, 0 where it did not.
    :param permanent: trying again within the run can't help.
    :param timed_out: there was no answer in time, and the dashboard may be at work on the request still.
    :param overwhelmed: it, or a proxy before it, gave this request up; a smaller one may get through.
    :param foreign: something else answered in its place. It may do so for the sake of one record, as firewalls do.
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
    """The dashboard is there, but does not take this batch as it is. Never leaves the delivery.

    :param named: the dashboard's words for each record that it names, by its index in the batch.
    """

    def __init__(self, message: str, *, named: dict[int, str] | None = None) -> None:
        super().__init__(message)
        self.named = named or {}


class BatchTooLarge(BatchRefused):
    """The dashboard, or a proxy before it, takes no POST of this size."""


class BatchForbidden(BatchRefused):
    """The key may not do this, or a firewall before the dashboard dislikes a record."""


class SpoolError(ExporterError):
    """The spool can't be used safely: missing, full, read-only, or open to others."""

    exit_code = 1


class LedgerDamaged(SpoolError):
    """The ledger is no sound database, or one of a newer version. It can be rebuilt from Slurm's accounting."""


class MetricsError(ExporterError):
    """The metrics file can't be written. The run goes on without."""


class Busy(ExporterError):
    """Another run holds the lock."""

    exit_code = 75


class KeyRefused(ExporterError):
    """The dashboard does not accept the API key."""

    exit_code = 77


class ConfigError(ExporterError):
    """The configuration is missing, unreadable or wrong."""

    exit_code = 78
