"""Which certificates the exporter trusts, and which proxies it uses."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Sequence

import pytest

from agent.dashboard.client import HEALTH
from agent.dashboard.transport import CA_STORES, RequestsTransport
from agent.errors import DashboardUnreachable
from tests.support.certificate import make_certificate
from tests.support.dashboard import ReceivingDashboard
from tests.support.snapshots import make_config


def ask(url: str, ca_stores: Sequence[str] = CA_STORES, **settings: str) -> int:
    return RequestsTransport(make_config(**settings), ca_stores)("GET", url + HEALTH, {}, None).status


@pytest.fixture(autouse=True)
def _no_bundle_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def test_the_hosts_certificates_are_trusted(tmp_path: Path) -> None:
    """A site's own CA in the host's store is trusted; the first existing store is used."""
    pem = make_certificate(tmp_path)
    with ReceivingDashboard(tls=pem) as dashboard:
        assert 200 == ask(dashboard.url, ca_stores=[str(tmp_path / "none"), str(tmp_path / "certificate.pem")])
        with pytest.raises(DashboardUnreachable):
            ask(dashboard.url, ca_stores=[str(tmp_path / "none")])


def test_the_configuration_and_the_environment_take_precedence_over_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's store is used only if neither names a file."""
    pem = make_certificate(tmp_path)
    with ReceivingDashboard(tls=pem) as dashboard:
        assert 200 == ask(dashboard.url, ca_bundle=str(tmp_path / "certificate.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        assert 200 == ask(dashboard.url)


@pytest.mark.parametrize(
    ("entries", "goes_directly"),
    [
        ("LOCALHOST", True),
        ("*.localhost", True),
        ("localhost.", True),
        ("localhost:PORT", True),
        ("localhost:1", False),
        ("one.example.com localhost", True),
        ("one.example.com, *", True),
        ("*.example.com,10.0.0.0/8", False),
        ("localhost.example.com:PORT", False),
    ],
)
def test_names_in_no_proxy(monkeypatch: pytest.MonkeyPatch, entries: str, goes_directly: bool) -> None:
    """Wildcards, ports and spaces are understood as curl, Go and others do; the rest goes through the proxy."""
    for name in ("HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("agent.dashboard.proxy.is_here", lambda url: False)
    with ReceivingDashboard() as dashboard, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = dashboard.url.replace("127.0.0.1", "localhost")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", entries.replace("PORT", url.rpartition(":")[2]))
        if goes_directly:
            assert 200 == ask(url)
        else:
            with pytest.raises(DashboardUnreachable, match="cannot connect through the proxy"):
                ask(url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_plain_http_within_this_host_uses_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Otherwise the key would cross the network to the proxy, although plain HTTP to another host is warned of."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with ReceivingDashboard() as dashboard, ReceivingDashboard() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert 200 == ask(dashboard.url.replace("127.0.0.1", host))
        assert (1, 0) == (len(dashboard.requests), len(proxy.requests))
