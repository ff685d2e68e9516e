"""Window → sacct → dashboard: replays a range of time, and counts what flush had missed.

The range is walked in slices of time, oldest first, each as long as the one before suggests for some thousand rows.
A job is handled in the slice in which its newest run has ended, together with its earlier runs, which are remembered.
Only where that leaves a doubt is it asked for by ID: some jobs at a time, as each call takes longer than they do.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import date
from typing import Callable, NamedTuple, Protocol

from agent.delivery import Delivery
from agent.earlier import EarlierRuns
from agent.flush import FEW_IDS, LOOKBACK_SECONDS, Rows, Settings
from agent.jobs import Job, Record, fold, has_all_runs, is_final, is_settled, make_record, runs_with
from agent.ledger import NOT_KNOWN, Known, Ledger
from agent.localtime import local_day
from agent.records import REQUEUEABLE_STATES, Run
from agent.sacct import Answer, Query, Slurm
from agent.slices import Range, first_slice, next_slice

#: A job that ended less than so long ago may still be on its way by flush: it is not missed.
FRESH_SECONDS = 600
#: So many records at a time are looked up in the ledger, and held in memory before they are sent.
BOOKED_AT_ONCE = 1000
#: A doubt is not left standing longer than so many slices: an interrupted run would have to go on from there.
MOST_SLICES_IN_DOUBT = 16

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
        self._earlier = EarlierRuns(ledger, slurm)
        self._doubtful: list[list[Run]] = []  # what is known of jobs that have to be asked for
        self._slices_in_doubt = 0
        self._newest_end = 0  # of the rows seen, in epoch seconds

    def run(self, wanted: Range) -> None:
        """Replays the range.

        :raises ExporterError: where Slurm or the dashboard is out of reach; what was delivered till then stands.
        """
        self._earlier.learn(wanted)
        part: Range | None = first_slice(wanted)
        query = self._slurm.ask_window(*part) if part else None
        try:
            while part and query:
                answer, query = self._answer(query, part), None
                jobs: list[Job] = []
                self._slices_in_doubt += bool(self._doubtful)
                while len(self._doubtful) >= FEW_IDS or self._slices_in_doubt >= MOST_SLICES_IN_DOUBT:
                    jobs += self._ask_doubtful()
                following = next_slice(part, answer.rows, wanted.end)
                pausing = self._interlude is not None and self._interlude.is_due()
                # sacct works on the next slice while this one is sent. Not so where something else is delivered in
                # between: what is sent must never be older than that.
                query = self._slurm.ask_window(*following) if following and not pausing else None
                jobs += self._resolve(answer)
                del answer  # its text is as large as what is made of it
                self._deliver(jobs)
                self._on_progress(Progress(wanted, self._done_to(part), self.tally.jobs))
                if following and pausing and self._interlude:
                    self._interlude.run()
                    self._delivery.forget_witness()
                    query = self._slurm.ask_window(*following)
                part = following
        finally:
            if query:
                query.cancel()
        while self._doubtful:
            self._deliver(self._ask_doubtful())
        self._on_progress(Progress(wanted, wanted.end, self.tally.jobs))
        if not self.tally.jobs:
            logger.info("No jobs found in specified date range")
        # The clock may be wrong, and sacct may show nothing for lack of rights: only up to what was seen is all known.
        self._earlier.note_done(wanted._replace(end=min(wanted.end, self._newest_end)))

    def _answer(self, query: Query, part: Range) -> Answer:
        """Nothing is believed when it is said twice: sacct says it, too, where slurmdbd's database fails it midway."""
        answer = query.answer()
        return answer if answer.rows else self._slurm.ask_window(*part).answer()

    def _resolve(self, answer: Answer) -> list[Job]:
        """The jobs that ended for good in a slice, with all their runs, oldest first."""
        self.tally.rows += answer.rows
        level = logging.INFO if answer.rows else logging.DEBUG
        logger.log(level, "Extracted %d raw job records", answer.rows)
        runs_of: dict[int, list[Run]] = {}
        for run in answer:
            runs_of.setdefault(run.raw_id, []).append(run)
            self._newest_end = max(self._newest_end, run.end or 0)
        earlier = self._earlier.of(list(runs_of))
        self._earlier.keep(run for runs in runs_of.values() for run in runs)
        jobs: list[Job] = []
        for raw_id, runs in runs_of.items():
            last = max(runs, key=lambda run: run.submit)
            history = runs_with(last, [*earlier.get(raw_id, ()), *runs]) if raw_id in earlier or len(runs) > 1 else runs
            # A newer run that has ended since, or in a later slice, brings the job when its turn comes.
            newest = history[-1]
            if not is_final(newest) or newest.submit > last.submit:
                continue
            if newest.state in REQUEUEABLE_STATES or not has_all_runs(history):
                self._doubtful.append(history)
            else:
                jobs += self._settled(history)
        logger.log(level, "Filtered to %d completed job records", len(jobs))
        return sorted(jobs, key=lambda job: (job.run.end or 0, job.run.raw_id))

    def _settled(self, runs: list[Run]) -> list[Job]:
        """The job of some runs; none where that may change yet, and is left to flush, or to the next reconcile."""
        if not is_final(runs[-1]) or not is_settled(runs[-1], self._clock()):
            return []
        return [fold(runs, requeued_runs=self._settings.requeued_runs)]

    def _ask_doubtful(self) -> list[Job]:
        """Asks for some of the jobs that may have gone on, or of which an earlier run is missing."""
        asked, self._doubtful = self._doubtful[:FEW_IDS], self._doubtful[FEW_IDS:]
        self._slices_in_doubt = 0
        since = min(runs[0].submit for runs in asked) - LOOKBACK_SECONDS
        rows = Rows(self._slurm.ask_ids([str(runs[-1].raw_id) for runs in asked], max(since, 0)).answer())
        jobs: list[Job] = []
        for runs in asked:
            history = runs_with(runs[-1], [*runs[:-1], *rows.of_raw_id(runs[-1].raw_id)])
            if history[-1].submit == runs[-1].submit:
                jobs += self._settled(history)
        return jobs

    def _done_to(self, part: Range) -> int:
        """Up to when all is delivered, after a slice."""
        return min([part.end, *((runs[-1].end or 0) - 1 for runs in self._doubtful)])

    def _deliver(self, jobs: list[Job]) -> None:
        """Sends what has to be sent, and counts what flush had brought."""
        if self._settings.skip_never_started:
            jobs = [job for job in jobs if job.ever_started]
        if jobs:
            logger.info("Formatted %d jobs for submission", len(jobs))
        for start in range(0, len(jobs), BOOKED_AT_ONCE):
            records = [make_record(job, self._settings.cluster) for job in jobs[start : start + BOOKED_AT_ONCE]]
            known = self._ledger.known(self._settings.cluster, records)
            waiting = self._ledger.is_waiting([record.raw_id for record in records])
            for record in records:
                if self._book(record, known.get(record.key, NOT_KNOWN), is_waiting=record.raw_id in waiting):
                    self._delivery.add(record)
        self._delivery.flush()

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
