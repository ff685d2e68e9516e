"""Each answer of the dashboard has a meaning, and no answer or silence does any harm."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dashboard.answer import Answer, judge
from agent.dashboard.client import LONGEST_PAUSE_SECONDS, Dashboard
from agent.dashboard.request_retry import TRIES
from agent.dashboard.transport import RequestsTransport
from agent.errors import (
    BatchForbidden,
    BatchRefused,
    BatchTooLarge,
    ConfigError,
    DashboardUnreachable,
    ExporterError,
    KeyRefused,
)
from tests.support import dashboard_faults as faults
from tests.support.certificate import make_certificate
from tests.support.dashboard import API_KEY, Fault, ReceivingDashboard
from tests.support.snapshots import make_config

NOW = 1_700_000_000.0
TAKEN = {"success": True, "message": "Successfully ingested 2 jobs for lab", "jobs_processed": 2}
RECORD = json.dumps(
    {
        "JobID": "7",
        "User": "alice",
        "Account": "physics",
        "Partition": "cpu",
        "State": "COMPLETED",
        "QOS": None,
        "NodeList": "n1",
        "Submit": "2023-11-14T22:13:20",
        "Start": "2023-11-14T22:13:20",
        "End": "2023-11-14T22:14:20",
        "CPUHours": 1.0,
        "GPUHours": 0.0,
        "AllocCPUS": 1,
        "AllocGPUS": 0,
        "AllocNodes": 1,
    }
)


def meaning(status: int, content: Any = "", headers: Mapping[str, str] | None = None) -> ExporterError:
    """What is raised for an answer to two records."""
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(ExporterError) as caught:
        judge(Answer(status, headers or {}, text), sent=2, now=NOW)
    return caught.value


def test_a_packed_answer() -> None:
    """Its compression is reported instead of its content: the request rules it out, and nothing is decompressed."""
    packed = {"Content-Encoding": "GZip"}
    assert "200, compressed (gzip) although the request rules that out" in str(meaning(200, "\x1f\x8b", packed))
    assert "400, compressed (gzip)" in str(meaning(400, "\x1f\x8b", packed))
    assert "400 'no'" in str(meaning(400, "no", {"Content-Encoding": "identity"}))


def test_taken() -> None:
    """A 2xx that counts as many jobs as were sent, or none at all, is a success with the dashboard's message."""
    for content in (TAKEN, {"success": True, "message": TAKEN["message"]}):
        for mark in ("", "\ufeff"):  # a byte order mark, which some servers write
            assert TAKEN["message"] == judge(Answer(200, {}, mark + json.dumps(content)), sent=2, now=NOW)


@pytest.mark.parametrize("content", [{**TAKEN, "success": False}, {**TAKEN, "jobs_processed": 1}, {"status": "ok"}])
def test_taken_but_not_stored(content: dict[str, Any]) -> None:
    """A 200 whose body says otherwise is a refusal."""
    assert BatchRefused is type(meaning(200, content))


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (200, {"success": False, "message": "full"}, "the dashboard did not store the jobs: 200 'full'"),
        (200, {**TAKEN, "jobs_processed": 1}, "the dashboard counted 1 of 2 jobs sent"),
        (413, "too large", "the dashboard does not accept a POST of this size: 413 'too large'"),
        (400, "no", "the dashboard refused the jobs: 400 'no'"),
    ],
)
def test_the_message_of_a_refusal(status: int, content: Any, words: str) -> None:
    """`queue list` shows this message with the rejected record."""
    assert words == str(meaning(status, content))


@pytest.mark.parametrize("status", [200, 201, 204])
@pytest.mark.parametrize("content", ["", "<html>Please log in</html>", "null", "[]", "[" * 100_000])
def test_a_success_from_something_else(status: int, content: str) -> None:
    """A login page, or nothing at all, is not the dashboard's answer."""
    assert DashboardUnreachable is type(meaning(status, content))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, DashboardUnreachable),
        (308, DashboardUnreachable),
        (400, BatchRefused),
        (401, KeyRefused),
        (403, BatchForbidden),
        (404, DashboardUnreachable),
        (405, DashboardUnreachable),
        (408, DashboardUnreachable),
        (409, BatchRefused),
        (413, BatchTooLarge),
        (422, BatchRefused),
        (429, DashboardUnreachable),
        (500, BatchRefused),
        (502, DashboardUnreachable),
        (503, DashboardUnreachable),
        (504, DashboardUnreachable),
        (520, DashboardUnreachable),
    ],
)
def test_refusals(status: int, kind: type) -> None:
    """Each refusal is blamed on the batch, the key or the dashboard."""
    assert kind is type(meaning(status, "<html><body>no</body></html>"))
    assert "<" not in str(meaning(status, "<html><body>no</body></html>"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), (formatdate(NOW + 90, usegmt=True), 90.0), ("later", 0.0), ("9" * 400, math.inf)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_length_of_a_requested_pause(status: int, text: str, seconds: float) -> None:
    """Retry-After is seconds or a date."""
    error = meaning(status, "", {"Retry-After": text})
    assert isinstance(error, DashboardUnreachable)
    assert seconds == error.retry_after_seconds


def test_a_422_names_records() -> None:
    """By index, each with the field, what is wrong and what was sent."""
    problem = {"loc": ["body", "jobs", 1, "Start"], "msg": "invalid datetime", "input": "None"}
    error = meaning(422, {"detail": [problem, {**problem, "loc": ["body", "jobs", 1, "End"]}]})
    assert isinstance(error, BatchRefused)
    words = "Start: invalid datetime (sent 'None'); End: invalid datetime (sent 'None')"
    assert {1: words} == error.named


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["body", "jobs"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["detail", "loc", "msg", "success", "jobs_processed", "message"]), inner)
    ),
)


