"""The exporter with a wrong clock: ``python -m tests.support.other_clock SECONDS ARGUMENT...``."""

from __future__ import annotations

import sys
import time

_clock = time.time


def main(seconds: float, argv: list[str]) -> int:
    """Sets the clock before importing the exporter, and runs it."""
    time.time = lambda: _clock() + seconds
    from agent.cli import main  # noqa: PLC0415

    return main(argv)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
