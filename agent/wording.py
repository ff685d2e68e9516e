"""Formats numbers, spans and moments for an admin, and makes foreign text safe to print. Pure."""

from __future__ import annotations

import math
import re
from typing import Iterable, NamedTuple

from agent.localtime import local_day, local_text

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def count(number: float, noun: str) -> str:
    """A number with its noun, in the singular or plural.

    >>> count(1, "job"), count(18234, "job")
    ('1 job', '18,234 jobs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """A length of time in its two largest units.

    >>> span(0.42), span(41), span(7260), span(90061)
    ('0.4 s', '41 s', '2 h 1 min', '1 d 1 h')
    """
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    rest = round(seconds)
    words: list[str] = []
    for name, size in _UNITS:
        number, rest = divmod(rest, size)
        if number or words:
            words.append(f"{number} {name}" if number else "")
        if len(words) == 2:
            break
    return " ".join(filter(None, words))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suffix for an error about an unknown word: the closest known one, if any is close.

    >>> did_you_mean("statsu", ["status", "setup"])
    '; did you mean status?'
    """
    from difflib import get_close_matches  # noqa: PLC0415  # slow to import, and rarely needed

    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


_PROGRAM = "slurm-usage-history-exporter"
_COMMAND = rf"(?<![/@\w-]){_PROGRAM}(?= (?:flush|reconcile|queue|status|check|setup)\b)"
_UNIT = rf"({_PROGRAM}(?:-flush(?:-soon)?)?)(?=\.(?:service|timer|path|target)\b)"


def name_instance(text: str, instance: str) -> str:
    """The text with its commands and units named for an instance.

    >>> name_instance("see `slurm-usage-history-exporter check`", "physics")
    'see `slurm-usage-history-exporter --instance physics check`'
    """
    if not instance:
        return text
    return re.sub(_UNIT, rf"\1@{instance}", re.sub(_COMMAND, f"{_PROGRAM} --instance {instance}", text))


def moment(at: float, now: float) -> str:
    """A past moment: the time (with the date unless it is today) and how long ago that was."""
    day, clock = local_text(int(at)).split("T")
    when = clock if local_day(at) == local_day(now) else f"{day} {clock[:5]}"
    return f"{when} ({span(now - at)} ago)"


def percent(ratio: float) -> str:
    """A ratio as a percentage, rounded down: 100.0 % means all.

    >>> percent(0.99999), percent(1)
    ('99.9 %', '100.0 %')
    """
    return f"{math.floor(ratio * 1000) / 10:.1f} %"


class Style(NamedTuple):
    """What the terminal can show."""

    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, colour: str) -> str:
        """The text in an ANSI colour, if the terminal has colours."""
        return f"\033[{colour}m{text}\033[0m" if self.colour else text
