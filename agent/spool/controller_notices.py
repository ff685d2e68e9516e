"""What the controllers of a cluster tell each other, in small files in the folder that they share.

Each host writes a file of its own, of which the others read: when jobs ended for which the hook was called there, and
when a reconcile went well there. So each knows which jobs no host's hook has brought. What can't be written or read is
left out: then a host counts as if it were alone.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Callable

from agent.localtime import Range
from agent.spool.shared_folder import SharedFolder

NOTICE_PREFIX = "notices."
#: How far the hook's END and the End in the accounting may differ, and then some.
CALLS_SLACK_SECONDS = 5
#: A month of a flush every five minutes, and more.
LARGE_NOTICES_BYTES = 300_000
_CALLED = r"called ([0-9]{1,12}) ([0-9]{1,12})"
_RECONCILED = r"reconciled ([0-9]{1,12})"

logger = logging.getLogger(__name__)


class Notices:
    """The notices of all controllers.

    :param folder: the one that all controllers share.
    :param host: this one's name.
    """

    def __init__(self, folder: SharedFolder, host: str) -> None:
        self._folder = folder
        self._own = folder.path / f"{NOTICE_PREFIX}{host}"
        self._aside = self._own.with_name(f"{self._own.name}.new")

    def add_calls(self, ends: Range, *, forget_before: float) -> None:
        """Tells that the hook was called for jobs of which the first and the last ended then.

        A file that has become large forgets what ended before an instant: on a host that never reconciles, too.
        """

        def add() -> None:
            with self._own.open("a", encoding="ascii") as file:
                file.write(f"called {ends.start} {ends.end}\n")
                size = file.tell()
            if size > LARGE_NOTICES_BYTES:
                told = [line for line in self._own_lines() if re.fullmatch(_RECONCILED, line)][-1:]
                self._replace([*self._own_calls(forget_before), *told])

        self._try(add)

    def add_reconcile(self, epoch_seconds: float, *, forget_before: float) -> None:
        """Tells that a reconcile has gone well, and forgets calls for what ended before an instant."""

        def add() -> None:
            self._replace([*self._own_calls(forget_before), f"reconciled {epoch_seconds:.0f}"])

        self._try(add)

    def others_calls(self) -> list[Range]:
        """For which times of End the hooks of other controllers were called."""
        found = [re.fullmatch(_CALLED, line) for line in self._others_lines()]
        calls = [(int(match[1]), int(match[2])) for match in found if match]
        return [Range(first - CALLS_SLACK_SECONDS, last + CALLS_SLACK_SECONDS) for first, last in calls]

    def last_reconcile(self) -> float:
        """When a reconcile of another controller last went well, in epoch seconds; 0 where that is not known."""
        found = [re.fullmatch(_RECONCILED, line) for line in self._others_lines()]
        return max((float(match[1]) for match in found if match), default=0.0)

    def _own_calls(self, forget_before: float) -> list[str]:
        return [line for line in self._own_lines() if _is_later(line, forget_before)]

    def _own_lines(self) -> list[str]:
        return _read(self._own) if self._own.exists() else []

    def _others_lines(self) -> list[str]:
        lines: list[str] = []

        def read() -> None:
            for path in sorted(self._folder.path.glob(f"{NOTICE_PREFIX}*")):
                if path not in {self._own, self._aside}:
                    lines.extend(_read(path))

        self._try(read)
        return lines

    def _replace(self, lines: list[str]) -> None:
        self._aside.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        self._aside.replace(self._own)

    def _try(self, what: Callable[[], None]) -> None:
        try:
            self._folder.ask(what)
        except OSError as error:
            logger.debug("%s", error)


def _read(path: Path) -> list[str]:
    return path.read_text(encoding="ascii", errors="replace").splitlines()


def _is_later(line: str, instant: float) -> bool:
    match = re.fullmatch(_CALLED, line)
    return match is not None and int(match[2]) >= instant