@given(st.integers(200, 599), json_values | st.just({"detail": [{"loc": {"a": 1, "b": 2, "c": 3}}]}))
def test_any_answer_has_a_meaning(status: int, content: Any) -> None:
    """Any JSON is either a success or one of our errors, with a short message."""
    try:
        judge(Answer(status, {"Retry-After": "1"}, json.dumps(content)), sent=2, now=NOW)
    except ExporterError as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize("text", ["<" * 10_000_000, "x" * 10_000_000, '{"detail":' * 1_000_000])
def test_a_huge_answer_is_handled_in_bounded_time(text: str) -> None:
    """Ten megabytes of anything become one line, immediately."""
    started = time.monotonic()
    assert len(str(meaning(502, text))) < 1000
    assert time.monotonic() - started < 5


class Client:
    """The real client of a receiving dashboard, with a clock and a sleep of the test's."""

    def __init__(
        self, server: ReceivingDashboard, url: str = "", *, timeout: float = 5, ca: Path | None = None
    ) -> None:
        self.slept: list[float] = []
        transport = RequestsTransport(make_config()._replace(timeout=timeout, ca_bundle=ca, api_key=API_KEY))
        self.dashboard = Dashboard(
            url or server.url, API_KEY, transport, sleep=self.slept.append, clock=lambda: NOW, dice=lambda: 0.5
        )
        self._server = server

    def submit(self) -> str:
        return self.dashboard.submit("lab", [RECORD])


@pytest.fixture
def server() -> Iterator[ReceivingDashboard]:
    with ReceivingDashboard() as receiving:
        yield receiving


def test_a_record_arrives(server: ReceivingDashboard) -> None:
    """With the key in its header and nowhere else, and the cluster as hostname."""
    assert "Successfully ingested 1 jobs for lab" == Client(server).submit()
    assert {"7": json.loads(RECORD)} == server.records
    (request,) = server.requests
    assert API_KEY == request.headers["x-api-key"]
    assert API_KEY not in request.path + request.body.decode()


@pytest.mark.parametrize(
    "trouble",
    [
        faults.reset,
        faults.store_and_reset,
        *(faults.answer(status, "no") for status in (408, 425, 429, 500, 502, 503, 504)),
    ],
)
def test_trouble_that_passes(server: ReceivingDashboard, trouble: Fault) -> None:
    """The request is repeated, each time after twice the delay, and the record is stored once."""
    client = Client(server)
    server.faults.extend([trouble] * (TRIES - 1))
    client.submit()
    assert ([1.0, 2.0, 4.0], ["7"]) == (client.slept, list(server.records))


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (faults.reset, DashboardUnreachable),
        (faults.answer(502), DashboardUnreachable),
        (faults.answer(500), BatchRefused),
    ],
)
def test_a_lasting_failure(server: ReceivingDashboard, trouble: Fault, kind: type) -> None:
    """The failure is reported after a few attempts."""
    server.manners = trouble
    with pytest.raises((DashboardUnreachable, BatchRefused)):
        Client(server).submit()
    assert TRIES == len(server.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 401, 403, 404, 409, 413, 422])
