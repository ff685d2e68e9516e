"""nginx in front of the dashboard: size and time limits, restarts, redirects, prefixes, certificates, IPv6."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from agent.cli import main
from agent.errors import ConfigError, DashboardUnreachable
from tests.proxies.daemons import Nginx, free_port
from tests.proxies.site import Deliveries, stored, works_slowly
from tests.support.certificate import make_certificate
from tests.support.dashboard import API_KEY, ReceivingDashboard

JOBS = 6000


@pytest.fixture
def dashboard() -> Iterator[ReceivingDashboard]:
    with ReceivingDashboard() as receiving:
        yield receiving


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("limit", ["1m", "64k", "4k", "1k"])
def test_a_limit_of_the_body(tmp_path: Path, dashboard: ReceivingDashboard, limit: str) -> None:
    """With 413, and the connection closed while the body is still being sent, all jobs arrive in one run."""
    jobs = JOBS if limit == "1m" else 500
    with Nginx(dashboard.url, f"client_max_body_size {limit};") as nginx:
        site = Deliveries(tmp_path, nginx.url, jobs)
        assert (1, jobs) == (site.runs_until_all_is_through(), stored(dashboard))


def test_a_limit_of_time(tmp_path: Path, dashboard: ReceivingDashboard) -> None:
    """With 504 while the backend still stores, all jobs are delivered in one run, and recorded as delivered."""
    dashboard.manners = works_slowly(0.004)
    with Nginx(dashboard.url, "proxy_read_timeout 1s;") as nginx:
        site = Deliveries(tmp_path, nginx.url, 1500)
        assert (1, 1500) == (site.runs_until_all_is_through(), stored(dashboard))


def test_two_milliseconds_a_record(tmp_path: Path, dashboard: ReceivingDashboard) -> None:
    """With our own time-out of 2 s and a slow, silent dashboard, all jobs arrive in one run."""
    dashboard.manners = works_slowly(0.002)
    with Nginx(dashboard.url) as nginx:
        site = Deliveries(tmp_path, nginx.url, JOBS, timeout=2)
        assert (1, JOBS) == (site.runs_until_all_is_through(), stored(dashboard))


@pytest.mark.parametrize("milliseconds", [10, 50])
def test_slower_ones(tmp_path: Path, dashboard: ReceivingDashboard, milliseconds: int) -> None:
    """Likewise, with time-outs at first."""
    dashboard.manners = works_slowly(milliseconds / 1000)
    site = Deliveries(tmp_path, dashboard.url, 700, timeout=2)
    assert (1, 700) == (site.runs_until_all_is_through(), stored(dashboard))


def test_a_backend_that_restarts(tmp_path: Path) -> None:
    """With 502 for some seconds, the run waits and continues with batches of the same size."""
    port = free_port()
    with Nginx(f"http://127.0.0.1:{port}") as nginx, ReceivingDashboard(port=0) as spare:
        site = Deliveries(tmp_path, nginx.url, JOBS)
        back: list[ReceivingDashboard] = []

        def restart() -> None:
            time.sleep(0.4)
            back.append(ReceivingDashboard(port=port).__enter__())

        thread = threading.Thread(target=restart)
        thread.start()
        site.run()
        thread.join()
        assert ([], 0, JOBS) == (site.errors, site.waiting(), stored(back[0]))
        back[0].__exit__()
        assert not spare.requests


def test_a_backend_that_is_down(tmp_path: Path) -> None:
    """The run ends after a few requests, and nothing is lost."""
    with Nginx(f"http://127.0.0.1:{free_port()}") as nginx:
        site = Deliveries(tmp_path, nginx.url, JOBS)
        started = time.monotonic()
        site.run()
        assert (DashboardUnreachable, JOBS) == (type(site.errors[0]), site.waiting())
        assert time.monotonic() - started < 10


def test_a_redirect_to_https(tmp_path: Path, dashboard: ReceivingDashboard, caplog: pytest.LogCaptureFixture) -> None:
    """The error names the target, and the key is not sent there."""
    with Nginx(dashboard.url, location="return 301 https://dashboard.example.com$request_uri;") as nginx:
        site = Deliveries(tmp_path, nginx.url, 10)
        site.run()
        assert "redirects to 'https://dashboard.example.com/api/data/ingest'" in str(site.errors[0])
        assert (10, []) == (site.waiting(), dashboard.requests)


def test_a_path_before_it(tmp_path: Path, dashboard: ReceivingDashboard) -> None:
    """api_url may contain a path, which is used for every request."""
    location = f"location /usage/ {{ proxy_pass {dashboard.url}/; }}"
    with Nginx(dashboard.url, location=location) as nginx:
        site = Deliveries(tmp_path, f"{nginx.url}/usage/", 100)
        assert (1, 100) == (site.runs_until_all_is_through(), stored(dashboard))
        wrong = Deliveries(_made(tmp_path / "wrong"), nginx.url, 10)
        wrong.run()
        assert "there is no dashboard at this URL" in str(wrong.errors[0])


def test_ipv6(tmp_path: Path, dashboard: ReceivingDashboard) -> None:
    """An IPv6 address is written in brackets, as usual."""
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Nginx(dashboard.url, address="::1") as nginx:
        site = Deliveries(tmp_path, nginx.url, 100)
        assert (1, 100) == (site.runs_until_all_is_through(), stored(dashboard))


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return make_certificate(_made(tmp_path / "tls"))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


class TestClientCertificates:
    """A proxy that requires a client certificate."""

    @pytest.fixture
    def nginx(self, dashboard: ReceivingDashboard, pem: Path) -> Iterator[Nginx]:
        asks = f"ssl_verify_client on; ssl_client_certificate {pem};"
        with Nginx(dashboard.url, asks, tls=pem) as proxy:
            yield proxy

    def test_in_one_file(self, tmp_path: Path, dashboard: ReceivingDashboard, nginx: Nginx, pem: Path) -> None:
        """Certificate and key are in one file."""
        site = Deliveries(tmp_path, nginx.url, 100, ca_bundle=str(pem), client_cert=str(pem))
        assert (1, 100) == (site.runs_until_all_is_through(), stored(dashboard))

    def test_in_two_files(self, tmp_path: Path, dashboard: ReceivingDashboard, nginx: Nginx, pem: Path) -> None:
        """The key is in client_key."""
        files = {"client_cert": str(pem.with_name("certificate.pem")), "client_key": str(pem.with_name("key.pem"))}
        site = Deliveries(tmp_path, nginx.url, 100, ca_bundle=str(pem), **files)
        assert (1, 100) == (site.runs_until_all_is_through(), stored(dashboard))

    def test_without(self, tmp_path: Path, dashboard: ReceivingDashboard, nginx: Nginx, pem: Path) -> None:
        """nginx's error is reported, and no record is rejected."""
        site = Deliveries(tmp_path, nginx.url, 10, ca_bundle=str(pem))
        site.run()
        assert "No required SSL certificate was sent" in str(site.errors[0])
        assert (10, []) == (site.waiting(), dashboard.requests)

    def test_a_key_with_a_password(self, tmp_path: Path, nginx: Nginx, pem: Path) -> None:
        """A key with a password is a configuration error: nobody can type it in."""
        locked = pem.with_name("locked.pem")
        argv = [
            "openssl",
            "ec",
            "-aes256",
            "-passout",
            "pass:x",
            "-in",
            str(pem.with_name("key.pem")),
            "-out",
            str(locked),
        ]
        subprocess.run(argv, check=True, capture_output=True)
        client = {"client_cert": str(pem.with_name("certificate.pem")), "client_key": str(locked)}
        site = Deliveries(tmp_path, nginx.url, 10, ca_bundle=str(pem), **client)
        site.run()
        assert ConfigError is type(site.errors[0])
        assert "without a password" in site.errors[0].hint


