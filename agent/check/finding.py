"""What a check has found."""

from __future__ import annotations

from typing import Callable, NamedTuple

from agent.errors import ExporterError


class Finding(NamedTuple):
    """One line of ``check``."""

    name: str
    ok: bool | None  # None: it could not be tested
    text: str
    mend: str = ""


class NotWell(ExporterError):
    """A check has found something wrong; the hint says how to mend it."""


def examine(name: str, check: Callable[[], str]) -> Finding:
    """Runs a check, which returns what it found, or raises what is wrong.

    Only errors of ours are findings: any other is a defect of the check.
    """
    try:
        return Finding(name, True, check())
    except ExporterError as error:
        return Finding(name, False, str(error), error.hint)
