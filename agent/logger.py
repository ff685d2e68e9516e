"""The loggers of all modules. Importing logging takes a sixth of an idle flush, so it is left to the first message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from agent.errors import Busy, ExporterError

if TYPE_CHECKING:
    import logging

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40  # the numbers of logging

#: How many complaints are logged in full; the rest are counted.
SHOWN_COMPLAINTS = 5


class Logger:
    """The logger of a module."""

    #: Messages below this level are dropped, in all modules.
    lowest = DEBUG
    #: Called once, before the next message.
    set_up: Callable[[], None] | None = None

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, message: str, *values: object) -> None:
        self.log(DEBUG, message, *values)

    def info(self, message: str, *values: object) -> None:
        self.log(INFO, message, *values)

    def warning(self, message: str, *values: object) -> None:
        self.log(WARNING, message, *values)

    def error(self, message: str, *values: object) -> None:
        self.log(ERROR, message, *values)

    def exception(self, message: str) -> None:
        """Logs an error with the traceback of the exception that is being handled."""
        self.real().exception(message)

    def log(self, level: int, message: str, *values: object) -> None:
        if level >= Logger.lowest:
            self.real().log(level, message, *values)

    def real(self) -> logging.Logger:
        """The logger of the same name in logging, which is set up by then."""
        import logging  # noqa: PLC0415

        set_up, Logger.set_up = Logger.set_up, None
        if set_up:
            set_up()
        return logging.getLogger(self._name)


def set_up_logging(*, verbose: bool, rename: Callable[[str], str] | None = None) -> None:
    """Sends the log to standard error.

    :param rename: rewrites each message for an instance.
    """

    def set_up() -> None:
        from agent import log_format  # noqa: PLC0415

        log_format.set_up(Logger.lowest, rename)

    Logger.lowest, Logger.set_up = DEBUG if verbose else INFO, set_up


def report_failure(error: ExporterError) -> None:
    """Logs why a run failed and what to do. A lock held by another run is logged as information only."""
    logger.log(INFO if isinstance(error, Busy) else ERROR, "%s", error.with_hint())


class Complaints:
    """Logs what was skipped: the first few in full, the rest as a number."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: ExporterError) -> None:
        self.count += 1
        if self.count <= SHOWN_COMPLAINTS:
            logger.warning("skipped: %s", error)

    def close(self) -> None:
        """Logs how many were not shown."""
        if self.count > SHOWN_COMPLAINTS:
            logger.warning("skipped: %d more like these", self.count - SHOWN_COMPLAINTS)


logger = Logger(__name__)
#: The parent of all others: handlers are attached to it.
PACKAGE = Logger("agent")
