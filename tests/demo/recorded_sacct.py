"""Answers as sacct did when its output was recorded: ``recorded_sacct.py FILE... -- OPTIONS``.

The files hold rows with their header, as the exporter asks for them. Of sacct's options those that choose rows count:
``--jobs``, or ``--state`` with both bounds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable

SEPARATOR = "\x1f"


def read_rows(files: list[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The fields, and every row of the files once."""
    header: list[str] = []
    lines: dict[str, None] = {}
    for file in files:
        first, *rest = Path(file).read_text(encoding="utf-8").rstrip("\n").split("\n")
        header = first.split(SEPARATOR)
        lines.update(dict.fromkeys(rest))
    return header, [dict(zip(header, line.split(SEPARATOR))) for line in lines]


def make_choice(options: dict[str, str]) -> Callable[[dict[str, str]], bool]:
    """Which rows are asked for."""
    if "--jobs" in options:
        asked = set(options["--jobs"].split(","))
        return lambda row: bool(asked & {row["JobID"], row["JobIDRaw"], *_wholes(row["JobID"])})
    start, end = (int(options[bound].replace("uts", "")) for bound in ("--starttime", "--endtime"))
    return lambda row: row["End"].isdigit() and start <= int(row["End"]) <= end


def _wholes(job_id: str) -> list[str]:
    """The array or het job that a JobID is a part of: asked for it, sacct answers with every part."""
    return [job_id.partition(mark)[0] for mark in "_+" if mark in job_id]


def main() -> None:
    """Prints what was asked for."""
    split = sys.argv.index("--")
    header, rows = read_rows(sys.argv[1:split])
    options = dict(option.partition("=")[::2] for option in sys.argv[split + 1 :])
    if "--helpformat" in options:
        print(" ".join(header))
        return
    chosen = filter(make_choice(options), rows)
    fields = options["--format"].split(",")
    print(SEPARATOR.join(fields))
    for row in chosen:
        print(SEPARATOR.join(row[field] for field in fields))


if __name__ == "__main__":
    main()
