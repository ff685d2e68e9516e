"""A hostile or broken dashboard costs little memory and time, breaks nothing, and injects nothing into the log."""

from __future__ import annotations

import gzip
import json
import random
import resource
import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from agent.dashboard.answer import Answer, describe, judge, read_name, shown_clusters
from agent.dashboard.client import Dashboard
from agent.dashboard.transport import LONGEST_ANSWER, RequestsTransport
from agent.errors import BatchRefused, ConfigError, DashboardUnreachable, ExporterError
from agent.sanitize import clean
from tests.support.snapshots import make_config
from tests.support.waiting import wait_for

KEY = "s3cret/key+x"
TIMEOUT = 2.0
#: This much more memory than before is harmless: megabytes.
ROOM_MB = 64

Writer = Callable[[socket.socket], None]


class RawServer:
    """Sends arbitrary bytes to every client, as long as its ``with`` lasts."""

    def __init__(self, write: Writer, asked: list[bytes] | None = None) -> None:
        self._write = write
        self._asked = [] if asked is None else asked
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(20)
            try:
                self._asked.append(connection.recv(1 << 16))
                self._write(connection)
            except OSError:
                pass  # the client has hung up


def says(*parts: bytes) -> Writer:
    """Sends this answer, and closes."""
    return lambda connection: connection.sendall(b"".join(parts))


