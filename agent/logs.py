"""The log on standard error, as journald, a terminal or a log file wants it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Callable, Mapping, TextIO

from agent.errors import ExporterError
from agent.wording import printable

#: What journald reads at the start of a line as its priority.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

#: Of the same complaint an admin sees so many; the rest is counted.
SHOWN_COMPLAINTS = 5

logger = logging.getLogger(__name__)


class Complaints:
    """Logs what was passed over, the first few in full and the rest as a number."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: ExporterError) -> None:
        self.count += 1
        if self.count <= SHOWN_COMPLAINTS:
            logger.warning("passed over: %s", error)

    def close(self) -> None:
        """Says how many were not shown."""
        if self.count > SHOWN_COMPLAINTS:
            logger.warning("passed over: %d more like these", self.count - SHOWN_COMPLAINTS)


def set_up_logging(*, verbose: bool, rename: Callable[[str], str] | None = None) -> None:
    """Logs what the package has to say to standard error.

    :param rename: makes of each message what is told of an instance.
    """
    handler = logging.StreamHandler()
    if rename:
        handler.addFilter(_Renaming(rename))
    handler.setFormatter(make_formatter(sys.stderr, os.environ))
    package = logging.getLogger("agent")
    package.handlers[:] = [handler]
    package.setLevel(logging.DEBUG if verbose else logging.INFO)
    package.propagate = False


def make_formatter(stream: TextIO, environ: Mapping[str, str]) -> logging.Formatter:
    """How a line looks: in the journal with its priority, in a file with the time, on a terminal with neither.

    :param environ: holds JOURNAL_STREAM where systemd has connected a stream with the journal.
    """
    if _is_journal(stream, environ.get("JOURNAL_STREAM", "")):
        return _JournalFormatter("%(levelname)s - %(message)s")
    if stream.isatty():
        return _Formatter("%(levelname)s - %(message)s")
    return _Formatter("%(asctime)s - %(levelname)s - %(message)s")


def _is_journal(stream: TextIO, journal: str) -> bool:
    """Whether the stream is the one that JOURNAL_STREAM names, and not a file or a pipe that a script put there."""
    try:
        info = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal == f"{info.st_dev}:{info.st_ino}"


class _Renaming(logging.Filter):
    def __init__(self, rename: Callable[[str], str]) -> None:
        super().__init__()
        self._rename = rename

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._rename(record.getMessage()), None
        return True


class _Formatter(logging.Formatter):
    """Lets no control character through, whoever's words they are."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _JournalFormatter(_Formatter):
    """Each line with the priority that journald reads, those of a message with several as well."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
