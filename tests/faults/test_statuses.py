"""Whatever status a batch gets for its size, or for one bad record, all other records are delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from tests.proxies.site import Deliveries
from tests.support import dashboard_faults as faults
from tests.support.dashboard import Answer, Connection, Fault, ReceivingDashboard, Request

JOBS = 20
#: Statuses of dashboards, proxies, load balancers and firewalls, including IIS's 404 for a body over its limit.
STATUSES = (
    302,
    400,
    403,
    404,
    405,
    408,
    410,
    413,
    414,
    422,
    431,
    494,
    *range(500, 512),
    *range(520, 528),
    561,
    598,
    599,
)
#: After these a record is kept and retried later: they may be temporary.
PASSING = frozenset({408, *range(501, 600)})


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def stumble(status: int, over: Callable[[Request], bool]) -> Fault:
    """Answers with a status if a POST matches."""
    refuse = faults.answer(status, "<html>no</html>", Location="/blocked")

    def fault(request: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        is_over = request.method == "POST" and over(request)
        (refuse if is_over else faults.behave)(request, connection, serve)

    return fault


@pytest.mark.parametrize("status", STATUSES)
def test_too_large_a_batch(tmp_path: Path, status: int) -> None:
    """Smaller batches follow, and all are delivered in one run."""
    with ReceivingDashboard() as dashboard:
        dashboard.manners = stumble(status, lambda request: len(request.jobs) > 5)
        site = Deliveries(tmp_path, dashboard.url, JOBS)
        site.longest_pause = 0.001
        assert 1 == site.runs_until_all_is_through()
        assert JOBS == len(dashboard.records)


@pytest.mark.parametrize("status", STATUSES)
def test_one_record_that_is_blocked(tmp_path: Path, status: int) -> None:
    """All other records are delivered in one run."""
    with ReceivingDashboard() as dashboard:
        dashboard.manners = stumble(status, lambda request: any(job["JobID"] == "7" for job in request.jobs))
        site = Deliveries(tmp_path, dashboard.url, JOBS)
        site.longest_pause = 0.001
        done = site.run()
        assert (JOBS - 1, JOBS - 1) == (done.delivered, len(dashboard.records))
        assert ((0, 1) if status in PASSING else (1, 0)) == (done.rejected, done.refused)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_for_everything(tmp_path: Path, status: int) -> None:
    """Nothing is set aside, the run ends soon, and the next one delivers everything once the outage is over."""
    with ReceivingDashboard() as dashboard:
        dashboard.manners = stumble(status, lambda request: True)
        site = Deliveries(tmp_path, dashboard.url, JOBS)
        site.longest_pause = 0.001
        done = site.run()
        assert (0, 0, JOBS) == (done.delivered, done.rejected, site.waiting())
        assert len(dashboard.requests) <= 30
        dashboard.manners = faults.behave
        assert 1 == site.runs_until_all_is_through()
