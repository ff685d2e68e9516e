"""What the controllers of a cluster tell each other, in small files in the folder that they share.

Each host writes a file of its own, of which the others read: when jobs ended for which the hook was called there, and
when a reconcile went well there. So each knows which jobs no host's hook has brought. What can't be written or read is
left out: then a host counts as if it were alone.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Iterator

from agent.localtime import Range

NOTICE_PREFIX = "notices."
#: How far the hook's END and the End in the accounting may differ, and then some.
CALLS_SLACK_SECONDS = 5
_CALLED = r"called ([0-9]{1,12}) ([0-9]{1,12})"
_RECONCILED = r"reconciled ([0-9]{1,12})"

logger = logging.getLogger(__name__)


class Notices:
    """The notices of all controllers.

    :param folder: the one that all controllers share.
    :param host: this one's name.
    """

    def __init__(self, folder: Path, host: str) -> None:
        self._folder = folder
        self._own = folder / f"{NOTICE_PREFIX}{host}"

    def add_calls(self, ends: Range) -> None:
        """Tells that the hook was called for jobs of which the first and the last ended then."""
        self._append(f"called {ends.start} {ends.end}")

    def add_reconcile(self, epoch_seconds: float, *, forget_before: float) -> None:
        """Tells that a reconcile has gone well, and forgets calls for what ended before an instant."""
        kept = [line for line in self._lines(self._own) if _is_later(line, forget_before)]
        text = "".join(f"{line}\n" for line in [*kept, f"reconciled {epoch_seconds:.0f}"])
        aside = self._own.with_name(f"{self._own.name}.new")
        try:
            aside.write_text(text, encoding="ascii")
            aside.replace(self._own)
        except OSError as error:
            logger.debug("%s", error)

    def others_calls(self) -> list[Range]:
        """For which times of End the hooks of other controllers were called."""
        found = [re.fullmatch(_CALLED, line) for line in self._others_lines()]
        calls = [(int(match[1]), int(match[2])) for match in found if match]
        return [Range(first - CALLS_SLACK_SECONDS, last + CALLS_SLACK_SECONDS) for first, last in calls]

    def last_reconcile(self) -> float:
        """When a reconcile of another controller last went well, in epoch seconds; 0 where that is not known."""
        found = [re.fullmatch(_RECONCILED, line) for line in self._others_lines()]
        return max((float(match[1]) for match in found if match), default=0.0)

    def _append(self, line: str) -> None:
        try:
            with self._own.open("a", encoding="ascii") as file:
                file.write(f"{line}\n")
        except OSError as error:
            logger.debug("%s", error)

    def _others_lines(self) -> Iterator[str]:
        for path in sorted(self._folder.glob(f"{NOTICE_PREFIX}*")):
            if path not in {self._own, self._own.with_name(f"{self._own.name}.new")}:
                yield from self._lines(path)

    @staticmethod
    def _lines(path: Path) -> list[str]:
        try:
            return path.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError as error:
            logger.debug("%s", error)
            return []


def _is_later(line: str, instant: float) -> bool:
    match = re.fullmatch(_CALLED, line)
    return match is not None and int(match[2]) >= instant
