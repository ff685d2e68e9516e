"""Queue → sacct → dashboard: delivers what the hook has caught since the last time.

Where a few jobs wait they are asked for by ID. Where many wait that ended close together, as after an outage or on a
busy cluster, a walk over that time brings thousands with each call, and only the rest is asked for by ID.
"""

from __future__ import annotations

import logging
import time
from typing import Callable, Iterable, Iterator, List, Tuple

from agent.jobs.finality import HALF_WRITTEN_SECONDS, is_half_written
from agent.jobs.job import LOOKBACK_SECONDS, Runs
from agent.jobs.retry import attempts_within, record_delay
from agent.jobs.rows import Rows
from agent.jobs.run import CONTINUED_STATES, ENDED_STATES, REVOKED, Run
from agent.jobs.verdict import Fate, Verdict, judge_doubtful, judge_entry
from agent.localtime import Range
from agent.slurm.sacct import IDS_PER_CALL, Query, Sacct
from agent.slurm.table import Table
from agent.spool.facts import GIVEN_UP
from agent.spool.ledger import Ledger
from agent.spool.waiting import HALF_WRITTEN, NO_RECORD, Waiting
from agent.sync import backlog
from agent.sync.delivery import Delivery
from agent.sync.due import LINGER_SECONDS, check_pause
from agent.sync.earlier import EarlierRuns
from agent.sync.prepare import Preparer, Settings
from agent.sync.walk import AskSlurmctld, Slice, Walk

#: Records that are about to come are waited for this long altogether within one run.
LONGEST_LINGER_SECONDS = 15.0
#: However quickly something is due again, a run pauses this long before it looks.
SHORTEST_LINGER_SECONDS = 0.1
#: An entry without the job's Submit was queued at most this long after the job's end.
LATE_ENTRY_SECONDS = 86_400
#: A task that was asked for in vain this often, which takes two minutes, is asked for by its raw ID, too.
LAST_RESORT_ATTEMPTS = 8

#: Jobs that wait, each with what sacct's rows say about it.
Judged = List[Tuple[Waiting, Verdict]]

logger = logging.getLogger(__name__)


