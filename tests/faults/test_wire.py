"""Whatever form of HTTP an answer takes on its way through proxies, it is read as what the dashboard said."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.faults.site import Site
from tests.proxies.site import Deliveries
from tests.support import dashboard_faults as faults
from tests.support.dashboard import Answer, Connection, Fault, ReceivingDashboard, Request

JOBS = 20
KEEP, CLOSE = b"Connection: keep-alive\r\n", b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\n"


def with_length(status: int, body: bytes, version: bytes = b"1.1", more: bytes = b"") -> bytes:
    return b"HTTP/%b %d \r\n%b%bContent-Length: %d\r\n\r\n%b" % (version, status, JSON, more, len(body), body)


def without_length(status: int, body: bytes, version: bytes) -> bytes:
    return b"HTTP/%b %d OK\r\n%b\r\n%b" % (version, status, JSON, body)


def chunked(status: int, body: bytes) -> list[bytes]:
    head = b"HTTP/1.1 %d OK\r\n%bTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" % (status, JSON)
    chunks = [b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:])]
    return [head, *chunks, b"0\r\nX-Sum: 1\r\n\r\n"]


def interim(*statuses: int) -> Fault:
    """Answers the final status after others, at once or in a packet of their own."""
    heads = [b"HTTP/1.1 %d Wait\r\nLink: </style.css>; rel=preload\r\n\r\n" % status for status in statuses]

    def fault(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        connection.send_raw(*heads, close=False)
        connection.hang(0.05)
        connection.send(serve())

    return fault


def behind(head: bytes, *, at_once: bool = False) -> Fault:
    """Sends the usual answer after another head."""

    def make(status: int, body: bytes) -> list[bytes]:
        parts = [head, with_length(status, body)]
        return [b"".join(parts)] if at_once else parts

    return faults.raw(make)


FORMS: dict[str, Fault] = {
    "100": interim(100),
    "102": interim(102),
    "103": interim(103),
    "100, 102, 103 and 199": interim(100, 102, 102, 103, 199),
    "103 in one packet": behind(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", at_once=True),
    "103 of HTTP/1.0": behind(b"HTTP/1.0 103 \r\n\r\n"),
    "103 with length": behind(b"HTTP/1.1 103 \r\nContent-Length: 0\r\n\r\n"),
    "HTTP/1.0": faults.raw(lambda status, body: [without_length(status, body, b"1.0")], close=True),
    "HTTP/1.0 kept open": faults.raw(lambda status, body: [with_length(status, body, b"1.0", KEEP)]),
    "no length": faults.raw(lambda status, body: [without_length(status, body, b"1.1")], close=True),
    "chunks and trailers": faults.raw(chunked),
    "Connection: close": faults.raw(lambda status, body: [with_length(status, body, more=CLOSE)], close=True),
    "closed while idle": faults.raw(lambda status, body: [with_length(status, body)], close=True),
    "a byte too many": faults.raw(lambda status, body: [with_length(status, body), b"\n"]),
    "an answer too many": faults.raw(lambda status, body: [with_length(status, body), with_length(status, body)]),
}  # fmt: skip
#: What is stored, but answered with only a part.
CUT: dict[str, Fault] = {
    "mid-body": faults.raw(lambda status, body: [with_length(status, body)[:-5]], close=True),
    "mid-body without length": faults.raw(lambda status, body: [without_length(status, body, b"1.0")[:-5]], close=True),
    "mid-chunk": faults.raw(lambda status, body: chunked(status, body)[:2], close=True),
    "before trailers": faults.raw(lambda status, body: chunked(status, body)[:3], close=True),
    "mid-head": faults.raw(lambda status, body: [with_length(status, body)[:30]], close=True),
    "behind a 103": faults.raw(lambda status, body: [b"HTTP/1.1 103 \r\n\r\n"], close=True),
    "in a 103": faults.raw(lambda status, body: [b"HTTP/1.1 103 \r\nLink"], close=True),
    "switched": behind(b"HTTP/1.1 101 \r\n\r\n"),
}


@pytest.fixture
def dashboard() -> Iterator[ReceivingDashboard]:
    with ReceivingDashboard() as running:
        yield running


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_an_answer(tmp_path: Path, dashboard: ReceivingDashboard, form: str) -> None:
    """All jobs are delivered in one run, and none is sent twice."""
    dashboard.manners = FORMS[form]
    site = Deliveries(tmp_path, dashboard.url, JOBS, batch_size=5)
    assert 1 == site.runs_until_all_is_through()
    assert [5] * 4 == [len(request.jobs) for request in dashboard.posts]


@pytest.mark.parametrize("cut", CUT)
def test_an_answer_that_is_cut_once(tmp_path: Path, dashboard: ReceivingDashboard, cut: str) -> None:
    """The same run delivers everything."""
    dashboard.faults.append(CUT[cut])
    site = Deliveries(tmp_path, dashboard.url, JOBS, batch_size=5)
    site.longest_pause = 0.01
    assert 1 == site.runs_until_all_is_through()
    assert JOBS == len(dashboard.records)


@pytest.mark.parametrize("cut", CUT)
def test_an_answer_that_is_always_cut(tmp_path: Path, dashboard: ReceivingDashboard, cut: str) -> None:
    """Nothing counts as delivered, nothing is set aside, and the run ends after a few requests."""
    dashboard.manners = CUT[cut]
    site = Deliveries(tmp_path, dashboard.url, JOBS, batch_size=5)
    site.longest_pause = 0.01
    done = site.run()
    assert (0, 0, JOBS) == (done.delivered, done.rejected, site.waiting())
    assert len(dashboard.requests) <= 30


def test_flush_and_reconcile(tmp_path: Path, dashboard: ReceivingDashboard) -> None:
    """Each request gets another form of answer, on one connection where that allows it; both commands succeed."""
    dashboard.faults.extend([*FORMS.values()] * 9)
    site = Site(tmp_path, dashboard, batch_size=3)
    with site.agents:
        site.start_over()
        site.queue_everything()
        assert 0 == site.agents.run("flush"), site.agents.log()
        flushed = dict(dashboard.records)
        assert len(dashboard.posts) >= len(FORMS)
        site.start_over()
        assert 0 == site.agents.run(*site.reconcile_argv()), site.agents.log()
    assert flushed == dashboard.records
