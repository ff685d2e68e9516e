"""Fixtures of the unit tests."""

from __future__ import annotations

import os
import time
from typing import Callable, Iterator

import pytest

from agent import localtime


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
    localtime._minute_text.cache_clear()


@pytest.fixture
def berlin(zone: Callable[[str], None]) -> None:
    """A zone with summer time."""
    zone("Europe/Berlin")
