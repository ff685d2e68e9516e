"""Squid and tinyproxy in front of the dashboard, with a password, and the errors if they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from agent.errors import ConfigError, DashboardUnreachable, ExporterError
from tests.faults.site import Site
from tests.proxies.daemons import PASSWORD, Nginx, Squid, Tinyproxy, free_port, port_of
from tests.proxies.site import Deliveries, stored
from tests.support.certificate import make_certificate
from tests.support.dashboard import ReceivingDashboard

#: Parts of a password that no message may contain.
SECRETS = (PASSWORD, PASSWORD.replace(":", "%3A"), PASSWORD.replace(":", ""))


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    return make_certificate(folder)


@pytest.fixture
def dashboard(pem: Path) -> Iterator[ReceivingDashboard]:
    with ReceivingDashboard(tls=pem) as receiving:
        yield receiving


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def deliver(folder: Path, dashboard: ReceivingDashboard, pem: Path) -> Deliveries:
    site = Deliveries(folder, dashboard.url, 100, ca_bundle=str(pem))
    site.run()
    return site


def complaint(site: Deliveries, kind: type[ExporterError], jobs: int = 100) -> str:
    """The text of the only error, including its hint."""
    (error,) = site.errors
    said = f"{error} ({error.hint})"
    assert (kind, jobs) == (type(error), site.waiting())
    assert not any(secret in said for secret in SECRETS)
    return said


def test_squid(tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An https:// URL is reached by CONNECT, so the proxy does not see the key."""
    with Squid() as squid:
        monkeypatch.setenv("HTTPS_PROXY", squid.url())
        assert [] == deliver(tmp_path, dashboard, pem).errors
        assert 100 == stored(dashboard)
    again = tmp_path / "again"
    again.mkdir()
    complaint(deliver(again, dashboard, pem), DashboardUnreachable)  # there is no other way


def test_tinyproxy(tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise."""
    with Tinyproxy(port_of(dashboard.url)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        assert [] == deliver(tmp_path, dashboard, pem).errors
        assert (100, True) == (stored(dashboard), "CONNECT 127.0.0.1" in proxy.passed())


@pytest.fixture(params=[(Squid, ""), (Squid, "somebody"), (Tinyproxy, ""), (Tinyproxy, "somebody")])
def refusing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Squid | Tinyproxy]:
    """A proxy URL without a password, or with a wrong one."""
    daemon, user = request.param
    with daemon() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url(user))
        yield proxy


def test_the_password_is_sent_only_to_the_proxy(
    tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, refusing: Squid | Tinyproxy
) -> None:
    """A 407 is reported with the proxy's name and where to put the password; no record is rejected or retried."""
    said = complaint(deliver(tmp_path, dashboard, pem), DashboardUnreachable)
    assert f"cannot connect through the proxy http://127.0.0.1:{refusing.port}" in said
    assert "the proxy requires a password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT" in said
    assert [] == dashboard.requests


def test_a_password_for_plain_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain HTTP the 407 arrives as an answer."""
    monkeypatch.setattr("agent.dashboard.proxy.is_here", lambda url: False)
    with ReceivingDashboard() as plain, Squid() as squid:
        monkeypatch.setenv("HTTP_PROXY", squid.url(""))
        site = Deliveries(tmp_path, plain.url, 100)
        site.run()
        assert "the proxy refuses the request: 407" in complaint(site, DashboardUnreachable)
        monkeypatch.setenv("HTTP_PROXY", squid.url())
        assert 1 == site.runs_until_all_is_through()
        assert 100 == stored(plain)


def test_a_proxy_that_refuses_the_connection(
    tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 403 for the CONNECT comes from the proxy and is not taken as a refused key."""
    with Squid("http_access deny CONNECT") as squid:
        monkeypatch.setenv("HTTPS_PROXY", squid.url())
        said = complaint(deliver(tmp_path, dashboard, pem), DashboardUnreachable)
        assert "403" in said
        assert "check the proxy, and what it allows" in said


def test_a_proxy_that_does_not_exist(
    tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the proxy, without its password."""
    port = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://exporter:s3c%3Aret@127.0.0.1:{port}")
    said = complaint(deliver(tmp_path, dashboard, pem), DashboardUnreachable)
    assert f"cannot connect through the proxy http://127.0.0.1:{port}: Connection refused" in said


def test_a_dashboard_that_a_proxy_cannot_reach(tmp_path: Path, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy's own error is reported."""
    with Squid() as squid:
        monkeypatch.setenv("HTTPS_PROXY", squid.url())
        site = Deliveries(tmp_path, f"https://127.0.0.1:{free_port()}", 100, ca_bundle=str(pem))
        site.run()
        assert "503" in complaint(site, DashboardUnreachable)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://",
        "http:///x",
        "ftp://proxy:21",
        "http://proxy:port",
        "http://u:pass@:3128",
        "htp:/proxy:1",
        "socks9://p:1",
        "http://wpad.example.com/proxy.pac",
        "http://proxy\n:3128",
        f"http://{'a' * 70}:3128",
        "PROXY proxy:3128; DIRECT",
    ],
)
def test_a_value_that_is_not_a_proxy(
    tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """It is reported as a configuration error at once."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    said = complaint(deliver(tmp_path, dashboard, pem), ConfigError)
    assert "the proxy in the environment can't be used" in said
    assert "pass@" not in said


def test_no_proxy(tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Destinations in NO_PROXY are reached directly."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    assert [] == deliver(tmp_path, dashboard, pem).errors


@pytest.mark.parametrize(
    ("address", "entry", "goes_directly"),
    [
        ("127.0.0.1", "localhost, 127.0.0.0/8", True),
        ("127.0.0.1", "127.0.0.1:PORT", True),
        ("127.0.0.1", "127.0.0.1:1", False),
        ("127.0.0.1", "127.0.0.0/99,fd00::/8,[::1]", False),
        ("127.0.0.1", "*", True),
        ("::1", "[::1]", True),
        ("::1", "::1", True),
        ("::1", "[::1]:PORT", True),
        ("::1", "[::1]:1", False),
        ("::1", "::/64", True),
        ("::1", "fd00::/8,127.0.0.0/8", False),
    ],
)
def test_addresses_in_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, entry: str, goes_directly: bool
) -> None:
    """Networks, ports and IPv6 addresses have the same meaning as for curl."""
    monkeypatch.setattr("agent.dashboard.proxy.is_here", lambda url: False)
    with ReceivingDashboard() as plain, Nginx(plain.url, address=address) as nginx:
        monkeypatch.setenv("HTTP_PROXY", f"http://[::1]:{free_port('::1')}")
        monkeypatch.setenv("NO_PROXY", entry.replace("PORT", str(nginx.port)))
        site = Deliveries(tmp_path, nginx.url, 3)
        site.run()
        assert (3 if goes_directly else 0) == stored(plain)
        assert goes_directly or "cannot connect through the proxy http://[::1]:" in complaint(
            site, DashboardUnreachable, 3
        )


def test_the_exit_code_of_a_missing_ca_bundle(tmp_path: Path, dashboard: ReceivingDashboard) -> None:
    """78, at once, as soon as there is anything to send."""
    site = Site(tmp_path, dashboard, ca_bundle="missing.pem")
    with site.agents:
        site.start_over()
        site.queue_everything()
        assert ConfigError.exit_code == site.agents.run("flush")
        assert f"ca_bundle: {tmp_path}/missing.pem can't be read" in site.agents.log()
    assert [] == dashboard.requests
