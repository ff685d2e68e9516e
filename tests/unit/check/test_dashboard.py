"""check reports whether the key is accepted, without a made-up cluster, and whether what is sent will be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest

from agent.check import dashboard as check_dashboard
from agent.check.finding import Finding, examine
from agent.cli import main
from agent.dashboard.answer import Answer
from agent.spool.facts import DELIVERED_BY
from agent.spool.ledger import open_ledger
from tests.support import dashboard_faults as faults
from tests.support.dashboard import API_KEY, ReceivingDashboard

SHARED = "an-older-key-for-all"
NOW = 1_700_000_000.0


class Site:
    """A dashboard, and a configuration with a spool but without a Slurm."""

    def __init__(self, folder: Path, dashboard: ReceivingDashboard, capsys: pytest.CaptureFixture[str]) -> None:
        self.dashboard = dashboard
        self._path = folder / "config.json"
        self._spool = folder / "spool"
        self._spool.mkdir()
        self._capsys = capsys

    def check(self, **settings: Any) -> dict[str, Finding]:
        """The findings by name."""
        content = {"api_url": self.dashboard.url, "api_key": API_KEY, "sacct": "/none/sacct", "scontrol": "/none/x"}
        self._path.write_text(json.dumps({**content, "spool_dir": str(self._spool), **settings}))
        self._path.chmod(0o600)
        main(["check", "--json", "--config", str(self._path)])
        findings = json.loads(self._capsys.readouterr().out)["checks"]
        return {finding["name"]: Finding(**finding) for finding in findings}

    def deliver(self) -> None:
        """Records deliveries, as a flush does."""
        ledger, _ = open_ledger(self._spool / "ledger.db")
        with ledger.transaction():
            ledger.facts.set(f"{DELIVERED_BY}flush", 3)
        ledger.close()


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    with ReceivingDashboard(api_keys={API_KEY, SHARED}) as dashboard:
        yield Site(tmp_path, dashboard, capsys)


def test_a_cluster_that_is_shown(site: Site) -> None:
    """The key belongs to the cluster, and no folder is created on the dashboard."""
    site.dashboard.shown = ["lab", "other"]
    found = site.check(cluster_name="lab")
    assert ("accepted, belongs to lab", "as lab") == (found["API key"].text, found["shown"].text)
    assert (True, True) == (found["API key"].ok, found["shown"].ok)
    assert (set(), []) == (site.dashboard.folders, site.dashboard.posts)


def test_a_name_other_than_that_of_the_key(site: Site) -> None:
    """Jobs sent under that name are stored and never shown."""
    found = site.check(cluster_name="Lab")
    assert (
        "jobs are sent as Lab, but the key belongs to lab: they are stored but never displayed" == found["shown"].text
    )
    assert (False, 'set cluster_name = "lab", or get a key for Lab') == (found["shown"].ok, found["shown"].mend)


def test_a_cluster_that_is_new(site: Site) -> None:
    """Before the first delivery nothing is wrong; after it the dashboard has to be restarted."""
    found = site.check(cluster_name="lab")["shown"]
    assert (True, "not yet: lab appears once jobs have been delivered and the dashboard has been restarted") == (
        found.ok,
        found.text,
    )
    site.deliver()
    found = site.check(cluster_name="lab")["shown"]
    assert (False, "jobs were delivered as lab, which the dashboard does not display") == (found.ok, found.text)
    assert (
        "ask the dashboard's administrator to restart it: it displays a new cluster only after a restart" == found.mend
    )


@pytest.mark.parametrize("names", [None, "lab", {"lab": 1}])
def test_a_dashboard_that_does_not_report_clusters(names: Any) -> None:
    """Whatever it answers instead of names, nothing is concluded from it."""
    answer = Answer(200, {}, json.dumps({"hostnames": names}))
    assert "does not report" in check_dashboard.check_shown("lab", "", answer, 3)


def test_a_shared_key(site: Site) -> None:
    """The key is tested under the cluster's own name, and not at all without a name."""
    found = site.check(cluster_name="lab", api_key=SHARED)
    assert ("accepted", True, {"lab"}) == (found["API key"].text, found["API key"].ok, site.dashboard.folders)
    found = site.check(api_key=SHARED)
    assert (False, None, {"lab"}) == (found["API key"].ok, found["shown"].ok, site.dashboard.folders)
    assert "a key that several clusters share can only be tested with cluster_name" in found["API key"].mend


def test_a_redirect_is_named(site: Site) -> None:
    """The redirect's target is named, and nothing is sent there."""
    site.dashboard.manners = faults.answer(308, "", Location="https://new.example.com/")
    found = site.check(cluster_name="lab")
    assert "redirects to 'https://new.example.com/'" in found["dashboard"].text
    assert "set api_url to the target of the redirect" in found["dashboard"].mend
    assert (None, None) == (found["API key"].ok, found["shown"].ok)


@pytest.mark.parametrize(
    "date",
    [
        "", "now", "Fri, 31 Feb 2023 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "9" * 60_000, "\x00", "Mon",
        "Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2023 99:99:99 GMT", "Mon, 01 Jan 2023 00:00:00 +999999",
        "Fri, 31 Dec 9999 23:59:59 -2359", ", , , :", "Tue, 14 Nov 2023 22:13:20",
    ],
)  # fmt: skip
def test_any_date_is_harmless(date: str) -> None:
    """Any header is either compared with the clock or ignored."""
    finding = examine("clock", lambda: check_dashboard.check_clock(Answer(200, {"Date": date}, ""), lambda: NOW))
    assert finding.text


def test_a_date_without_a_zone_is_utc() -> None:
    """As HTTP requires, whatever this host's time zone is."""
    answer = Answer(200, {"Date": "Tue, 14 Nov 2023 22:13:20 -0000"}, "")
    assert "within a minute" in check_dashboard.check_clock(answer, lambda: NOW)
