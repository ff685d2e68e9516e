"""Tests on several hosts are skipped if they are impossible; in CI they fail, unless the kernel forbids namespaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ha.hosts import FORBIDDEN, why_not_here

#: For a test, with the start of its hosts, on a machine that is busy with other tests.
LIMIT_SECONDS = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.timeout(LIMIT_SECONDS))


@pytest.fixture(scope="session", autouse=True)
def hosts_are_possible() -> None:
    """Runs before any host is booted."""
    reason = why_not_here()
    if reason and os.environ.get("CI") == "true" and not reason.startswith(FORBIDDEN):
        pytest.fail(f"CI has to run every test, but: {reason}")
    if reason:
        pytest.skip(reason)
