"""What the demo prints: plain text, in colour only on a terminal."""

from __future__ import annotations

import math
import os
import sys
import time
from statistics import median
from typing import Any, Mapping, Sequence

COLUMNS = (
    # heading, width, alignment
    ("arrived", 8, "<"),
    ("JobID", 11, "<"),
    ("user", 8, "<"),
    ("state", 9, "<"),
    ("nodes", 5, ">"),
    ("CPUs", 4, ">"),
    ("GPUs", 4, ">"),
    ("CPU-hours", 9, ">"),
    ("delay", 6, ">"),
)
COLOURS = {"COMPLETED": "32", "FAILED": "31", "TIMEOUT": "31", "CANCELLED": "33"}
BOLD, DIM = "1", "2"
LONGEST_REPORT = 20

#: JobID → record.
Records = Mapping[str, Mapping[str, Any]]


class Screen:
    """Prints lines and the table.

    :param delay: from which moment to which the last column counts, in words.
    """

    def __init__(self, delay: str) -> None:
        self._delay = delay
        self._colourful = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def say(self, text: str = "", *, colour: str = "") -> None:
        """Prints a line."""
        print(self._paint(text, colour), flush=True)

    def title(self, text: str) -> None:
        """Prints a line that begins a part."""
        self.say(f"\n{text}", colour=BOLD)

    def heading(self) -> None:
        """Prints the table's head."""
        self.say(f"The delay is counted in seconds, {self._delay}.")
        self.say(_line([name for name, _, _ in COLUMNS]), colour=DIM)

    def row(self, record: Mapping[str, Any], arrived: float, delay_seconds: float) -> None:
        """Prints a job that has arrived on the dashboard."""
        state = record["State"]
        cells = [
            time.strftime("%H:%M:%S", time.localtime(arrived)),
            *(record[field] for field in ("JobID", "User")),
            state,
            *(record[field] for field in ("AllocNodes", "AllocCPUS", "AllocGPUS")),
            f"{record['CPUHours']:.4f}",
            f"{delay_seconds:.1f}",
        ]
        text = _line(cells)
        painted = text.replace(f" {state} ", f" {self._paint(state, COLOURS.get(state, ''))} ", 1)
        print(painted, flush=True)

    def complain(self, failures: Sequence[str]) -> None:
        """Prints the output of failed runs of flush."""
        for said in failures:
            self.say(f"✘ a flush failed: {said.strip()}", colour=COLOURS["FAILED"])

    def report(self, when: str, expected: Records, shown: Records) -> list[str]:
        """Prints and returns how the dashboard differs from the accounting, if it does."""
        differences = describe_differences(expected, shown)
        for line in differences[:LONGEST_REPORT]:
            self.say(f"✘ {line}", colour=COLOURS["FAILED"])
        verdict = f"{len(differences)} differences" if differences else "equal to the job table in every field"
        self.say(f"{'✘' if differences else '✔'} {when}: {len(shown)} jobs on the dashboard, {verdict}", colour=BOLD)
        return differences

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colour and self._colourful else text


def _line(cells: Sequence[Any]) -> str:
    return "  ".join(f"{_cut(str(cell), width):{align}{width}}" for cell, (_, width, align) in zip(cells, COLUMNS))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def describe_delays(seconds: Sequence[float]) -> str:
    """Median and 99th percentile of some delays.

    >>> describe_delays([1.0, 2.0, 3.0])
    'median 2.0 s, 99 % within 3.0 s, slowest 3.0 s'
    """
    ordered = sorted(seconds)
    percentile = ordered[math.ceil(len(ordered) * 99 / 100) - 1]
    return f"median {median(ordered):.1f} s, 99 % within {percentile:.1f} s, slowest {ordered[-1]:.1f} s"


def describe_differences(expected: Records, shown: Records) -> list[str]:
    """A line for each job that is missing, extra or different on the dashboard; none if both are equal."""
    lines = [f"{job_id} is not on the dashboard" for job_id in sorted(set(expected) - set(shown))]
    lines += [f"{job_id} is on the dashboard alone" for job_id in sorted(set(shown) - set(expected))]
    for job_id in sorted(set(shown) & set(expected)):
        for field in sorted(set(expected[job_id]) | set(shown[job_id])):
            right, wrong = expected[job_id].get(field), shown[job_id].get(field)
            if right != wrong:
                lines.append(f"{job_id} has {field} {wrong!r} on the dashboard, {right!r} in the accounting")
    return lines
