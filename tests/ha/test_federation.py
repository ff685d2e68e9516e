"""In a federation of two clusters, each job is reported by the cluster that ran it, with all its hours."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.ha.federated import federate
from tests.ha.sites import Federation


@pytest.fixture(scope="module")
def site() -> Iterator[Federation]:
    federation = Federation()
    with federation:
        yield federation


def test_no_job_is_lost_or_reported_twice(site: Federation) -> None:
    """Jobs for either cluster, for both, arrays, cancelled and requeued ones."""
    results = federate(site, 12, rest_seconds=15)
    for found in results.values():
        assert ([], [], []) == (found.comparison.lost, found.comparison.foreign, found.comparison.wrong)
        assert found.hours_run == pytest.approx(found.hours_told, abs=1e-6)
    assert sum(found.comparison.jobs for found in results.values())
