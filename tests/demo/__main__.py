"""``make demo``: watch real Slurm jobs arrive on a dashboard.

Starts a Slurm and a dashboard on this machine, runs a mixed bag of jobs, flushes on a short timer and prints each job
as it arrives. Then reconcile replays the day, and the dashboard is compared with slurmdbd's job table. Exits 0 only if
they are equal. If this machine cannot run Slurm, it replays recorded output of sacct instead.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from tests.demo import recorded, show
from tests.support.slurm import SlurmError, why_not_here


def main() -> int:
    """Runs the demo and returns its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="how many, or some more (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between flushes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another number, another bag (default: %(default)s)")
    parser.add_argument("--recorded", action="store_true", help="replay recorded output, even where Slurm could run")
    options = parser.parse_args()
    os.environ.pop("TZ", None)  # the exporter uses the host's time zone, not the shell's
    time.tzset()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    obstacle = "as you asked" if options.recorded else why_not_here()
    try:
        if obstacle:
            return recorded.run(options.interval, obstacle)
        return show.run(options.jobs, options.interval, options.seed)
    except (SlurmError, TimeoutError, AssertionError) as error:
        print(f"\n✘ {error}")
        return 1
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind")
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
