"""The command line of an exporter whose flush takes any number of jobs for many: it walks, however few they are."""

from __future__ import annotations

import sys

from agent.cli import main
from agent.sync import backlog

if __name__ == "__main__":
    backlog.MANY_JOBS = backlog.MANY_IN_A_SLICE = 0
    sys.exit(main())
