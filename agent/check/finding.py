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
    run: str = ""  # a line of shell for root, or for whoever installed it, that does what ``mend`` says


class NotWell(ExporterError):
    """A check has found something wrong.

    :param hint: how to fix it.
    :param run: a line of shell that does so, safe to run as it stands; empty where no line can.
    """

    def __init__(self, message: str, *, hint: str = "", run: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run = run


class NotTested(NotWell):
    """A check could not be made, which is no fault by itself; the hint says what would make it possible."""


def examine(name: str, check: Callable[[], str]) -> Finding:
    """Runs a check, which returns what it found, or raises what is wrong.

    Only errors of ours are findings: any other is a defect of the check.
    """
    try:
        return Finding(name, True, check())
    except ExporterError as error:
        ok = None if isinstance(error, NotTested) else False
        return Finding(name, ok, str(error), error.hint, getattr(error, "run", ""))
