"""Fixtures of all tests, and which tests this machine can run."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Iterator

import pytest

from agent.logger import Logger
from tests.support.slurm import why_not_here
from tests.support.tools import cannot_run


def pytest_configure(config: pytest.Config) -> None:
    os.environ.pop("TZ", None)  # the exporter uses the host's time zone, not the shell's
    time.tzset()
    # A shell that has started the tests in the background has them, and their children, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slurm: starts a real Slurm; skipped, or in CI failed, where there can be none")


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = why_not_here() if item.get_closest_marker("slurm") else ""
    if reason:
        cannot_run(reason)


@pytest.fixture(autouse=True)
def _log_of_ones_own() -> Iterator[None]:
    """A test that runs the command line sets up its log, which must not affect the next test."""
    package = logging.getLogger("agent")
    before = package.handlers[:], package.level, package.propagate
    to_do = Logger.lowest, Logger.set_up
    yield
    package.handlers[:], level, package.propagate = before
    package.setLevel(level)
    Logger.lowest, Logger.set_up = to_do