class Flush:
    """One run of flush, for what :meth:`agent.spool.spool.Spool.take_over` has brought into the ledger.

    :param alive: asks slurmctld about jobs of which the accounting does not say whether they go on.
    :param clock: epoch seconds.
    :param sleep: waits some seconds for records that are about to come.
    """

    def __init__(
        self,
        ledger: Ledger,
        sacct: Sacct,
        delivery: Delivery,
        settings: Settings,
        *,
        alive: AskSlurmctld,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ledger = ledger
        self._sacct = sacct
        self._delivery = delivery
        self._alive = alive
        self._clock = clock
        self._sleep = sleep
        self._preparer = Preparer(ledger, settings, again=True)
        self._earlier = EarlierRuns(ledger, sacct)
        self._most_attempts = attempts_within(settings.retry_max_age_seconds)

    def run(self) -> None:
        """Delivers what can be delivered now.

        :raises ExporterError: where Slurm or the dashboard is out of reach; everything is kept.
        """
        check_pause(self._ledger.journal, self._clock())
        if self._ledger.waiting.count_due(self._clock()) > backlog.MANY_JOBS:
            self._walk()
        self._work_off()
        if self._delivery.delivered:
            with self._ledger.transaction():
                self._ledger.waiting.hasten_refused(self._clock())
        self._linger()

    def take(self, jobs: list[Runs]) -> None:
        """Serves those of some jobs met on a walk that wait, and that the accounting is up to date with."""
        waiting = self._ledger.waiting.due_among([runs[-1].raw_id for runs in jobs], self._clock())
        judged = self._judge(waiting, Rows(run for runs in jobs for run in runs))
        self._settle([(item, verdict) for item, verdict in judged if verdict.fate is not Fate.WAIT])

    def pass_over(self, part: Range, table: Table) -> None:
        """Whatever waits is looked at."""

    def finish(self, done: Slice) -> None:
        """Sends what a slice of a walk has brought."""
        self._delivery.flush()

    def may_go_ahead(self) -> bool:
        """Nothing else is delivered between two slices."""
        return True

    def _linger(self) -> None:
        """Waits for records that are about to come, and delivers them."""
        lingered = 0.0
        while True:
            now = self._clock()
            due = self._ledger.waiting.next_due(now)
            pause = max(due - now, SHORTEST_LINGER_SECONDS) if due is not None else None
            if pause is None or pause > LINGER_SECONDS or lingered + pause > LONGEST_LINGER_SECONDS:
                return
            self._sleep(pause)
            lingered += pause
            self._work_off()

    def _walk(self) -> None:
        """Delivers what can be found by the time it ended; leaves the rest as it is."""
        plan = backlog.Backlog(self._ledger, self._clock(), self._earlier.known_to)
        Walk(self._sacct, self._earlier, self._alive, self._clock).over(plan, self)

    def _work_off(self) -> None:
        """Asks for all that is due, batch by batch: sacct looks for the next while this one is formatted and sent."""
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
        """Asks for some jobs as far back as their earlier runs may lie.

        A start in the future, by a clock that was set back or a line that is wrong, would fail the whole call.
        """
        if not batch:
            return None
        now = self._clock()
        names = [name for item in batch for name in _names(item, now)]
        return self._sacct.ask_ids(names, max(min(int(now) - LOOKBACK_SECONDS, *map(_looked_back_to, batch)), 0))

    def _with_earlier(self, batch: list[Waiting], answer: Iterable[Run]) -> Iterator[Run]:
        """What sacct answers, behind what is remembered: earlier runs may have been archived since."""
        remembered = self._earlier.of([item.entry.job_id for item in batch])
        for runs in remembered.values():
            yield from runs
        yield from answer

    def _judge(self, batch: list[Waiting], rows: Rows) -> Judged:
        """What becomes of each job of a batch; slurmctld is asked about those that the accounting leaves in doubt."""
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
        """Books what sacct's answer means for each job of a batch, and hands on those that are final."""
        final = [(item, verdict) for item, verdict in judged if verdict.fate is Fate.SEND]
        gone = [item for item, verdict in judged if verdict.fate is Fate.DISMISS]
        postponed = [self._postponed(item, verdict) for item, verdict in judged if verdict.fate is Fate.WAIT]
        given_up = [item for item in postponed if item.attempts >= self._most_attempts]
        self._earlier.keep(run for _, verdict in judged for run in verdict.runs)
        with self._ledger.transaction():
            self._ledger.waiting.postpone(item for item in postponed if item.attempts < self._most_attempts)
            self._ledger.waiting.forget(item.key for item in [*gone, *given_up])
            self._ledger.journal.raise_fact(GIVEN_UP, len(given_up))
        for item in given_up:
            logger.warning("job %s is given up to reconcile: %s", item.entry.asked, item.reason)
        self._deliver(final)

    def _postponed(self, item: Waiting, verdict: Verdict) -> Waiting:
        """A job that is asked for again later. What counts is how often it was asked for in vain.

        So an outage, or a step of the clock, gives up no job.
        """
        attempts = item.attempts + 1
        now = self._clock()
        is_half = bool(verdict.runs) and is_half_written(verdict.runs[-1], now)
        return item._replace(
            attempts=attempts,
            due_at=now + record_delay(attempts),
            reason=verdict.reason,
            state=HALF_WRITTEN if is_half else NO_RECORD,
        )

    def _deliver(self, final: Judged) -> None:
        """Hands on the records of final jobs; those that are held back have been dealt with."""
        prepared = self._preparer.prepare([verdict.runs for _, verdict in final])
        for (item, verdict), job in zip(final, prepared):
            _warn_of_new_state(item, verdict.runs[-1])
            if job.hold is None:
                self._delivery.add(job.record, item.key)
        with self._ledger.transaction():
            self._ledger.waiting.forget(item.key for (item, _), job in zip(final, prepared) if job.hold is not None)


def _looked_back_to(item: Waiting) -> int:
    """How far back the runs of a job may lie, in epoch seconds; what ended before is an earlier owner's of its ID."""
    submit = item.entry.submit if item.entry.submit is not None else int(item.queued_at) - LATE_ENTRY_SECONDS
    return submit - LOOKBACK_SECONDS


def _rows_of(item: Waiting, rows: Rows) -> list[Run]:
    """The rows of a job, though others of the same call were looked for further back."""
    since = _looked_back_to(item)
    return [run for run in rows.of(item.entry) if run.end is None or run.end >= since]


def _names(item: Waiting, now: float) -> Iterator[str]:
    """How sacct is asked for a job. A task that it does not find may be written without its array, and stay so where
    slurmctld was killed: then the raw ID is the last resort, as it brings the whole array, too."""
    yield item.entry.asked
    is_old = item.attempts and now - (item.entry.end or int(item.queued_at)) >= HALF_WRITTEN_SECONDS
    if item.entry.array_task is not None and (is_old or item.attempts >= LAST_RESORT_ATTEMPTS):
        yield str(item.entry.job_id)


def _warn_of_new_state(item: Waiting, newest: Run) -> None:
    if newest.state not in _KNOWN_STATES:
        logger.warning("job %s is sent in a state new to us: %r", item.entry.asked, newest.state)


_KNOWN_STATES = ENDED_STATES | CONTINUED_STATES | {REVOKED}
