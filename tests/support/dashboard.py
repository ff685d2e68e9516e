"""A receiving dashboard that behaves like the real one, including its faults, for this machine only.

In a test: ``with ReceivingDashboard() as dashboard:``, then look at ``records`` and ``requests``, and put faults from
:mod:`tests.support.dashboard_faults` into ``faults``. By hand: ``python -m tests.support.dashboard --port 8080``.

It reproduces the real one's defects: one record of a wrong type makes it refuse the whole POST (422), a null Start
or mixed offsets break it (500), and of several records with one JobID the last to arrive wins.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple
from urllib.parse import parse_qs

from .ingest_schema import find_breakage, find_problems

INGEST = "/api/data/ingest"
API_KEY = "a-valid-api-key"
DEPLOY_KEY = "a-valid-deploy-key"


class Request(NamedTuple):
    """A request as it arrived."""

    arrived: float  # epoch seconds
    method: str
    path: str
    headers: Mapping[str, str]  # with lower-case names
    body: bytes

    @property
    def content(self) -> Any:
        """Its JSON content; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Its records."""
        content = self.content
        return list(content["jobs"]) if isinstance(content, dict) and "jobs" in content else []


class Answer(NamedTuple):
    """The answer: a status, and a body that is sent as JSON unless it is text."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


class Connection:
    """The client's connection, to answer or to disturb."""

    def __init__(self, handler: BaseHTTPRequestHandler, closing: threading.Event) -> None:
        self._handler = handler
        self._closing = closing

    def send(self, answer: Answer, *, drip_seconds: float = 0.0) -> None:
        """Answers; with ``drip_seconds`` one byte of the body at a time."""
        body = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
        self._handler.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        step = 1 if drip_seconds else len(body) or 1
        for start in range(0, len(body), step):
            self._handler.wfile.write(body[start : start + step])
            self.hang(drip_seconds)

    def send_raw(self, *parts: bytes, close: bool) -> None:
        """Writes bytes of an HTTP answer, each part with a write of its own."""
        for part in parts:
            self._handler.wfile.write(part)
        self._handler.close_connection = close

    def hang(self, seconds: float) -> None:
        """Keeps the client waiting, at most until the dashboard closes."""
        self._closing.wait(seconds)

    def reset(self) -> None:
        """Resets the connection (RST), like a crashing proxy."""
        connection = self._handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())
        self._handler.close_connection = True


#: Replaces an answer. ``serve`` handles the request like the real dashboard, and returns its answer without sending it.
#: A fault may call it, and may do anything with the connection.
Fault = Callable[[Request, Connection, Callable[[], Answer]], None]


