"""The exporter's command line, for an accounting in which nothing changes.

``python -m tests.proof.running [walk] ARGUMENT...``: flush does not wait for records that are about to appear, and with
``walk`` it treats any number of jobs as many, and finds them by End.
"""

from __future__ import annotations

import sys

from agent.cli import main
from agent.sync import backlog

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["walk"]:
        del arguments[0]
        backlog.MANY_JOBS = backlog.MANY_IN_A_SLICE = 0
    sys.exit(main(arguments, sleep=lambda seconds: None))
