"""Window → sacct → dashboard: replays a range of time, and counts what flush had missed.

The range is walked in slices of time, oldest first, each as long as the one before suggests for some thousand rows.
A job is handled in the slice in which its newest run has ended. Jobs that are known to have earlier runs, wherever
those ended, are asked for by ID, and so are those whose state allows that they run again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import date
from typing import Callable, Iterable, Iterator, NamedTuple, Protocol

from agent.delivery import Delivery
from agent.flush import IDS_PER_CALL, LOOKBACK_SECONDS, Rows, Settings
from agent.jobs import Job, Record, fold, is_final, is_settled, make_record, newest_run, own_runs
from agent.ledger import Ledger
from agent.localtime import local_day
from agent.records import CONTINUED_STATES, REQUEUEABLE_STATES, Run
from agent.sacct import GOES_ON_STATES, Slurm
from agent.slices import Range, first_slice, next_slice

#: A job that ended less than so long ago may still be on its way by flush: it is not missed.
FRESH_SECONDS = 600
#: Rows whose job goes on, or may have gone on, in a newer one.
GOES_ON = CONTINUED_STATES | REQUEUEABLE_STATES
#: How long before the range the earlier runs of requeued jobs are looked for.
REQUEUED_LOOKBACK_SECONDS = 90 * 86_400
REQUEUED_KNOWN_FROM = "requeued_known_from"
REQUEUED_KNOWN_TO = "requeued_known_to"

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
        self._slurm = slurm
        self._delivery = delivery
        self._settings = settings
        self._only_missing = only_missing
        self._interlude = interlude
        self._on_progress = on_progress
        self._clock = clock
        self._fresh_since = clock() - FRESH_SECONDS
        self._rejected = ledger.rejected_digests(settings.cluster)

    def run(self, wanted: Range) -> None:
        """Replays the range.

        :raises ExporterError: where Slurm or the dashboard is out of reach; what was delivered till then stands.
        """
        self._learn_requeued(wanted)
        part: Range | None = first_slice(wanted)
        query = self._slurm.ask_window(*part) if part else None
        try:
            while part and query:
                rows = list(query.answer())
                jobs = self._resolve(rows)
                following = next_slice(part, len(rows), wanted.end)
                pausing = self._interlude is not None and self._interlude.is_due()
                # sacct works on the next slice while this one is sent. Not so where something else is delivered in
                # between: what is sent must never be older than that.
                query = self._slurm.ask_window(*following) if following and not pausing else None
                self._deliver(jobs)
                self._on_progress(Progress(wanted, part.end, self.tally.jobs))
                if following and pausing and self._interlude:
                    self._interlude.run()
                    self._delivery.forget_witness()
                    query = self._slurm.ask_window(*following)
                part = following
        finally:
            if query:
                query.cancel()
        if not self.tally.jobs:
            logger.info("No jobs found in specified date range")
        self._remember_requeued(wanted)

    def _resolve(self, rows: list[Run]) -> list[Job]:
        """The jobs that ended for good in a slice, with all their runs, oldest first."""
        self.tally.rows += len(rows)
        level = logging.INFO if rows else logging.DEBUG
        logger.log(level, "Extracted %d raw job records", len(rows))
        runs_of: dict[int, list[Run]] = {}
        for run in rows:
            runs_of.setdefault(run.raw_id, []).append(run)
        self._ledger_requeued(rows)
        asked = self._with_other_rows(runs_of)
        found = self._ask(sorted(asked), runs_of)
        jobs = []
        for raw_id, runs in runs_of.items():
            history = found.get(raw_id, []) if raw_id in asked else runs
            newest = newest_run(history)
            # What is not settled yet is left to flush, or to the next reconcile.
            # A newer run that has ended since, or in a later slice, brings the job when its turn comes.
            if not newest or not is_settled(newest, self._clock()):
                continue
            if is_final(newest) and newest.submit == max(run.submit for run in runs):
                jobs.append(fold(own_runs(history), requeued_runs=self._settings.requeued_runs))
        logger.log(level, "Filtered to %d completed job records", len(jobs))
        return sorted(jobs, key=lambda job: (job.run.end or 0, job.run.raw_id))

    def _with_other_rows(self, runs_of: dict[int, list[Run]]) -> set[int]:
        """The raw IDs of which the slice may hold only a part of the rows."""
        several = {
            raw_id for raw_id, runs in runs_of.items() if len(runs) > 1 or runs[0].state in GOES_ON or runs[0].restarts
        }
        return several | self._ledger.is_requeued(list(runs_of))

    def _ask(self, raw_ids: list[int], runs_of: dict[int, list[Run]]) -> dict[int, list[Run]]:
        found: dict[int, list[Run]] = {}
        for start in range(0, len(raw_ids), IDS_PER_CALL):
            chunk = raw_ids[start : start + IDS_PER_CALL]
            since = max(min(run.submit for raw_id in chunk for run in runs_of[raw_id]) - LOOKBACK_SECONDS, 0)
            rows = Rows(self._slurm.ask_ids([str(raw_id) for raw_id in chunk], since).answer())
            found.update((raw_id, rows.of_raw_id(raw_id)) for raw_id in chunk)
        return found

    def _deliver(self, jobs: Iterable[Job]) -> None:
        """Sends what has to be sent, and counts what flush had brought."""
        skip = self._settings.skip_never_started
        records = [make_record(job, self._settings.cluster) for job in jobs if job.ever_started or not skip]
        if records:
            logger.info("Formatted %d jobs for submission", len(records))
        waiting = self._ledger.is_waiting([record.raw_id for record in records])
        for record in records:
            if self._book(record, is_waiting=record.raw_id in waiting):
                self._delivery.add(record)
        self._delivery.flush()

    def _book(self, record: Record, *, is_waiting: bool) -> bool:
        """Counts a job, and says whether it has to be sent."""
        known = self._ledger.know(self._settings.cluster, record)
        rejected = self._rejected.get(record.key)
        self.tally.jobs += 1
        if record.end < self._fresh_since:
            day = local_day(record.end)
            self.tally.jobs_by_day[day] += 1
            self.tally.hooked_by_day[day] += known.hooked or is_waiting
            if not (known.digest or is_waiting or rejected):
                self._book_missed(record)
        if known.superseded or rejected == record.digest:
            return False
        return not (self._only_missing and known.digest == record.digest)

    def _book_missed(self, record: Record) -> None:
        """EpilogSlurmctld is not called for a job that never started: its absence says nothing about the hook."""
        self.tally.missed += 1
        if record.cpu_seconds:
            self.tally.missed_end = max(self.tally.missed_end, record.end)

    def _learn_requeued(self, wanted: Range) -> None:
        """Finds the jobs that ended a run before the range and may end the next one in it."""
        known_from, known_to = self._requeued_known()
        earliest = wanted.start - REQUEUED_LOOKBACK_SECONDS
        since = int(known_to) if known_from <= earliest <= known_to else earliest
        for part in self._lookback(Range(max(since, 0), wanted.start - 1)):
            self._ledger_requeued(part)

    def _lookback(self, wanted: Range) -> Iterator[list[Run]]:
        part = first_slice(wanted)
        while part:
            rows = list(self._slurm.ask_window(*part, GOES_ON_STATES).answer())
            yield rows
            # Few rows have such a state, so that few long slices do.
            part = next_slice(part, len(rows), wanted.end, longest=REQUEUED_LOOKBACK_SECONDS)

    def _ledger_requeued(self, rows: Iterable[Run]) -> None:
        gone_on = {run.raw_id: run.end or 0 for run in rows if run.state in GOES_ON}
        with self._ledger.transaction():
            self._ledger.add_requeued(gone_on)

    def _remember_requeued(self, wanted: Range) -> None:
        """Writes down from when to when all requeued jobs are known, so that the next run need not look back."""
        known_from, known_to = self._requeued_known()
        if wanted.end <= known_to:
            return
        joined = known_from <= wanted.start - REQUEUED_LOOKBACK_SECONDS <= known_to
        with self._ledger.transaction():
            if not joined:
                self._ledger.set_fact(REQUEUED_KNOWN_FROM, wanted.start - REQUEUED_LOOKBACK_SECONDS)
            self._ledger.set_fact(REQUEUED_KNOWN_TO, wanted.end)

    def _requeued_known(self) -> tuple[float, float]:
        return self._ledger.fact(REQUEUED_KNOWN_FROM), self._ledger.fact(REQUEUED_KNOWN_TO)
