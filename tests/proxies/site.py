"""Deliveries with the real client, and thousands of jobs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Callable

from agent.config import parse_config
from agent.dashboard.client import make_dashboard
from agent.errors import ExporterError
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import Record
from agent.spool.ledger import open_ledger
from agent.sync.delivery import Delivery
from tests.support.dashboard import API_KEY, Answer, Connection, Fault, ReceivingDashboard, Request

SUBMIT = 1_699_999_000


class Deliveries:
    """A ledger with waiting jobs, and runs that deliver them to a URL."""

    def __init__(self, folder: Path, url: str, jobs: int, **settings: Any) -> None:
        self.longest_pause = 0.5  # seconds; no run waits longer between two requests
        self.config = parse_config({"api_url": url, "api_key": API_KEY, **settings}, {})
        self._ledger, _ = open_ledger(folder / "ledger.db")
        with self._ledger.transaction():
            self._ledger.waiting.add((QueueEntry(job_id) for job_id in range(1, jobs + 1)), time.time())
        self.errors: list[ExporterError] = []

    def run(self) -> Delivery:
        """One run for all waiting jobs."""
        dashboard = make_dashboard(self.config, sleep=lambda seconds: time.sleep(min(seconds, self.longest_pause)))
        delivery = Delivery(
            dashboard,
            self._ledger,
            "lab",
            command="flush",
            batch_size=self.config.batch_size,
            timeout=self.config.timeout,
            clock=time.time,
        )
        try:
            for item in list(self._ledger.waiting.newest()):
                delivery.add(make_record(item.entry.job_id), item.key)
            delivery.flush()
        except ExporterError as error:
            self.errors.append(error)
        return delivery

    def waiting(self) -> int:
        return self._ledger.waiting.count()[0]

    def runs_until_all_is_through(self, most: int = 9) -> int:
        """The number of runs until nothing waits."""
        for number in range(1, most + 1):
            self.run()
            if not self.waiting():
                return number
        raise AssertionError(f"{self.waiting()} jobs still wait after {most} runs: {self.errors}")


def make_record(job_id: int) -> Record:
    text = json.dumps(
        {
            "JobID": str(job_id), "User": "alice", "Account": "physics", "Partition": "cpu", "State": "COMPLETED",
            "QOS": "normal", "NodeList": "n1", "Submit": "2023-11-14T22:13:20", "Start": "2023-11-14T22:13:20",
            "End": "2023-11-14T22:14:20", "CPUHours": 1.0, "GPUHours": 0.0, "AllocCPUS": 1, "AllocGPUS": 0,
            "AllocNodes": 1,
        }
    )  # fmt: skip
    return Record((job_id, SUBMIT), SUBMIT + 60, str(job_id), 60, 0, text)


def works_slowly(seconds_a_record: float, seconds_a_post: float = 0.065) -> Fault:
    """Like the real dashboard, serves one request at a time, and answers nothing else meanwhile."""
    alone = threading.Lock()

    def fault(request: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        with alone:
            if request.method == "POST":
                connection.hang(seconds_a_post + seconds_a_record * len(request.jobs))
            answer = serve()
        connection.send(answer)

    return fault


def stored(dashboard: ReceivingDashboard) -> int:
    """The number of different jobs that it has."""
    return len(dashboard.records)
