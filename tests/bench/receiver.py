"""A dashboard that accepts everything at once, and afterwards reports exactly what it received."""

from __future__ import annotations

import json
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Iterator

API_KEY = "bench"


class Receiver:
    """What was received since the last :meth:`take`. It is parsed only then, so that no sender waits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._posts = tempfile.TemporaryFile()  # noqa: SIM115  # deleted with this object

    def add(self, body: bytes) -> int:
        """Keeps a POST, which has no newlines, and returns how many records it holds."""
        self._posts.write(body + b"\n")
        return body.count(b'{"JobID":')

    def take(self) -> Iterator[list[dict[str, Any]]]:
        """The records of each POST, in order of arrival."""
        posts, self._posts = self._posts, tempfile.TemporaryFile()  # noqa: SIM115
        posts.seek(0)
        for body in posts:
            yield json.loads(body)["jobs"]

    def take_jobs(self) -> int:
        """How many different jobs have arrived complete and readable."""
        return len({hash((record["JobID"], record["Submit"])) for batch in self.take() for record in batch})


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listens on a free loopback port while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.receiver  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["X-API-Key"] != API_KEY:
            self.send_error(401)
            return
        count = self.server.receiver.add(body)  # type: ignore[attr-defined]
        answer = json.dumps(
            {"success": True, "message": f"Successfully ingested {count} jobs", "jobs_processed": count}
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""
