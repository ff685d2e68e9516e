"""Two clusters for the whole session, one wired by jobcomp/script and one by EpilogSlurmctld, with jobs of every kind
on both. Other tests use them, too: they add jobs, but never remove any.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Iterator, NamedTuple

import pytest

from tests.support.accounting import expected_records
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter
from tests.support.job_kinds import Records, submit_all
from tests.support.slurm import Slurm
from tests.support.waiting import wait_for


class Site(NamedTuple):
    """A cluster, the exporter on it, and the dashboard that it reports to."""

    slurm: Slurm
    exporter: Exporter
    dashboard: ReceivingDashboard


class Delivered(NamedTuple):
    """A site on which a job of every kind has ended and flush, and nothing but flush, has run."""

    site: Site
    jobs: dict[str, int]  # kind → raw JobID
    expected: Records  # what the accounting held then
    shown: Records  # what the dashboard showed then


def open_site(stack: ExitStack, *, jobcomp: bool = False, epilog: bool = False, nodes: int = 3) -> Site:
    """Starts a cluster and a dashboard, for as long as *stack* lasts."""
    slurm = stack.enter_context(Slurm(jobcomp=jobcomp, epilog=epilog, nodes=nodes))
    dashboard = stack.enter_context(ReceivingDashboard())
    return Site(slurm, Exporter(slurm.folder, slurm.env, api_url=dashboard.url), dashboard)


@contextmanager
def small_site(*, jobcomp: bool = False, epilog: bool = False) -> Iterator[Site]:
    """A site of its own for a test that breaks things."""
    with ExitStack() as stack:
        yield open_site(stack, jobcomp=jobcomp, epilog=epilog, nodes=1)


def flush_all(site: Site) -> None:
    """Flushes as a timer does, until no job waits for its record."""

    def nothing_is_left() -> bool:
        site.exporter.run("flush")
        return site.exporter.backlog() == 0

    wait_for(nothing_is_left, "every queued job delivered or skipped", pause_seconds=0.5)


@pytest.fixture(scope="session")
def sites() -> Iterator[dict[str, Delivered]]:
    """Both sites, by their wiring."""
    with ExitStack() as stack:
        sites = {"jobcomp": open_site(stack, jobcomp=True), "epilog": open_site(stack, epilog=True)}
        jobs = {wiring: submit_all(site.slurm) for wiring, site in sites.items()}
        for site in sites.values():
            site.exporter.run("flush")  # while jobs run, as timers do
        for site in sites.values():
            site.slurm.wait_until_idle()
            flush_all(site)
        yield {
            wiring: Delivered(site, jobs[wiring], expected_records(site.slurm), site.dashboard.records)
            for wiring, site in sites.items()
        }


@pytest.fixture
def jobcomp(sites: dict[str, Delivered]) -> Delivered:
    """The site whose hook is JobCompLoc."""
    return sites["jobcomp"]


@pytest.fixture
def epilog(sites: dict[str, Delivered]) -> Delivered:
    """The site whose hook is EpilogSlurmctld."""
    return sites["epilog"]


@pytest.fixture(params=["jobcomp", "epilog"])
def delivered(request: pytest.FixtureRequest, sites: dict[str, Delivered]) -> Delivered:
    """Each of the two sites."""
    return sites[str(request.param)]
