"""The two sites of the tests: a ledger for single flushes, reconciles and deliveries; a spool for whole sessions.

Slurm and the dashboard are those of :mod:`tests.support.memory`; a test can pass in others.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Iterable, Iterator, TypeVar

from agent.config import parse_config
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import Record
from agent.jobs.run import Run
from agent.localtime import Range
from agent.spool.ledger import Ledger
from agent.spool.spool import Spool, open_spool
from agent.sync.delivery import Delivery
from agent.sync.flush import Flush
from agent.sync.pipeline import Pipeline
from agent.sync.prepare import Settings
from agent.sync.reconcile import Reconcile, Tally
from agent.sync.session import Session
from agent.sync.window import window
from tests.support.memory import DAY, WINDOW, MemoryDashboard, MemorySlurm, slurm_of

SETTINGS = Settings("lab", "sum", skip_never_started=False, retry_max_age_seconds=7.0 * DAY)

AnySlurm = TypeVar("AnySlurm", bound=MemorySlurm)
AnyDashboard = TypeVar("AnyDashboard", bound=MemoryDashboard)


class MemorySite(Generic[AnySlurm, AnyDashboard]):
    """A ledger on disk, a Slurm and a dashboard in memory, and a clock that moves only when a flush sleeps.

    :param options: options of a Delivery.
    """

    def __init__(
        self,
        ledger: Ledger,
        slurm: AnySlurm,
        dashboard: AnyDashboard,
        *,
        now: float,
        batch_size: int = 5000,
        **options: Any,
    ) -> None:
        self.ledger = ledger
        self.slurm = slurm
        self.dashboard = dashboard
        self.now = now
        self.slept = 0.0
        self.alive: dict[int, str] | None = {}  # states of those that have not ended, according to slurmctld
        self._options = {"batch_size": batch_size, **options}

    def queue(self, *entries: QueueEntry) -> None:
        """Queues job ends as if the hook had reported them."""
        with self.ledger.transaction():
            self.ledger.waiting.add(entries, self.now)

    def deliver(self, command: str) -> Delivery:
        """A delivery for a command."""
        return Delivery(
            self.dashboard,
            self.ledger,
            "lab",
            command=command,
            clock=lambda: self.now,
            **self._options,
        )

    def pipeline(self, delivery: Delivery, settings: Settings) -> Pipeline:
        """What flush and reconcile work with here."""
        slurm: Any = self.slurm
        return Pipeline(
            self.ledger, slurm, delivery, settings, alive=lambda raw_ids: self.alive, clock=lambda: self.now
        )

    def send(self, records: Iterable[Record], command: str = "flush") -> Delivery:
        """Delivers some records, in flush for waiting jobs."""
        delivery = self.deliver(command)
        for record in records:
            delivery.add(record, QueueEntry(record.raw_id).key if command == "flush" else None)
        delivery.flush()
        return delivery

    def flush(self, *, settings: Settings = SETTINGS, at: float | None = None) -> Delivery:
        """Runs one flush, now or at another time."""
        self.now = self.now if at is None else at
        delivery = self.deliver("flush")
        Flush(self.pipeline(delivery, settings), sleep=self.sleep).run()
        return delivery

    def reconcile(
        self, wanted: Range = WINDOW, *, settings: Settings = SETTINGS, now: float = WINDOW.end, **options: Any
    ) -> Tally:
        """Runs one reconcile at an instant."""
        self.now = now
        run = Reconcile(self.pipeline(self.deliver("reconcile"), settings), **options)
        run.run(wanted)
        return run.tally

    def sleep(self, seconds: float) -> None:
        """Advances the clock."""
        self.now += seconds
        self.slept += seconds

    def records(self) -> list[dict[str, Any]]:
        """The delivered records, in order."""
        return [json.loads(text) for batch in self.dashboard.batches for text in batch]

    def arrived(self) -> list[str]:
        """The JobIDs of these."""
        return [record["JobID"] for record in self.records()]

    def sent(self) -> list[dict[str, Any]]:
        """The records delivered since the last call."""
        records = self.records()
        self.dashboard.batches.clear()
        return records

    def waiting(self) -> dict[int, str]:
        """The waiting jobs and their reasons."""
        return {item.entry.job_id: item.reason for item in self.ledger.waiting.newest()}

    def waiting_ids(self) -> list[int]:
        """The JobIDs of these."""
        return sorted(self.waiting())

    def rejected_ids(self) -> list[int]:
        """The JobIDs of the rejected records."""
        return sorted(record.job_id for record in self.ledger.rejected.newest())


class SessionSite:
    """A spool, in which each command is a session of its own, as from the command line; the test sets the time.

    :param now: epoch seconds.
    :param settings: keys of the configuration.
    """

    def __init__(self, folder: Path, *runs: Run, now: float, **settings: Any) -> None:
        self.slurm: Any = MemorySlurm(*runs)
        self.dashboard = MemoryDashboard()
        self.now = now
        plain = {"api_url": "http://127.0.0.1:9", "api_key": "k", "cluster_name": "lab", "spool_dir": str(folder)}
        self.settings: dict[str, Any] = {**plain, **settings}

    @contextmanager
    def session(self) -> Iterator[tuple[Session, Spool]]:
        """One session and its spool."""
        config = parse_config(self.settings, {})
        with open_spool(config.spool_dir, complain=print, alone=True) as spool:
            session = Session(
                config,
                spool,
                slurm_of(self.slurm),
                lambda: self.dashboard,
                dry_run=False,
                clock=lambda: self.now,
                sleep=lambda seconds: None,
            )
            yield session, spool

    def flush(self, *entries: QueueEntry) -> None:
        """Queues jobs and runs a flush."""
        with self.session() as (session, spool):
            spool.queue.append(entries)
            session.flush()

    def reconcile(self, **options: Any) -> None:
        """Runs a reconcile of the last seven days."""
        with self.session() as (session, _):
            session.reconcile(window(7, None, None, self.now), **options)

    def sent(self) -> list[dict[str, Any]]:
        """The records delivered since the last call."""
        records = [json.loads(text) for batch in self.dashboard.batches for text in batch]
        self.dashboard.batches.clear()
        return records
