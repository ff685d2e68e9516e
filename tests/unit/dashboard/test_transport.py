"""Whom the exporter trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.dashboard.client import HEALTH
from agent.dashboard.transport import RequestsTransport
from agent.errors import DashboardUnreachable
from tests.support.certificate import make_certificate
from tests.support.dashboard import ReceivingDashboard


def ask(url: str, **options: Any) -> int:
    return RequestsTransport(timeout=10, **options)("GET", url + HEALTH, {}, None).status


@pytest.fixture(autouse=True)
def _no_bundle_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def test_the_hosts_authorities_are_trusted(tmp_path: Path) -> None:
    """A site's own is among them, where its admins have put it there; the first store there is counts."""
    pem = make_certificate(tmp_path)
    with ReceivingDashboard(tls=pem) as dashboard:
        assert 200 == ask(dashboard.url, ca_stores=[str(tmp_path / "none"), str(tmp_path / "certificate.pem")])
        with pytest.raises(DashboardUnreachable):
            ask(dashboard.url, ca_stores=[str(tmp_path / "none")])


def test_the_configuration_and_the_environment_go_before_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store of the host is asked last."""
    pem = make_certificate(tmp_path)
    with ReceivingDashboard(tls=pem) as dashboard:
        assert 200 == ask(dashboard.url, ca_bundle=tmp_path / "certificate.pem")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        assert 200 == ask(dashboard.url)
