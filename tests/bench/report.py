"""Writes figures into a Markdown file: each table between its two marks; the prose around it stays unchanged."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Sequence

from .measure import Figure, load_average


def write_tables(path: Path, tables: dict[str, Sequence[Figure]], notes: dict[str, str]) -> None:
    """Puts each table, with a note under it, into its place in the file.

    :raises ValueError: if the file has no place for a benchmark.
    """
    text = path.read_text(encoding="utf-8")
    for name, figures in tables.items():
        text = replace_block(text, name, f"{make_table(figures)}\n\n{notes[name]}")
    path.write_text(text, encoding="utf-8")


def replace_block(text: str, name: str, content: str) -> str:
    """The text with a benchmark's part between its marks replaced."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"no place for {name}: {begin} … {end} is missing")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def make_table(figures: Sequence[Figure]) -> str:
    """A Markdown table: median, lowest and highest of each figure, and whether it meets its goal."""
    lines = ["| what | median | lowest – highest | goal |", "|---|---|---|---|"]
    for figure in figures:
        spread = f"{_number(min(figure.values))} – {_number(max(figure.values))}" if len(figure.values) > 1 else "once"
        verdict = {True: ", met", False: ", **missed**", None: ""}[figure.met]
        lines.append(f"| {figure.what} | {_number(figure.median)} {figure.unit} | {spread} | {figure.goal}{verdict} |")
    return "\n".join(lines)


def describe_machine() -> str:
    """The machine, and the versions of the programs that were measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return (
        f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}),"
        f" {int(memory[1]) / 2**20 if memory else 0:.0f} GiB of memory, Linux {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, {_version('slurmctld', '-V')}, MariaDB {_mariadb_version()}"
    )


def note(rounds: int) -> str:
    """When and under what load a table was measured."""
    return (
        f"Measured on {time.strftime('%Y-%m-%d')}, {rounds} round{'s' if rounds > 1 else ''};"
        f" the load average at the end was {load_average():.1f}."
    )


def _version(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def _mariadb_version() -> str:
    found = re.search(r"(\d+\.\d+\.\d+)-MariaDB", _version("mariadbd", "--version"))
    return found[1] if found else "?"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
