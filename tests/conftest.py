"""What every test may ask for, and which tests this machine can run."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.slurm import why_not_here
from tests.support.tools import cannot_run


def pytest_configure(config: pytest.Config) -> None:
    os.environ.pop("TZ", None)  # the exporter goes by the host's zone, whatever the shell's
    time.tzset()
    # A shell that has started the tests in the background has them, and their children, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slurm: starts a real Slurm; skipped, or in CI failed, where there can be none")


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = why_not_here() if item.get_closest_marker("slurm") else ""
    if reason:
        cannot_run(reason)
