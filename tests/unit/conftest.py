"""Fixtures of the unit tests."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from agent import localtime
from agent.spool import database
from agent.spool.ledger import Ledger, open_ledger

# How long an example takes says more about the machine and its other users than about the code. Examples that
# share a test's folder write files of their own there.
settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def _no_power_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction waits for the disk, which takes most of the time; tests/faults cuts the power."""
    monkeypatch.setattr(database, "SYNCHRONOUS", "OFF")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new ledger, in the folder that serves as the test's spool."""
    opened, put_aside = open_ledger(tmp_path / "ledger.db")
    assert "" == put_aside
    yield opened
    opened.close()


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    """Sets the host's time zone for a test, and puts it back."""
    before = os.environ.get("TZ")

    def set_zone(name: str) -> None:
        os.environ["TZ"] = name
        time.tzset()
        local_caches_clear()

    yield set_zone
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()
    local_caches_clear()


def local_caches_clear() -> None:
    """A process has one zone in its life; a test has several."""
    localtime._hour_of_quarter.cache_clear()
    localtime._day_of_quarter.cache_clear()


@pytest.fixture
def berlin(zone: Callable[[str], None]) -> None:
    """A zone with summer time."""
    zone("Europe/Berlin")
