"""Window → sacct → dashboard: replays a range of time, and counts the jobs that the hook missed."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date
from typing import Callable

from agent.jobs.job import Runs
from agent.localtime import Range, local_day
from agent.logger import DEBUG, INFO, Logger
from agent.slurm.row import END, parse_row
from agent.slurm.table import Table
from agent.sync.lookback import Lookback
from agent.sync.pipeline import Pipeline
from agent.sync.prepare import EVERYTHING, Hold, Prepared, Preparer, Resend
from agent.sync.slices import cover
from agent.sync.walk import Walk

#: A job that ended less than this long ago does not count as missed: flush may still deliver it.
FRESH_SECONDS = 600
#: During a reconcile, newly queued jobs are delivered this often.
INTERLUDE_SECONDS = 60.0

#: Called with the time up to which the range is done (epoch seconds), and the number of jobs so far.
OnProgress = Callable[[int, int], None]

logger = Logger(__name__)


class Tally:
    """Counts what a reconcile sees."""

    def __init__(self) -> None:
        self.jobs = 0
        self.unchanged = 0  # of these, not sent again because the dashboard has the same record
        self.missed = 0
        self.missed_end = 0  # the newest End of those that had started, in epoch seconds
        self.jobs_by_day: Counter[date] = Counter()
        self.hooked_by_day: Counter[date] = Counter()

    def count_prepared(self, job: Prepared, *, is_waiting: bool, hook_expected: bool) -> None:
        """Counts a job that was looked up, and whether the hook missed it.

        EpilogSlurmctld is not called for a job that never started, so ``missed_end`` ignores such jobs.
        """
        record, known = job.record, job.known
        unchanged, hooked = job.hold is Hold.UNCHANGED, known.hooked or is_waiting
        self.count(record.end, hooked=hooked, hook_expected=hook_expected, unchanged=unchanged)
        if hook_expected and not (known.digest or known.superseded or is_waiting or job.rejected):
            self.missed += 1
            if record.cpu_seconds:
                self.missed_end = max(self.missed_end, record.end)

    def count(self, end: int, *, hooked: bool, hook_expected: bool, unchanged: bool) -> None:
        """Counts a job.

        :param hooked: whether the hook had queued it.
        :param hook_expected: whether the hook of this host should have queued it by now.
        :param unchanged: whether it is not sent again because the dashboard has the same record.
        """
        self.jobs += 1
        self.unchanged += unchanged
        if hook_expected:
            day = local_day(end)
            self.jobs_by_day[day] += 1
            self.hooked_by_day[day] += hooked


class Reconcile:
    """One run of reconcile.

    :param resend: which jobs are sent again although they are unchanged since their delivery.
    :param hook_due: since when the hook should have queued every job, in epoch seconds.
    :param others_calls: whether the hook of another host was called for jobs with a given End.
    :param choose: whether a job that may be sent is to be sent; None for all.
    :param interlude: other work, done between two slices every :data:`INTERLUDE_SECONDS`.
    :param stopwatch: monotonic seconds.
    :param on_progress: called after each slice.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        resend: Resend = EVERYTHING,
        hook_due: float = 0.0,
        others_calls: Callable[[int], bool] = lambda end: False,
        choose: Callable[[Prepared], bool] | None = None,
        interlude: Callable[[], None] | None = None,
        on_progress: OnProgress = lambda done_to, jobs: None,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        ledger, settings = pipeline.ledger, pipeline.settings
        self.tally = Tally()
        self.done_to = 0  # epoch seconds: the range is replayed up to then
        self._ledger = ledger
        self._delivery = pipeline.delivery
        self._cluster = settings.cluster
        self._resend_after = resend.after
        self._preparer = Preparer(ledger, settings, resend=resend)
        self._others_calls = others_calls
        self._hook_due = hook_due
        self._choose = choose
        # Otherwise it matters when a job was delivered.
        self._recognizes = choose is None and resend.sent_in.end < resend.sent_in.start
        self._interlude = interlude
        self._stopwatch = stopwatch
        self._last_interlude = stopwatch()
        self._on_progress = on_progress
        self._fresh_since = pipeline.clock() - FRESH_SECONDS
        self._walk = Walk(pipeline, Lookback(ledger, pipeline.sacct), find_lost=True)
        self._pausing = False  # the interlude is next: sacct must not start on the next slice
        self._completed = 0  # final jobs of the current slice
        self._formatted = 0

    def run(self, wanted: Range) -> None:
        """Replays the range.

        :raises ExporterError: if Slurm or the dashboard is unreachable; what was delivered before is acknowledged.
        """
        self.done_to = wanted.start - 1
        self._walk.over(cover(wanted), self)
        self._reach(wanted.end)
        if not self.tally.jobs:
            logger.info("No jobs found in specified date range")

    def take(self, jobs: list[Runs]) -> None:
        """Passes on the records to send of some final jobs, and counts the jobs that flush had delivered."""
        self._completed += len(jobs)
        jobs.sort(key=lambda runs: (runs[-1].submit, runs[-1].end))  # a task may have run under several raw IDs
        prepared = [job for job in self._preparer.prepare(jobs) if job.hold is not Hold.NEVER_STARTED]
        waiting = self._ledger.waiting.among([job.record.raw_id for job in prepared])
        self._formatted += len(prepared)
        for job in prepared:
            is_waiting = job.record.raw_id in waiting
            hook_expected = self._is_hook_expected(job.record.end, was_queued=job.known.hooked or is_waiting)
            self.tally.count_prepared(job, is_waiting=is_waiting, hook_expected=hook_expected)
            if job.hold is None and (self._choose is None or self._choose(job)):
                self._delivery.add(job.record, is_booked=job.is_booked)

    def pass_over(self, part: Range, table: Table) -> None:
        """Skips and counts the rows whose records the dashboard has.

        Rows that are due again are sent without a look-up. They precede the other jobs of the slice, so that a run that
        supersedes one of them is sent after it.
        """
        if part.end > self._resend_after and not self._recognizes:
            return
        known = self._ledger.delivered.rows(self._cluster, part)
        for values, hooked in table.leave_out(known) if known else ():
            end = int(values[END])
            is_due = end > self._resend_after
            self._completed += 1
            self._formatted += is_due
            hook_expected = self._is_hook_expected(end, was_queued=bool(hooked))
            self.tally.count(end, hooked=bool(hooked), hook_expected=hook_expected, unchanged=not is_due)
            if is_due:
                self._delivery.add(self._preparer.remake(parse_row(values)), is_booked=True)

    def _is_hook_expected(self, end: int, *, was_queued: bool) -> bool:
        """Whether this host's hook has queued a job with this End, or should have by now.

        :param was_queued: whether it has.
        """
        return self._hook_due <= end < self._fresh_since and (was_queued or not self._others_calls(end))

    def finish(self, rows: int, done_to: int) -> None:
        """Sends the records of a slice, then runs the interlude if it is due."""
        level = INFO if rows else DEBUG
        logger.log(level, "Extracted %d raw job records", rows)
        logger.log(level, "Filtered to %d completed job records", self._completed)
        if self._formatted:
            logger.info("Formatted %d jobs for submission", self._formatted)
        self._completed = self._formatted = 0
        self._delivery.flush()
        self._reach(done_to)
        if self._pausing and self._interlude:
            self._interlude()
            self._delivery.forget_known_good()
            self._last_interlude = self._stopwatch()
            self._pausing = False

    def _reach(self, end: int) -> None:
        self.done_to = end
        self._on_progress(end, self.tally.jobs)

    def may_go_ahead(self) -> bool:
        """Not before an interlude: its deliveries must not be overwritten by older answers of sacct."""
        is_due = self._stopwatch() - self._last_interlude >= INTERLUDE_SECONDS
        self._pausing = self._interlude is not None and is_due
        return not self._pausing
