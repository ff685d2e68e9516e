"""The dashboard of several hosts: it records who sent what, and can rewrite a year's file like the real one."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any, Dict, NamedTuple, Tuple

from tests.ha.hosts import Host
from tests.support.dashboard import ReceivingDashboard, Request

#: (hostname, JobID, Submit): one run of one job.
Key = Tuple[str, str, str]
File = Dict[Tuple[str, int, str], Dict[str, Any]]


class Arrival(NamedTuple):
    """The first arrival of a job."""

    at: float  # epoch seconds
    record: dict[str, Any]


class Board(ReceivingDashboard):
    """A dashboard on one host, reachable from all others.

    :param host: where it listens.
    """

    def __init__(self, host: Host) -> None:
        #: The seconds between reading a year's file and writing it back, without a lock.
        self.rewrite_seconds = 0.0
        self.first: dict[Key, Arrival] = {}
        #: (address of a host, Key) → how often that host sent the job.
        self.sent: Counter[tuple[str, Key]] = Counter()
        super().__init__(address=host.address)

    def handle(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        content = request.content
        for job in request.jobs:
            key = (content["hostname"], job["JobID"], job["Submit"])
            self.first.setdefault(key, Arrival(request.arrived, job))
            self.sent[handler.client_address[0], key] += 1
        super().handle(request, handler)

    def store(self, hostname: str, jobs: list[dict[str, Any]]) -> None:
        """What another request writes between this one's read and write is lost, as with the real one."""
        if not self.rewrite_seconds:
            super().store(hostname, jobs)
            return
        files: dict[int, list[dict[str, Any]]] = {}
        for job in jobs:
            files.setdefault(datetime.fromisoformat(job["Submit"]).year, []).append(job)
        for year, new in files.items():
            with self._lock:
                file = self._read(hostname, year)
            time.sleep(self.rewrite_seconds)
            file.update(((hostname, year, job["JobID"]), job) for job in new)
            with self._lock:
                for key in self._read(hostname, year):
                    del self.stored[key]
                self.stored.update(file)

    def _read(self, hostname: str, year: int) -> File:
        return {key: job for key, job in self.stored.items() if key[:2] == (hostname, year)}


def open_board(host: Host) -> Board:
    """A dashboard in a host's network; use it in a ``with``."""
    return host.in_network(lambda: Board(host))