def floods(head: bytes, chunk: bytes) -> Writer:
    """Never stops sending after the head."""

    def write(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(chunk)

    return write


def ok(body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", *headers, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


BOMB = gzip.compress(bytes(20_000_000)) * 10
PACKED = (b"Content-Encoding: gzip", b"Content-Type: application/json")


def ask(url: str, *, headers: dict[str, str] | None = None, secret: str = KEY, timeout: float = TIMEOUT) -> Answer:
    """One request with the real transport."""
    transport = RequestsTransport(make_config()._replace(timeout=timeout, api_key=secret))
    return transport("POST", f"{url}/api/data/ingest", headers or {"X-API-Key": secret}, b"[]")


def threads() -> int:
    """The number of requests in progress."""
    return sum(thread.name == "request" for thread in threading.enumerate())


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "write",
    [
        says(ok(BOMB, *PACKED)),
        says(ok(BOMB, b"Content-Encoding: gzip, gzip")),
        says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n", ok(BOMB, *PACKED)[17:]),
        says(b"HTTP/1.1 422 No\r\n", ok(BOMB, *PACKED)[17:]),
        floods(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b"x" * 65535 + b"\r\n"),
        floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1" * 65536),
        floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 9000),
        floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n", b"x" * 65536),
        floods(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999\r\n\r\n", b"x" * 65536),
        floods(b"HTTP/1.1 200 OK\r\n", b"Set-Cookie: a=" + b"b" * 60_000 + b"\r\n"),
        floods(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536),
        floods(b"HTTP/1.1 200 ", b"y" * 65536),
        floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
        floods(b"", b"HTTP/1.1 100 Continue\r\nX: " + b"z" * 60_000 + b"\r\n\r\n"),
        floods(b"", b"HTTP/1.1 103 Early\r\n\r\n" * 2000),
        floods(b"", b"\0" * 65536),
    ],
    ids=[
        "gzip", "gzip twice", "a redirect with a bomb", "a refusal with a bomb", "no end", "chunks", "a chunk's size",
        "trailers", "a chunk without end", "a length", "headers", "a header", "a reason", "100s", "long 100s", "103s",
        "nuls",
    ],
)  # fmt: skip
def test_no_answer_takes_memory_or_time(write: Writer) -> None:
    """At most 1 MB is read, nothing is decompressed, and the time limit holds."""
    before, started, running = peak_mb(), time.monotonic(), threads()
    with RawServer(write) as server:
        try:
            assert len(ask(server.url, timeout=0.3).text) <= LONGEST_ANSWER
        except DashboardUnreachable as error:
            assert len(str(error)) < 700
        assert time.monotonic() - started < 5
        wait_for(lambda: threads() <= running, "the end of the thread that was given up")
    assert peak_mb() - before < ROOM_MB


def test_no_compression_is_requested() -> None:
    """The request asks for an uncompressed answer."""
    asked: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        connection.sendall(ok(asked[0]))

    with RawServer(listen, asked) as server:
        assert "accept-encoding: identity" in ask(server.url).text.lower()


@pytest.mark.parametrize(
    "write",
    [
        says(b""),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}"),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
        says(b"HTTP/1.1 20"),
        says(b"garbage\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
    ],
    ids=["at once", "mid-body", "mid-chunk", "behind a chunk", "no chunk", "mid-line", "garbage", "too many headers"],
)
def test_a_broken_connection_may_mean_too_large_a_batch(write: Writer) -> None:
    """A smaller batch may get through, whatever the version of urllib3."""
    with RawServer(write) as server, pytest.raises(DashboardUnreachable) as caught:
        ask(server.url)
    assert (True, False) == (caught.value.overwhelmed, caught.value.timed_out)


def test_no_cookie_comes_back() -> None:
    """A dashboard needs none, and a hostile one could store what it likes."""
    with RawServer(says(ok(b"{}", b"Set-Cookie: a=b; Path=/"))) as server:
        transport = RequestsTransport(make_config(timeout=TIMEOUT))
        transport("GET", f"{server.url}/", {}, None)
        assert transport._session is not None
        assert [] == list(transport._session.cookies)


@pytest.mark.parametrize("spelling", [KEY, "s3cret%2Fkey%2Bx", KEY.replace("3", "\\u0033")])
def test_the_key_appears_nowhere(spelling: str) -> None:
    """The key leaks neither from a redirect's target nor from an error message, however it is encoded."""
    plain = spelling.replace("\\u0033", "3")
    reported = [
        ok(b"x").replace(b"200 OK", b"302 Found\r\nLocation: http://h/?key=" + plain.encode()),
        ok(b'{"detail": "bad key %s"}' % spelling.encode()).replace(b"200 OK", b"400 " + plain.encode()),
        ok(b'{"detail": "%s"}' % spelling.encode()).replace(b"200 OK", b"401 No"),
        ok(b'{"success": true, "jobs_processed": "%s"}' % spelling.encode()),
        ok(b'{"success": false, "message": "%s"}' % spelling.encode()),
    ]
    for answer in reported:
        with RawServer(says(answer)) as server, pytest.raises(ExporterError) as caught:
            judge(ask(server.url), sent=2, now=0)
        assert plain not in str(caught.value)
        assert "***" in str(caught.value)
    problem = '{"detail": [{"loc": ["body", "jobs", 1, "%s"], "msg": "%s", "input": "%s"}]}' % ((spelling,) * 3)
    with pytest.raises(BatchRefused) as refusal:
        judge(Answer(422, {}, problem, KEY), sent=2, now=0)
    assert plain not in refusal.value.named[1]


def test_a_message_of_success_is_cleaned() -> None:
    """It is written to the log."""
    body = {"success": True, "jobs_processed": 2, "message": f"done\n\x1b[31m {KEY} \ud800 " + "x" * 10_000}
    message = judge(Answer(200, {}, json.dumps(body), KEY), sent=2, now=0)
    assert message.startswith("done ?[31m *** ? xxx")
    assert len(message) <= 300


@pytest.mark.parametrize(
    "counted",
    [True, 2.0, "2", "A" * 15_000_000, [2], {"2": 2}, None, -2, 10**4000, float("nan"), float("inf"), "\ud800"],
    ids=range(12),
)
def test_a_count_that_is_not_a_number(counted: Any) -> None:
    """A count of any type and size is refused with a short message."""
    with pytest.raises(BatchRefused) as caught:
        judge(Answer(200, {}, json.dumps({"success": True, "jobs_processed": counted})), sent=2, now=0)
    assert len(str(caught.value)) < 300
    str(caught.value).encode()


@pytest.mark.parametrize(
    "detail",
    [
        [{"loc": ["body", "jobs", 0, "User"], "msg": "\ud800", "input": "\udfff"}],
        [{"loc": ["body", "jobs", 0, "User"], "msg": "x", "input": 1}] * 30_000,
        [{"loc": ["body", "jobs", index, "User"]} for index in range(30_000)],
        [{"loc": ["body", "jobs", 0, *["deep"] * 100_000], "msg": "x" * 100_000, "input": {"a": ["b"] * 100_000}}],
        [{"loc": ["body", "jobs", True, "User"], "msg": "x"}, {"loc": ["body", "jobs", -1]}, {"loc": ["body", "jobs"]}],
        [{"loc": ["body", "jobs", 0, None], "msg": None}, {"loc": 5}, 5, None],
        {"loc": "x"},
        "\ud800",
        "\x1b]0;title\x07",
    ],
    ids=range(9),
)
def test_any_body_of_a_422(detail: Any) -> None:
    """The message can be stored, logged and printed, and is short."""
    with pytest.raises(BatchRefused) as caught:
        judge(Answer(422, {}, json.dumps({"detail": detail})), sent=2, now=0)
    for words in [str(caught.value), *caught.value.named.values()]:
        words.encode()
        assert words == clean(words, 1000)


@pytest.mark.parametrize(
    "text", ["9" * 1_000_000, '{"a": ' + "9" * 1_000_000 + "}", "[" * 500_000, '{"a":' * 100_000, "[{}," * 200_000]
)
def test_no_json_takes_time(text: str) -> None:
    """Old Pythons need minutes for a number of a million digits, and stumble over brackets."""
    started = time.monotonic()
    describe(Answer(500, {}, text))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("content", ["null", "[]", '{"cluster": 1}', '{"hostnames": {"a": 1}}', '{"hostnames": [1]}'])
def test_texts_that_are_not_names(content: str) -> None:
    """Anything else counts as no name."""
    assert "" == read_name(Answer(200, {}, content), "cluster")
    assert shown_clusters(Answer(200, {}, content)) in (None, [])


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_are_an_answer_or_refused(seed: int) -> None:
    """Damaged answers never cause a traceback, and never take more time than allowed."""
    dice = random.Random(seed)
    answer = bytearray(ok(b'{"success": true, "jobs_processed": 2}', b"Server: nginx", b"Connection: keep-alive"))
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(answer))
        answer[place : place + dice.randint(0, 3)] = bytes(dice.randrange(256) for _ in range(dice.randint(0, 5)))
    with RawServer(says(bytes(answer))) as server:
        transport = RequestsTransport(make_config()._replace(timeout=TIMEOUT, api_key=KEY))
        dashboard = Dashboard(server.url, KEY, transport, sleep=lambda _: None)
        try:
            dashboard.submit("lab", ["{}", "{}"])
        except ExporterError as error:
            str(error).encode()
            assert not isinstance(error, ConfigError)


def test_a_retry_after_without_end() -> None:
    """A Retry-After of any length results in a short error message."""
    answer = Answer(503, {"Retry-After": "9" * 60_000}, "")
    with pytest.raises(DashboardUnreachable) as caught:
        judge(answer, sent=1, now=0)
    assert len(str(caught.value)) < 300


def test_files_that_are_not_certificates(tmp_path: Path) -> None:
    """They are configuration errors whose messages name the file."""
    (tmp_path / "no.pem").write_text("nothing")
    for options, name in (({"ca_bundle": "no.pem"}, "ca_bundle"), ({"client_cert": "no.pem"}, "client_cert")):
        with pytest.raises(ConfigError, match=f"{name}: {tmp_path}/no.pem can't be used"):
            RequestsTransport(make_config(**{key: str(tmp_path / value) for key, value in options.items()}))