def behave(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
    """Answers without a fault."""
    connection.send(serve())


class ReceivingDashboard:
    """A dashboard that listens while its ``with`` block runs.

    :param api_keys: the keys it accepts; an empty set makes it a server that was never configured.
    :param owners: key → its cluster. A key without a cluster is of the older, shared kind: it may submit jobs, and
        every other request is refused.
    :param deploy_keys: one-time key → its cluster.
    :param tls: a PEM file with a certificate and its key, to speak HTTPS.
    :param port: 0 for any free one.
    :param address: where it listens.
    """

    def __init__(
        self,
        *,
        api_keys: set[str] | None = None,
        owners: Mapping[str, str] | None = None,
        deploy_keys: Mapping[str, str] | None = None,
        tls: Path | None = None,
        port: int = 0,
        address: str = "127.0.0.1",
    ) -> None:
        self.api_keys = {API_KEY} if api_keys is None else set(api_keys)
        self.owners = dict({API_KEY: "lab"} if owners is None else owners)
        self.deploy_keys = dict({DEPLOY_KEY: "lab"} if deploy_keys is None else deploy_keys)
        #: Every request, oldest first.
        self.requests: list[Request] = []
        #: One for each of the next requests; after these, :attr:`manners` decides.
        self.faults: deque[Fault] = deque()
        self.manners: Fault = behave
        #: (hostname, year of Submit, JobID) → record.
        self.stored: dict[tuple[str, int, str], dict[str, Any]] = {}
        #: The clusters that have a folder: any POST creates one, and after a restart the dashboard shows it.
        self.folders: set[str] = set()
        #: The clusters that the health check lists; None: all that have jobs.
        self.shown: list[str] | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._address = address
        self._server = _Server(self, address, port)
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.speak_tls(tls)

    def __enter__(self) -> ReceivingDashboard:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The api_url for the configuration."""
        return f"{self._scheme}://{self._address}:{self._server.server_port}"

    @property
    def posts(self) -> list[Request]:
        """The requests to the ingest path."""
        return [request for request in list(self.requests) if request.path == INGEST]

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """The displayed records: JobID → record.

        :raises ValueError: if a JobID is stored twice, under two years or hostnames.
        """
        with self._lock:
            records = {job_id: record for (_, _, job_id), record in self.stored.items()}
            if len(records) < len(self.stored):
                raise ValueError(f"{len(self.stored) - len(records)} JobIDs are on the dashboard more than once")
        return records

    def handle(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        """Records a request, and answers it with the next fault or, without one, the manners."""
        with self._lock:
            self.requests.append(request)
            respond = self.faults.popleft() if self.faults else self.manners
        respond(request, Connection(handler, self._closing), lambda: self.serve(request))

    def serve(self, request: Request) -> Answer:
        """Serves a request like the real dashboard."""
        serve = {
            ("POST", INGEST): self._ingest,
            ("GET", "/"): self._front_page,
            ("GET", "/api/dashboard/health"): self._health,
            ("GET", "/api/agent/health"): self._key_health,
            ("GET", "/api/agent/list-files"): self._list_files,
            ("POST", "/api/agent/exchange-deploy-key"): self._exchange,
        }.get((request.method, request.path))
        return serve(request) if serve else Answer(404, {"detail": "Not Found"})

    def _ingest(self, request: Request) -> Answer:
        refusal = self._refuse_key(request)
        if refusal:
            return refusal
        content = request.content
        problems = find_problems(content)
        if problems:
            return Answer(422, {"detail": problems})
        hostname, jobs = content["hostname"], content["jobs"]
        self.folders.add(hostname)
        breakage = find_breakage(jobs)
        if breakage:
            return Answer(500, {"detail": f"Failed to ingest data: {breakage}"})
        self.store(hostname, jobs)
        message = f"Successfully ingested {len(jobs)} jobs for {hostname}"
        return Answer(200, {"success": True, "message": message, "jobs_processed": len(jobs), "hostname": hostname})

    def store(self, hostname: str, jobs: list[dict[str, Any]]) -> None:
        """Stores records: for each JobID and year, the last to arrive."""
        with self._lock:
            for job in jobs:
                self.stored[hostname, datetime.fromisoformat(job["Submit"]).year, job["JobID"]] = job

    def _front_page(self, _: Request) -> Answer:
        """What the demo's link shows: the newest records. The real dashboard has charts there."""
        with self._lock:
            newest = list(self.stored.values())[-100:]
            return Answer(200, {"jobs": len(self.stored), "newest": newest[::-1]})

    def _health(self, _: Request) -> Answer:
        stored = {hostname for hostname, _, _ in list(self.stored)}
        hostnames = sorted(stored) if self.shown is None else self.shown
        return Answer(200, {**_healthy(), "data_loaded": bool(hostnames), "hostnames": hostnames})

    def _key_health(self, request: Request) -> Answer:
        return self._refuse_stranger(request) or Answer(200, _healthy())

    def _list_files(self, request: Request) -> Answer:
        refusal = self._refuse_stranger(request)
        cluster = self.owners.get(request.headers.get("x-api-key", ""), "")
        return refusal or Answer(200, {"cluster": cluster, "files": [], "count": 0})

    def _exchange(self, request: Request) -> Answer:
        offered = parse_qs(request.body.decode(errors="replace")).get("deploy_key", [""])[0]
        with self._lock:
            cluster = self.deploy_keys.pop(offered, None)
        if cluster is None:
            return Answer(401, {"detail": "Invalid, used or expired deploy key"})
        api_key = secrets.token_urlsafe(24)
        self.api_keys.add(api_key)
        self.owners[api_key] = cluster
        return Answer(200, {"status": "success", "cluster_name": cluster, "api_key": api_key})

    def _refuse_key(self, request: Request) -> Answer | None:
        if not self.api_keys:
            return Answer(500, {"detail": "No API keys configured on server"})
        if request.headers.get("x-api-key") not in self.api_keys:
            return Answer(401, {"detail": "Invalid or missing API key"})
        return None

    def _refuse_stranger(self, request: Request) -> Answer | None:
        if request.headers.get("x-api-key") not in self.owners:
            return Answer(401, {"detail": "Invalid API key"})
        return self._refuse_key(request)


def _healthy() -> dict[str, Any]:
    return {"status": "healthy", "timestamp": datetime.now().isoformat()}


class _Server(ThreadingHTTPServer):
    """Passes every request to its dashboard, each connection in its own thread."""

    def __init__(self, dashboard: ReceivingDashboard, address: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections are kept alive, like the real one's
            disable_nagle_algorithm = True  # otherwise the second half of an answer would wait for 40 ms

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                dashboard.handle(Request(time.time(), self.command, self.path, headers, body), self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Logs nothing: the requests are recorded."""

        super().__init__((address, port), Handler)

    def speak_tls(self, pem: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        # The TLS handshake runs in the connection's own thread: a client that omits it would block all others.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that have hung up; anything else is a bug in this module."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # passed on as it came


def main() -> None:
    """Runs a dashboard until Ctrl-C, and prints each request."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.dashboard", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--api-key", default=API_KEY, help=f"default: {API_KEY}")
    options = parser.parse_args()

    def print_and_behave(request: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        answer = serve()
        print(f"{request.method} {request.path} ({len(request.jobs)} jobs): {answer.status}", flush=True)
        connection.send(answer)

    with ReceivingDashboard(api_keys={options.api_key}, port=options.port) as dashboard:
        dashboard.manners = print_and_behave
        print(f"api_url = {dashboard.url!r}, api_key = {options.api_key!r}; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{len(dashboard.stored)} jobs stored")


if __name__ == "__main__":
    main()
