"""Watches what the dashboard receives, and prints each job once."""

from __future__ import annotations

import time
from typing import Any, Callable

from tests.demo.screen import Screen
from tests.support.dashboard import Answer, Connection, Request


class Arrivals:
    """Watches a dashboard's requests, as its ``manners``.

    :param since: record → the epoch seconds from which its delay counts.
    """

    def __init__(self, screen: Screen, since: Callable[[dict[str, Any]], float]) -> None:
        #: JobID → seconds.
        self.delays: dict[str, float] = {}
        self._screen = screen
        self._since = since

    def __call__(self, request: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        answer = serve()
        taken = time.time()
        connection.send(answer)
        for record in request.jobs if answer.status == 200 else []:
            if record["JobID"] not in self.delays:
                self.delays[record["JobID"]] = delay = max(taken - self._since(record), 0.0)
                self._screen.row(record, taken, delay)
