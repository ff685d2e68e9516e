"""Window → sacct → dashboard: replays a range of time, and counts what flush had missed."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import closing
from datetime import date
from typing import Callable, NamedTuple, Protocol

from agent.jobs.job import fold
from agent.jobs.record import Record, make_record
from agent.localtime import Range, local_day
from agent.slurm.sacct import Slurm
from agent.spool.delivered import NOT_KNOWN, Known
from agent.spool.ledger import Ledger
from agent.sync.delivery import Delivery
from agent.sync.earlier import EarlierRuns
from agent.sync.flush import Settings
from agent.sync.slices import cover
from agent.sync.walk import History, Step, Walk

#: A job that ended less than so long ago may still be on its way by flush: it is not missed.
FRESH_SECONDS = 600

logger = logging.getLogger(__name__)


class Interlude(Protocol):
    """What else has to be done from time to time while a long reconcile goes on."""

    def is_due(self) -> bool:
        """Whether it is time."""

    def run(self) -> None:
        """Does it."""


class Progress(NamedTuple):
    """How far a reconcile has come."""

    wanted: Range
    done_to: int  # epoch seconds
    jobs: int

    @property
    def share(self) -> float:
        """The part of the range that is done, from 0 to 1."""
        return (self.done_to - self.wanted.start + 1) / (self.wanted.end - self.wanted.start + 1)


class Tally:
    """What a reconcile has seen."""

    def __init__(self) -> None:
        self.rows = 0
        self.jobs = 0
        self.missed = 0
        self.missed_end = 0  # when the newest of those that had run ended, in epoch seconds
        self.jobs_by_day: Counter[date] = Counter()
        self.hooked_by_day: Counter[date] = Counter()


class Reconcile:
    """One run of reconcile.

    :param only_missing: leaves out what was delivered before and has not changed.
    :param interlude: done between two slices where it is due.
    :param on_progress: told after each slice how far it has come.
    :param clock: epoch seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        slurm: Slurm,
        delivery: Delivery,
        settings: Settings,
        *,
        only_missing: bool = False,
        interlude: Interlude | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tally = Tally()
        self._ledger = ledger
        self._delivery = delivery
        self._settings = settings
        self._only_missing = only_missing
        self._interlude = interlude
        self._on_progress = on_progress
        self._fresh_since = clock() - FRESH_SECONDS
        self._rejected = ledger.rejected.digests(settings.cluster)
        self._walk = Walk(slurm, EarlierRuns(ledger, slurm), clock)
        self._pausing = False  # sacct is not to work ahead: the interlude is next

    def run(self, wanted: Range) -> None:
        """Replays the range.

        :raises ExporterError: where Slurm or the dashboard is out of reach; what was delivered till then stands.
        """
        with closing(self._walk.over(cover(wanted), ahead=self._may_go_ahead)) as steps:
            for step in steps:
                self._take(step)
                self._on_progress(Progress(wanted, self._walk.done_to(step), self.tally.jobs))
                if self._pausing and self._interlude:
                    self._interlude.run()
                    self._delivery.forget_witness()
                    self._pausing = False
        self._on_progress(Progress(wanted, wanted.end, self.tally.jobs))
        if not self.tally.jobs:
            logger.info("No jobs found in specified date range")

    def _may_go_ahead(self) -> bool:
        self._pausing = self._interlude is not None and self._interlude.is_due()
        return not self._pausing

    def _take(self, step: Step) -> None:
        """Sends what has to be sent of a slice."""
        level = logging.INFO if step.rows else logging.DEBUG
        logger.log(level, "Extracted %d raw job records", step.rows)
        self.tally.rows += step.rows
        jobs_before, completed = self.tally.jobs, 0
        for histories in step.jobs:
            completed += len(histories)
            self._deliver(histories)
        logger.log(level, "Filtered to %d completed job records", completed)
        formatted = self.tally.jobs - jobs_before
        if formatted:
            logger.info("Formatted %d jobs for submission", formatted)
        self._delivery.flush()

    def _deliver(self, histories: list[History]) -> None:
        """Hands on what has to be sent, and counts what flush had brought."""
        jobs = [fold(runs, requeued_runs=self._settings.requeued_runs) for runs in histories]
        if self._settings.skip_never_started:
            jobs = [job for job in jobs if job.ever_started]
        records = [make_record(job, self._settings.cluster) for job in jobs]
        known = self._ledger.delivered.known(self._settings.cluster, records)
        waiting = self._ledger.waiting.among([record.raw_id for record in records])
        for record in records:
            if self._book(record, known.get(record.key, NOT_KNOWN), is_waiting=record.raw_id in waiting):
                self._delivery.add(record)

    def _book(self, record: Record, known: Known, *, is_waiting: bool) -> bool:
        """Counts a job, and says whether it has to be sent."""
        rejected = self._rejected.get(record.key)
        self.tally.jobs += 1
        if record.end < self._fresh_since:
            day = local_day(record.end)
            self.tally.jobs_by_day[day] += 1
            self.tally.hooked_by_day[day] += known.hooked or is_waiting
            if not (known.digest or is_waiting or rejected):
                self._book_missed(record)
        if known.superseded or (rejected and rejected == record.digest):
            return False
        return not (self._only_missing and known.digest == record.digest)

    def _book_missed(self, record: Record) -> None:
        """EpilogSlurmctld is not called for a job that never started: its absence says nothing about the hook."""
        self.tally.missed += 1
        if record.cpu_seconds:
            self.tally.missed_end = max(self.tally.missed_end, record.end)
