"""Formats the findings of a check for the screen and as JSON. Pure."""

from __future__ import annotations

from typing import Any, Sequence

from agent.check.finding import Finding
from agent.wording import Style

NAME_WIDTH = 16
_MARKS = {True: ("✔", "ok", "32"), False: ("✘", "!!", "31"), None: ("–", "??", "33")}


def as_lines(finding: Finding, style: Style) -> str:
    """A finding for the screen: its line, and below it the remedy in words and as a command."""
    sign, word, colour = _MARKS[finding.ok]
    mark, arrow = (sign, "→") if style.unicode else (word, "->")
    margin = "\n" + " " * (len(mark) + 1 + NAME_WIDTH)
    remedy = finding.mend
    text = finding.text.replace("\n  ", margin) + (f"{margin}{arrow} {remedy}" if remedy else "")
    text += f"{margin}# {finding.run}" if finding.run not in {"", remedy} else ""
    return f"{style.paint(mark, colour)} {finding.name:{NAME_WIDTH}}{text}"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """What ``check --json`` prints."""
    return {"ok": all(finding.ok for finding in findings), "checks": [finding._asdict() for finding in findings]}