def test_a_permanent_failure(server: ReceivingDashboard, status: int) -> None:
    """A request that would fail again is not retried."""
    server.manners = faults.answer(status, "no", Location="http://127.0.0.1:1/elsewhere")
    with pytest.raises(ExporterError):
        Client(server).submit()
    assert 1 == len(server.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(server: ReceivingDashboard, status: int) -> None:
    """Redirects are not followed, neither to another host nor to another path."""
    with ReceivingDashboard() as thief:
        server.faults.append(faults.answer(status, "", Location=f"{thief.url}/api/data/ingest"))
        with pytest.raises(DashboardUnreachable, match="which is not followed"):
            Client(server).submit()
        assert [] == thief.requests


@pytest.mark.parametrize(
    ("after", "slept"), [("7", 7.0), (formatdate(NOW + 9, usegmt=True), 9.0), ("0", 1.0), ("1000000000000", None)]
)
def test_retry_after_is_obeyed(server: ReceivingDashboard, after: str, slept: float | None) -> None:
    """A short delay is waited for within the run; a longer one ends the run, and the next ones keep to it."""
    client = Client(server)
    server.faults.append(faults.answer(503, "busy", Retry_After=after))
    if slept is not None:
        client.submit()
        assert [slept] == client.slept
        return
    with pytest.raises(DashboardUnreachable) as caught:
        client.submit()
    assert caught.value.retry_after_seconds > LONGEST_PAUSE_SECONDS
    assert ([], 1) == (client.slept, len(server.requests))


def test_a_wait_is_logged(server: ReceivingDashboard, caplog: pytest.LogCaptureFixture) -> None:
    """The message says what the problem was, and how long nothing will be sent."""
    caplog.set_level("INFO", logger="agent")
    server.faults.append(faults.answer(503, Retry_After="7"))
    Client(server).submit()
    assert ["the dashboard answered 503; trying again in 7.0 s"] == caplog.messages


@pytest.mark.parametrize("trouble", [faults.hang(), faults.drip(0.1)])
def test_no_answer_in_time(server: ReceivingDashboard, trouble: Fault) -> None:
    """Silence and slow drips are bounded as a whole, and no second request overlaps with a first that may still run."""
    server.manners = trouble
    started = time.monotonic()
    with pytest.raises(DashboardUnreachable) as caught:
        Client(server, timeout=0.5).submit()
    assert time.monotonic() - started < 4
    assert (True, 1) == (caught.value.timed_out, len(server.requests))
    assert f"no answer from {server.url}/api/data/ingest within 0.5 s" == str(caught.value)
    assert "check the dashboard, or give it more time with `timeout`; everything is kept" == caught.value.hint


def test_an_unhealthy_dashboard() -> None:
    """`check` asks for the dashboard's health, and shows the answer."""
    dashboard = Dashboard("http://d.example.com", "k", lambda *_: Answer(502, {}, "<h1>Bad Gateway</h1>"))
    with pytest.raises(DashboardUnreachable) as caught:
        dashboard.health()
    assert "the dashboard's health check answered 502 'Bad Gateway'" == str(caught.value)
    assert "check api_url: the address of the dashboard's backend, without /api" == caught.value.hint


def test_nothing_listens() -> None:
    """A refused connection is tried again, then reported in plain words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with ReceivingDashboard() as server:
        client = Client(server, url)
        with pytest.raises(DashboardUnreachable, match="Connection refused"):
            client.submit()
    assert TRIES - 1 == len(client.slept)


def test_an_unknown_name(server: ReceivingDashboard) -> None:
    """The name server may have a temporary problem: everything is kept."""
    with pytest.raises(DashboardUnreachable, match="no answer from"):
        Client(server, "http://dashboard.invalid").submit()


@pytest.mark.parametrize("host", ["dashboard..example.com", f"{'d' * 64}.example.com"])
def test_a_name_that_cannot_exist(server: ReceivingDashboard, host: str) -> None:
    """It is a wrong api_url, not an answer that was cut off."""
    with pytest.raises(ConfigError, match="cannot send a request") as caught:
        Client(server, f"http://{host}").submit()
    assert "check api_url" == caught.value.hint


def test_a_name_server_that_hangs(server: ReceivingDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's look-up has no time limit that a program could set, so the whole request has one."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30))
    started = time.monotonic()
    with pytest.raises(DashboardUnreachable) as caught:
        Client(server, "http://dashboard.example.com", timeout=0.2).submit()
    over.set()
    assert caught.value.timed_out
    assert time.monotonic() - started < 4


def test_a_name_server_that_answers_too_late(server: ReceivingDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The abandoned request is not sent any more: it would meet those that followed it, of this host or another."""
    look_up = socket.getaddrinfo
    over = threading.Event()
    threads = set(threading.enumerate())
    place = server.url.partition("://")[2].split(":")

    def late(*_: Any, **__: Any) -> Any:
        over.wait(30)
        return look_up(place[0], int(place[1]), type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    with pytest.raises(DashboardUnreachable):
        Client(server, "http://dashboard.example.com", timeout=0.2).submit()
    abandoned = [thread for thread in set(threading.enumerate()) - threads if thread.name == "request"]
    over.set()
    for thread in abandoned:
        thread.join(30)
    assert (1, []) == (len(abandoned), server.requests)


def test_an_untrusted_certificate(tmp_path: Path) -> None:
    """The key is not sent; with the site's CA it works."""
    pem = make_certificate(tmp_path)
    with ReceivingDashboard(tls=pem) as server:
        with pytest.raises(DashboardUnreachable, match="no secure connection"):
            Client(server).submit()
        assert [] == server.requests
        Client(server, ca=pem).submit()
        assert ["7"] == list(server.records)


def test_the_key_is_in_no_error(server: ReceivingDashboard) -> None:
    """The key is not shown even if the dashboard repeats it."""
    server.manners = faults.answer(400, {"detail": f"bad key {API_KEY}"})
    with pytest.raises(ExporterError) as caught:
        Client(server).submit()
    assert "bad key ***" in str(caught.value)