def configure(folder: Path, **settings: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"api_key": API_KEY, "sacct": "/none", "scontrol": "/none", **settings}))
    path.chmod(0o600)
    return path


def test_check_through_a_proxy(
    tmp_path: Path, dashboard: ReceivingDashboard, pem: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` uses the same certificates and prefix, and stores nothing."""
    dashboard.shown = ["lab"]
    location = f"location /usage/ {{ proxy_pass {dashboard.url}/; }}"
    asks = f"ssl_verify_client on; ssl_client_certificate {pem};"
    with Nginx(dashboard.url, asks, location=location, tls=pem) as nginx:
        settings = {"api_url": f"{nginx.url}/usage", "ca_bundle": str(pem), "client_cert": str(pem)}
        path = configure(tmp_path, cluster_name="lab", spool_dir=str(tmp_path), **settings)
        main(["check", "--json", "--config", str(path)])
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["checks"]}
    assert [True] * 4 == [found[name]["ok"] for name in ("dashboard", "API key", "shown", "clock")]
    assert set() == dashboard.folders


def test_a_proxy_that_counts_requests(tmp_path: Path, dashboard: ReceivingDashboard) -> None:
    """If nginx answers 503 to frequent requests, batches keep their size: smaller ones would be more frequent."""
    limits = "limit_req zone=one burst=1 nodelay;"
    with Nginx(dashboard.url, limits, zone="limit_req_zone $binary_remote_addr zone=one:1m rate=1r/s;") as nginx:
        site = Deliveries(tmp_path, nginx.url, JOBS, batch_size=600)
        assert 1 == site.runs_until_all_is_through()
        assert (JOBS, True) == (stored(dashboard), len(dashboard.posts) <= 12)
