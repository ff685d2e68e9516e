"""The result of a check, and how it is shown."""

from __future__ import annotations

from typing import Callable, NamedTuple

from agent.errors import ExporterError
from agent.sanitize import printable
from agent.wording import Style

NAME_WIDTH = 16
_MARKS = {True: ("✔", "ok", "32"), False: ("✘", "!!", "31"), None: ("–", "??", "33")}


class Finding(NamedTuple):
    """One line of ``check``."""

    name: str
    ok: bool | None  # None: not tested
    text: str
    mend: str = ""
    run: str = ""  # a shell command that does what ``mend`` says, for root or for the user who installed it

    def as_lines(self, style: Style) -> str:
        """For the screen: the finding, and below it the remedy in words and as a command."""
        sign, word, colour = _MARKS[self.ok]
        mark, arrow = (sign, "→") if style.unicode else (word, "->")
        margin = "\n" + " " * (len(mark) + 1 + NAME_WIDTH)
        remedy = self.mend
        lines = [self.text.replace("\n  ", margin)]
        if remedy:
            lines.append(f"{arrow} {remedy}")
        if self.run not in {"", remedy}:
            lines.append(f"# {self.run}")
        return f"{style.paint(mark, colour)} {self.name:{NAME_WIDTH}}{margin.join(lines)}"


class NotWell(ExporterError):
    """A check found a problem.

    :param hint: how to fix it.
    :param run: a shell command that fixes it, safe to run unchanged; empty if there is none.
    """

    def __init__(self, message: str, *, hint: str = "", run: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run = run if run.isprintable() else ""  # on the screen the command would be a different one


def not_tested(name: str, lacks: str) -> Finding:
    """The finding of a check that lacks what it needs, in words."""
    return Finding(name, None, f"not tested: requires {lacks}")


def examine(name: str, check: Callable[[], str]) -> Finding:
    """Runs a check, which returns its result, or raises the problem.

    Only an ``ExporterError`` is a finding; any other exception is a bug in the check.
    """
    try:
        return Finding(name, True, printable(check()))
    except ExporterError as error:
        return Finding(name, False, str(error), error.hint, getattr(error, "run", ""))
