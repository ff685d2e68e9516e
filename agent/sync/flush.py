"""Queue → sacct → dashboard: delivers what the hook has caught since the last time.

Where a few jobs wait they are asked for by ID. Where many wait that ended close together, as after an outage or on a
busy cluster, a walk over that time brings thousands with each call, and only the rest is asked for by ID.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from typing import Callable, Iterator, List, NamedTuple, Tuple

from agent.errors import DashboardUnreachable
from agent.jobs.job import HALF_WRITTEN_SECONDS, fold
from agent.jobs.record import make_record
from agent.jobs.rows import Rows
from agent.jobs.run import ENDED_STATES, Run
from agent.jobs.verdict import LONGEST_WAIT_SECONDS, Fate, Verdict, attempts_within, judge_entry, record_delay
from agent.slurm.sacct import IDS_PER_CALL, LOOKBACK_SECONDS, Query, Slurm
from agent.spool.delivered import NOT_KNOWN
from agent.spool.facts import GIVEN_UP, PAUSE
from agent.spool.journal import Journal
from agent.spool.ledger import Ledger
from agent.spool.waiting import Waiting
from agent.sync import backlog
from agent.sync.delivery import Delivery
from agent.sync.earlier import EarlierRuns
from agent.sync.walk import History, Walk

#: A record that is due within so long is waited for, within one run so long altogether: slurmctld calls the hook
#: before it sends the record to slurmdbd, which takes a second or two.
LINGER_SECONDS = 4.0
LONGEST_LINGER_SECONDS = 15.0
#: However quickly something gets due again, a run pauses so long before it looks.
SHORTEST_LINGER_SECONDS = 0.1

#: No Retry-After holds longer than this: the clock may have been set back since.
LONGEST_PAUSE_SECONDS = 6 * 3600.0

#: Jobs that wait, each with what sacct's rows say about it.
Judged = List[Tuple[Waiting, Verdict]]

logger = logging.getLogger(__name__)


class Settings(NamedTuple):
    """What of the configuration concerns flush and reconcile alike."""

    cluster: str
    requeued_runs: str
    skip_never_started: bool
    retry_max_age_seconds: float


class Flush:
    """One run of flush, for what :meth:`agent.spool.spool.Spool.take_over` has brought into the ledger.

    :param clock: epoch seconds.
    :param sleep: waits some seconds for records that are about to come.
    """

    def __init__(
        self,
        ledger: Ledger,
        slurm: Slurm,
        delivery: Delivery,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ledger = ledger
        self._slurm = slurm
        self._delivery = delivery
        self._settings = settings
        self._clock = clock
        self._sleep = sleep

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
        earlier = EarlierRuns(self._ledger, self._slurm)
        plan = backlog.Backlog(self._ledger, self._clock(), earlier.known_to)
        with closing(Walk(self._slurm, earlier, self._clock).over(plan)) as steps:
            for step in steps:
                for histories in step.jobs:
                    self._serve(histories)
                self._delivery.flush()

    def _serve(self, histories: list[History]) -> None:
        """Hands on those of some finished jobs that wait, and that the accounting is up to date with."""
        waiting = self._ledger.waiting.due_among([runs[-1].raw_id for runs in histories], self._clock())
        judged = self._judge(waiting, Rows(run for runs in histories for run in runs))
        self._sort_out([(item, verdict) for item, verdict in judged if verdict.fate is not Fate.WAIT])

    def _work_off(self) -> None:
        """Asks for all that is due, batch by batch: sacct looks for the next while this one is formatted and sent."""
        now = self._clock()
        batch = self._ledger.waiting.due(now, after=(0, 0), limit=IDS_PER_CALL)
        query = self._ask(batch)
        try:
            while query:
                rows = Rows(query.answer())
                following = self._ledger.waiting.due(now, after=batch[-1].key, limit=IDS_PER_CALL)
                query = self._ask(following)
                self._sort_out(self._judge(batch, rows))
                batch = following
        finally:
            if query:
                query.cancel()
        self._delivery.flush()

    def _ask(self, batch: list[Waiting]) -> Query | None:
        """Asks from a year before the oldest Submit on, for the sake of earlier runs.

        A start in the future, by a clock that was set back or a line that is wrong, would fail the whole call.
        """
        if not batch:
            return None
        now = self._clock()
        submitted = min(item.entry.submit or int(item.queued_at) for item in batch)
        names = [name for item in batch for name in _names(item, now)]
        return self._slurm.ask_ids(names, max(min(int(now), submitted) - LOOKBACK_SECONDS, 0))

    def _judge(self, batch: list[Waiting], rows: Rows) -> Judged:
        now = self._clock()
        judged = [(item, judge_entry(item.entry, rows.of(item.entry), now)) for item in batch]
        for item, verdict in judged:
            logger.debug("job %s: %s (%s)", item.entry.asked, verdict.fate.value, verdict.reason)
        return judged

    def _sort_out(self, judged: Judged) -> None:
        """Books what sacct's answer means for each job of a batch, and hands on those that are final."""
        cluster = self._settings.cluster
        final: Judged = []
        later: list[Waiting] = []
        gone: list[Waiting] = []
        earlier: list[Run] = []
        for item, verdict in judged:
            if verdict.fate is Fate.WAIT:
                later.append(self._postponed(item, verdict.reason, verdict.not_before))
            elif verdict.fate is Fate.LET_GO or self._is_skipped(verdict):
                gone.append(item)
            else:
                if verdict.runs[-1].state not in ENDED_STATES:
                    logger.warning("job %s is sent in a state new to us: %r", item.entry.asked, verdict.runs[-1].state)
                final.append((item, verdict))
                earlier += verdict.runs[:-1]
        given_up = self._given_up(later)
        with self._ledger.transaction():
            self._ledger.earlier_runs.add(earlier)
            self._ledger.waiting.postpone(later)
            self._ledger.waiting.forget(item.key for item in [*gone, *given_up])
            self._ledger.journal.raise_fact(GIVEN_UP, len(given_up))
        records = [
            (item, make_record(fold(list(verdict.runs), requeued_runs=self._settings.requeued_runs), cluster))
            for item, verdict in final
        ]
        known = self._ledger.delivered.known(cluster, [record for _, record in records])
        for item, record in records:
            if known.get(record.key, NOT_KNOWN).superseded:  # what came after it is on the dashboard, and stays there
                with self._ledger.transaction():
                    self._ledger.waiting.forget([item.key])
            else:
                self._delivery.add(record, item.key)

    def _is_skipped(self, verdict: Verdict) -> bool:
        return self._settings.skip_never_started and all(run.never_started for run in verdict.runs)

    def _postponed(self, item: Waiting, reason: str, not_before: float = 0.0) -> Waiting:
        attempts = item.attempts + 1
        now = self._clock()
        due_at = max(now + record_delay(attempts), min(not_before, now + LONGEST_WAIT_SECONDS))
        return item._replace(attempts=attempts, due_at=due_at, reason=reason)

    def _given_up(self, later: list[Waiting]) -> list[Waiting]:
        """Those that were asked for in vain for too long: an outage, or a step of the clock, does not count.

        Reconcile brings them, if Slurm's accounting ever knows them.
        """
        most = attempts_within(self._settings.retry_max_age_seconds)
        given_up = [item for item in later if item.attempts >= most]
        for item in given_up:
            logger.warning("job %s is given up to reconcile: %s", item.entry.asked, item.reason)
        return given_up


def _names(item: Waiting, now: float) -> Iterator[str]:
    """How sacct is asked for a job. A task that it does not find may be written without its array, and stay so where
    slurmctld was killed: then the raw ID is the last resort, as it brings the whole array, too."""
    yield item.entry.asked
    ended = item.entry.end or int(item.queued_at)
    if item.entry.array_task is not None and item.attempts and now - ended >= HALF_WRITTEN_SECONDS:
        yield str(item.entry.job_id)


def has_work(ledger: Ledger, now: float) -> bool:
    """Whether anything is due, or about to be."""
    due = ledger.waiting.next_due(now)
    return due is not None and due <= now + LINGER_SECONDS


def check_pause(journal: Journal, now: float) -> None:
    """Obeys a Retry-After that outlasted the run which received it.

    :raises DashboardUnreachable: while the dashboard wants to be left alone.
    """
    rest = journal.fact(PAUSE) - now
    if 0 < rest <= LONGEST_PAUSE_SECONDS:
        raise DashboardUnreachable(
            f"the dashboard asked to be left alone for another {rest:.0f} s", hint="everything is kept"
        )
