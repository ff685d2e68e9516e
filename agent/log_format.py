"""The log on standard error, formatted for journald, a terminal or a log file."""

from __future__ import annotations

import logging
import os
import sys
from typing import Callable, Mapping, TextIO

from agent.sanitize import printable

#: The priority that journald reads at the start of a line.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def set_up(lowest: int, rename: Callable[[str], str] | None) -> None:
    """Sends the package's log to standard error.

    :param lowest: messages below this level are dropped.
    :param rename: rewrites each message for an instance.
    """
    handler = logging.StreamHandler()
    if rename:
        handler.addFilter(_Renaming(rename))
    handler.setFormatter(make_formatter(sys.stderr, os.environ))
    package = logging.getLogger("agent")
    package.handlers[:] = [handler]
    package.setLevel(lowest)
    package.propagate = False


def make_formatter(stream: TextIO, environ: Mapping[str, str]) -> logging.Formatter:
    """The format of a line: with a priority in the journal, with the time in a file, with neither on a terminal.

    :param environ: holds JOURNAL_STREAM if systemd has connected a stream to the journal.
    """
    if _is_journal(stream, environ.get("JOURNAL_STREAM", "")):
        return _JournalFormatter("%(levelname)s - %(message)s")
    if stream.isatty():
        return _Formatter("%(levelname)s - %(message)s")
    return _Formatter("%(asctime)s - %(levelname)s - %(message)s")


def _is_journal(stream: TextIO, journal: str) -> bool:
    """Whether the stream is the one in JOURNAL_STREAM, and not redirected by a script since."""
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
    """Strips control characters, wherever a text comes from."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _JournalFormatter(_Formatter):
    """Prefixes every line of a message with the priority that journald reads."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
