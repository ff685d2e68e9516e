"""How the controllers of a cluster notify each other: small files in the folder that they share.

Each host writes a file of its own, which the others read. It says when the jobs ended for which the hook was called
there, and when a reconcile last succeeded there. So every host knows which jobs were queued by no hook at all. Failures
to read or write are ignored: the host then counts as if it were the only one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, Sequence

from agent.localtime import Range
from agent.logger import Logger
from agent.spool.shared_folder import SharedFolder

NOTICE_PREFIX = "notices."
#: More than the hook's END and the End in the accounting can differ.
CALLS_SLACK_SECONDS = 5
#: More than a month of one flush every five minutes.
LARGE_NOTICES_BYTES = 300_000
_CALLED = r"called ([0-9]{1,12}) ([0-9]{1,12})"
_RECONCILED = r"reconciled ([0-9]{1,12})"

logger = Logger(__name__)


class Notices:
    """The notices of all controllers.

    :param folder: the folder that all controllers share.
    :param host: the name of this controller.
    """

    def __init__(self, folder: SharedFolder, host: str) -> None:
        self._folder = folder
        self._own = folder.path / f"{NOTICE_PREFIX}{host}"
        self._aside = self._own.with_name(f"{self._own.name}.new")

    def add_calls(self, ends: Sequence[Range], *, forget_before: float) -> None:
        """Announces that the hook was called for jobs that ended in these ranges.

        Once the file is large, calls for jobs that ended before ``forget_before`` are removed. This also limits it on a
        host that never reconciles.
        """

        def add() -> None:
            with self._own.open("a", encoding="ascii") as file:
                file.writelines(f"called {first} {last}\n" for first, last in ends)
                size = file.tell()
            if size > LARGE_NOTICES_BYTES:
                reconciled = [line for line in self._own_lines() if re.fullmatch(_RECONCILED, line)][-1:]
                self._replace([*self._own_calls(forget_before), *reconciled])

        self._try(add)

    def add_reconcile(self, epoch_seconds: float, *, forget_before: float) -> None:
        """Announces a successful reconcile, and removes calls for jobs that ended before ``forget_before``."""

        def add() -> None:
            self._replace([*self._own_calls(forget_before), f"reconciled {epoch_seconds:.0f}"])

        self._try(add)

    def others_calls(self) -> list[Range]:
        """The ranges of End for which the hooks of other controllers were called."""
        found = [re.fullmatch(_CALLED, line) for line in self._others_lines()]
        calls = [(int(match[1]), int(match[2])) for match in found if match]
        return [Range(first - CALLS_SLACK_SECONDS, last + CALLS_SLACK_SECONDS) for first, last in calls]

    def last_reconcile(self) -> float:
        """When a reconcile of another controller last succeeded, in epoch seconds; 0 if unknown."""
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
