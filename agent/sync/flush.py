"""Queue → sacct → dashboard: delivers the jobs that the hook has queued since the last run.

sacct is asked for a few waiting jobs by ID. If many wait that ended close together, as after an outage or on a busy
cluster, a walk over that period returns thousands per call, and only the rest is asked for by ID.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import Callable, Iterable, Iterator, List, Tuple

from agent.jobs.finality import HALF_WRITTEN_SECONDS
from agent.jobs.job import LOOKBACK_SECONDS, Runs
from agent.jobs.queue_verdict import Fate, Verdict, judge_doubtful, judge_entry
from agent.jobs.rows_by_id import Rows
from agent.jobs.run import CONTINUED_STATES, ENDED_STATES, REVOKED, Run
from agent.localtime import Range
from agent.logger import Logger
from agent.slurm.sacct import Query
from agent.slurm.sacct_argv import IDS_PER_CALL
from agent.slurm.table import Table
from agent.spool.facts import GIVEN_UP
from agent.spool.waiting import Waiting, attempts_within
from agent.sync import backlog
from agent.sync.lookback import Lookback
from agent.sync.pipeline import Pipeline
from agent.sync.prepare import Preparer
from agent.sync.walk import Walk
from agent.sync.work_due import LINGER_SECONDS, check_pause

#: A run waits this long in total for records that are about to appear.
LONGEST_LINGER_SECONDS = 15.0
#: A run pauses at least this long before it asks again, however soon something is due.
SHORTEST_LINGER_SECONDS = 0.1
#: An entry without the job's Submit was queued at most this long after the job's end.
LATE_ENTRY_SECONDS = 86_400
#: After this many unsuccessful attempts, which take two minutes, a task is also asked for by its raw ID.
LAST_RESORT_ATTEMPTS = 8

#: Waiting jobs, each with the verdict on its rows.
Judged = List[Tuple[Waiting, Verdict]]

logger = Logger(__name__)


class Flush:
    """One run of flush, on the jobs that :meth:`agent.spool.spool.Spool.take_over` has moved into the ledger.

    :param sleep: waits some seconds for records that are about to appear.
    """

    def __init__(self, pipeline: Pipeline, *, sleep: Callable[[float], None] = time.sleep) -> None:
        ledger, sacct, self._delivery, settings, self._alive, self._clock = self._pipeline = pipeline
        self._ledger = ledger
        self._sacct = sacct
        self._sleep = sleep
        self._preparer = Preparer(ledger, settings, again=True)
        self._earlier = Lookback(ledger, sacct)
        self._most_attempts = attempts_within(settings.retry_max_age_seconds)

    def run(self) -> None:
        """Delivers what can be delivered now.

        :raises ExporterError: if Slurm or the dashboard is unreachable; all jobs stay queued.
        """
        check_pause(self._ledger.facts, self._clock())
        if self._ledger.waiting.count_due(self._clock()) > backlog.MANY_JOBS:
            self._walk()
        self._deliver_due()
        if self._delivery.delivered:
            with self._ledger.transaction():
                self._ledger.waiting.retry_refused(self._clock())
        self._linger()

    def take(self, jobs: list[Runs]) -> None:
        """Settles the jobs found on a walk that are queued and whose rows are complete."""
        waiting = self._ledger.waiting.due_among([runs[-1].raw_id for runs in jobs], self._clock())
        judged = self._judge(waiting, Rows(run for runs in jobs for run in runs))
        self._settle([(item, verdict) for item, verdict in judged if verdict.fate is not Fate.WAIT])

    def pass_over(self, part: Range, table: Table) -> None:
        """Skips nothing: every waiting job is looked at."""

    def finish(self, rows: int, done_to: int) -> None:
        """Sends the records of a slice."""
        self._delivery.flush()

    def may_go_ahead(self) -> bool:
        """Always, as nothing else is delivered between two slices."""
        return True

    def _linger(self) -> None:
        """Waits for records that are about to appear, and delivers them."""
        lingered = 0.0
        while True:
            now = self._clock()
            due = self._ledger.waiting.next_due(now)
            pause = max(due - now, SHORTEST_LINGER_SECONDS) if due is not None else None
            if pause is None or pause > LINGER_SECONDS or lingered + pause > LONGEST_LINGER_SECONDS:
                return
            self._sleep(pause)
            lingered += pause
            self._deliver_due()

    def _walk(self) -> None:
        """Delivers the jobs that a walk finds; the others stay queued."""
        plan = backlog.Backlog(self._ledger, self._clock(), self._earlier.known_to)
        Walk(self._pipeline, self._earlier).over(plan, self)

    def _deliver_due(self) -> None:
        """Asks for all due jobs, batch by batch; sacct fetches the next batch while this one is formatted and sent."""
        now = self._clock()
        batch = self._ledger.waiting.due(now, after=(0, 0), limit=IDS_PER_CALL)
        call = self._begin(batch)
        try:
            while call:
                answer, call = call.answer(), None
                following = self._ledger.waiting.due(now, after=batch[-1].key, limit=IDS_PER_CALL)
                call = self._begin(following)
                self._settle(self._judge(batch, Rows(self._with_earlier(batch, answer))))
                batch = following
        finally:
            if call:
                call.cancel()
        self._delivery.flush()

    def _begin(self, batch: list[Waiting]) -> Query | None:
        """Asks for a batch of jobs, as far back as their earlier runs may reach.

        A start in the future, after the clock was set back or because of a wrong line, would fail the whole call.
        """
        if not batch:
            return None
        now = self._clock()
        names = [name for item in batch for name in _names(item, now)]
        return self._sacct.ask_ids(names, max(min(int(now) - LOOKBACK_SECONDS, *map(_looked_back_to, batch)), 0))

    def _with_earlier(self, batch: list[Waiting], answer: Iterable[Run]) -> Iterator[Run]:
        """The remembered runs, then the answer of sacct: earlier runs may have been archived since."""
        remembered = self._earlier.of([item.entry.job_id for item in batch])
        return chain(*remembered.values(), answer)

    def _judge(self, batch: list[Waiting], rows: Rows) -> Judged:
        """The verdict on each job of a batch; slurmctld is asked about those that the accounting leaves in doubt."""
        now = self._clock()
        judged = [(item, judge_entry(item.entry, _rows_of(item, rows), now)) for item in batch]
        in_doubt = [verdict.runs[-1].raw_id for _, verdict in judged if verdict.fate is Fate.ASK_SLURMCTLD]
        if in_doubt:
            alive = self._alive(in_doubt)
            judged = [
                (item, judge_doubtful(verdict, now, alive) if verdict.fate is Fate.ASK_SLURMCTLD else verdict)
                for item, verdict in judged
            ]
        for item, verdict in judged:
            logger.debug("job %s: %s (%s)", item.entry.asked, verdict.fate.value, verdict.reason)
        return judged

    def _settle(self, judged: Judged) -> None:
        """Stores the verdict on each job of a batch, and passes on those that are final."""
        final = [(item, verdict) for item, verdict in judged if verdict.fate is Fate.SEND]
        dismissed = [item for item, verdict in judged if verdict.fate is Fate.DISMISS]
        now = self._clock()
        postponed = [
            item.postponed(verdict.reason, now, is_half=verdict.is_half)
            for item, verdict in judged
            if verdict.fate is Fate.WAIT
        ]
        # Attempts are counted, not time, so neither an outage nor a step of the clock ends them.
        given_up = [item for item in postponed if item.attempts >= self._most_attempts]
        self._earlier.keep(run for _, verdict in judged for run in verdict.runs)
        with self._ledger.transaction():
            self._ledger.waiting.postpone(item for item in postponed if item.attempts < self._most_attempts)
            self._ledger.waiting.forget(item.key for item in [*dismissed, *given_up])
            self._ledger.facts.add(GIVEN_UP, len(given_up))
        for item in given_up:
            logger.warning("job %s is no longer retried and is left to reconcile: %s", item.entry.asked, item.reason)
        self._deliver(final)

    def _deliver(self, final: Judged) -> None:
        """Passes on the records of final jobs; those held back are removed from the queue at once."""
        prepared = self._preparer.prepare([verdict.runs for _, verdict in final])
        for (item, verdict), job in zip(final, prepared):
            _warn_of_new_state(item, verdict.runs[-1])
            if job.hold is None:
                self._delivery.add(job.record, item.key)
        with self._ledger.transaction():
            self._ledger.waiting.forget(item.key for (item, _), job in zip(final, prepared) if job.hold is not None)


def _looked_back_to(item: Waiting) -> int:
    """How far back the runs of a job may reach, in epoch seconds; older rows belong to an earlier owner of its ID."""
    submit = item.entry.submit if item.entry.submit is not None else int(item.queued_at) - LATE_ENTRY_SECONDS
    return submit - LOOKBACK_SECONDS


def _rows_of(item: Waiting, rows: Rows) -> list[Run]:
    """The rows of a job, without older ones that the call returned for the sake of other jobs."""
    since = _looked_back_to(item)
    return [run for run in rows.of(item.entry) if run.end is None or run.end >= since]


def _names(item: Waiting, now: float) -> Iterator[str]:
    """The names under which sacct is asked for a job.

    slurmdbd may have stored a task without its array, permanently if slurmctld was killed. Such a task is found only by
    its raw ID. That is the last resort, as it may return the whole array.
    """
    yield item.entry.asked
    is_old = item.attempts and now - (item.entry.end or int(item.queued_at)) >= HALF_WRITTEN_SECONDS
    if item.entry.array_task is not None and (is_old or item.attempts >= LAST_RESORT_ATTEMPTS):
        yield str(item.entry.job_id)


def _warn_of_new_state(item: Waiting, newest: Run) -> None:
    if newest.state not in _KNOWN_STATES:
        logger.warning("job %s is sent with an unknown state: %r", item.entry.asked, newest.state)


_KNOWN_STATES = ENDED_STATES | CONTINUED_STATES | {REVOKED}
