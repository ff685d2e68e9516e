"""A proxy that forwards HTTPS, and remembers the destinations."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable


class Proxy(ThreadingHTTPServer):
    """Listens on 127.0.0.1 while its ``with`` block runs. ``asked`` lists the requested hosts and ports.

    :param connect: makes a connection to a host and a port.
    """

    def __init__(self, connect: Callable[[tuple[str, int]], socket.socket] = socket.create_connection) -> None:
        self.asked: list[str] = []
        self._connect = connect
        super().__init__(("127.0.0.1", 0), _Handler)

    def __enter__(self) -> Proxy:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reach(self, place: str) -> socket.socket:
        """A connection to HOST:PORT."""
        self.asked.append(place)
        host, _, port = place.partition(":")
        return self._connect((host, int(port)))


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_CONNECT(self) -> None:
        with self.server.reach(self.path) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(far, self.connection), daemon=True)
            back.start()
            _pump(self.connection, far)
            back.join()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copies until one side closes."""
    try:
        while True:
            data = source.recv(1 << 16)
            if not data:
                break
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
