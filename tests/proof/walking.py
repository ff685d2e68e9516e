"""The command line of an exporter whose flush takes any number of jobs for many: it walks, however few they are."""

from __future__ import annotations

import sys

import agent.sync.flush
from agent.cli import main

if __name__ == "__main__":
    agent.sync.flush.MANY_JOBS = agent.sync.flush.MANY_IN_A_SLICE = 0
    sys.exit(main())
