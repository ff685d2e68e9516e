"""Queue → sacct → dashboard: delivers what the hook has caught since the last time."""

from __future__ import annotations

import logging
import time
from typing import Callable, Iterable, Iterator, NamedTuple

from agent import retry
from agent.delivery import Delivery
from agent.entries import QueueEntry
from agent.errors import DashboardUnreachable
from agent.facts import GIVEN_UP, PAUSE
from agent.jobs import HALF_WRITTEN_SECONDS, LINK_SECONDS, fold, make_record, own_runs
from agent.ledger import Ledger, Waiting
from agent.queue import Queue
from agent.records import ENDED_STATES, Run
from agent.sacct import Query, Slurm
from agent.verdict import Fate, Verdict, judge_entry

#: So many IDs MariaDB looks up one by one. For more of them than its eq_range_index_dive_limit, 200, it reads all rows
#: that have ended since the call's start: where that are five million, 5 s instead of 0.2 s.
FEW_IDS = 190
#: More jobs than this are worth a call that reads all rows of a day or so.
MANY_IDS = 3 * FEW_IDS
#: IDs in one call of sacct: its argument is bounded, and it compares each ID with all others.
IDS_PER_CALL = 5000
#: How far back the earlier runs of a requeued job are looked for. A recycled JobID is older in any but odd cases.
LOOKBACK_SECONDS = 365 * 86_400
#: How far back a call for many jobs looks: whatever may have begun before that is asked for again, a few at a time.
SHORT_LOOKBACK_SECONDS = 86_400
#: Jobs that ended longer ago are asked for a few at a time, however many they are: what has ended since is too much.
LONGEST_SCAN_SECONDS = 86_400
#: A record that is due within so long is waited for, within one run so long altogether: slurmctld calls the hook
#: before it sends the record to slurmdbd, which takes a second or two.
LINGER_SECONDS = 4.0
LONGEST_LINGER_SECONDS = 15.0
#: However quickly something gets due again, a run pauses so long before it looks.
SHORTEST_LINGER_SECONDS = 0.1

#: No Retry-After holds longer than this: the clock may have been set back since.
LONGEST_PAUSE_SECONDS = 6 * 3600.0

logger = logging.getLogger(__name__)


class Settings(NamedTuple):
    """What of the configuration concerns flush and reconcile alike."""

    cluster: str
    requeued_runs: str
    skip_never_started: bool
    retry_max_age_seconds: float


class Flush:
    """One run of flush, for what :func:`take_over` has brought into the ledger.

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
        check_pause(self._ledger, self._clock())
        self._work_off()
        if self._delivery.delivered:
            with self._ledger.transaction():
                self._ledger.hasten_refused(self._clock())
        self._linger()

    def _linger(self) -> None:
        """Waits for records that are about to come, and delivers them."""
        lingered = 0.0
        while True:
            now = self._clock()
            due = self._ledger.next_due(now)
            pause = max(due - now, SHORTEST_LINGER_SECONDS) if due is not None else None
            if pause is None or pause > LINGER_SECONDS or lingered + pause > LONGEST_LINGER_SECONDS:
                return
            self._sleep(pause)
            lingered += pause
            self._work_off()

    def _work_off(self) -> None:
        """Asks for all that is due, batch by batch: sacct looks for the next while this one is formatted and sent."""
        now = self._clock()
        batch = self._due(now, ())
        query = self._ask(batch)
        try:
            while query:
                rows = Rows(query.answer())
                self._complete(rows, batch)
                following = self._due(now, batch)
                query = self._ask(following)
                self._sort_out(batch, rows)
                batch = following
        finally:
            if query:
                query.cancel()
        self._delivery.flush()

    def _due(self, now: float, behind: list[Waiting] | tuple[()]) -> list[Waiting]:
        """What is asked for next: a few jobs, or where more wait, many."""
        batch = self._ledger.due(now, after=behind[-1].key if behind else (0, 0), limit=IDS_PER_CALL)
        many = len(batch) > MANY_IDS and _first_end(batch) > now - LONGEST_SCAN_SECONDS
        return batch if many else batch[:FEW_IDS]

    def _ask(self, batch: list[Waiting]) -> Query | None:
        now = self._clock()
        names = [name for item in batch for name in _names(item, now)]
        return self._slurm.ask_ids(names, self._since(batch)) if batch else None

    def _since(self, batch: list[Waiting]) -> int:
        """From when on sacct is asked for the rows of a batch.

        A start in the future, by a clock that was set back or a line that is wrong, would fail the whole call.
        """
        if len(batch) > FEW_IDS:
            return max(min(int(self._clock()), _first_end(batch)) - SHORT_LOOKBACK_SECONDS, 0)
        submitted = min(item.entry.submit or int(item.queued_at) for item in batch)
        return max(min(int(self._clock()), submitted) - LOOKBACK_SECONDS, 0)

    def _complete(self, rows: Rows, batch: list[Waiting]) -> None:
        """Asks again, a few at a time, for the jobs that may have rows from before the call looked."""
        if len(batch) <= FEW_IDS:
            return
        since = self._since(batch) + LINK_SECONDS
        older = [item for item in batch if not rows.reach_back(item.entry, since)]
        for start in range(0, len(older), FEW_IDS):
            query = self._ask(older[start : start + FEW_IDS])
            if query:
                rows.replace(query.answer())

    def _sort_out(self, batch: list[Waiting], rows: Rows) -> None:
        """Books what sacct's answer means for each job of a batch, and hands on those that are final."""
        final: list[tuple[Waiting, Verdict]] = []
        later: list[Waiting] = []
        gone: list[Waiting] = []
        earlier: list[Run] = []
        for item in batch:
            verdict = judge_entry(item.entry, rows.of(item.entry), self._clock())
            logger.debug("job %s: %s (%s)", item.entry.asked, verdict.fate.value, verdict.reason)
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
            self._ledger.add_earlier_runs(earlier)
            self._ledger.postpone(later)
            self._ledger.forget_waiting(item.key for item in [*gone, *given_up])
            self._ledger.raise_fact(GIVEN_UP, len(given_up))
        for item, verdict in final:
            job = fold(list(verdict.runs), requeued_runs=self._settings.requeued_runs)
            self._delivery.add(make_record(job, self._settings.cluster), item.key)

    def _is_skipped(self, verdict: Verdict) -> bool:
        return self._settings.skip_never_started and all(run.never_started for run in verdict.runs)

    def _postponed(self, item: Waiting, reason: str, not_before: float = 0.0) -> Waiting:
        attempts = item.attempts + 1
        now = self._clock()
        due_at = max(now + retry.record_delay(attempts), min(not_before, now + retry.LONGEST_WAIT_SECONDS))
        return item._replace(attempts=attempts, due_at=due_at, reason=reason)

    def _given_up(self, later: list[Waiting]) -> list[Waiting]:
        """Those that were asked for in vain for too long: an outage, or a step of the clock, does not count.

        Reconcile brings them, if Slurm's accounting ever knows them.
        """
        most = retry.attempts_within(self._settings.retry_max_age_seconds)
        given_up = [item for item in later if item.attempts >= most]
        for item in given_up:
            logger.warning("job %s is given up to reconcile: %s", item.entry.asked, item.reason)
        return given_up


def _names(item: Waiting, now: float) -> Iterator[str]:
    """How sacct is asked for a job. A task that it does not find may be written without its array, and stay so where
    slurmctld was killed: then the raw ID is the last resort, as it brings the whole array, too."""
    yield item.entry.asked
    if item.entry.array_task is not None and item.attempts and now - _end_of(item) >= HALF_WRITTEN_SECONDS:
        yield str(item.entry.job_id)


def _end_of(item: Waiting) -> int:
    """When a job ended, as far as the hook told."""
    return item.entry.end or int(item.queued_at)


def _first_end(batch: list[Waiting]) -> int:
    """When the first job of a batch ended, as far as the hook told."""
    return min(map(_end_of, batch))


class Rows:
    """The rows of one answer, by what was asked."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._by_raw_id: dict[int, list[Run]] = {}
        self._by_job_id: dict[str, list[Run]] = {}
        self.replace(runs)

    def replace(self, runs: Iterable[Run]) -> None:
        """Takes another answer's rows instead of those of the same jobs."""
        by_raw_id: dict[int, list[Run]] = {}
        by_job_id: dict[str, list[Run]] = {}
        for run in runs:
            by_raw_id.setdefault(run.raw_id, []).append(run)
            if "_" in run.job_id:
                by_job_id.setdefault(run.job_id, []).append(run)
        self._by_raw_id.update(by_raw_id)
        self._by_job_id.update(by_job_id)

    def reach_back(self, entry: QueueEntry, since: int) -> bool:
        """Whether no row of a job can be missing that ended before an instant."""
        runs = own_runs(self.of(entry))
        return bool(runs) and runs[0].submit >= since

    def of(self, entry: QueueEntry) -> list[Run]:
        """The rows of a queued job, and of no other: asked for an array's own ID, sacct answers with all its tasks."""
        if entry.array_task is not None:
            plain = str(entry.job_id)
            half_written = [run for run in self.of_raw_id(entry.job_id) if run.job_id == plain]
            return self._by_job_id.get(entry.asked, half_written)
        return self.of_raw_id(entry.job_id)

    def of_raw_id(self, raw_id: int) -> list[Run]:
        """The rows of a raw ID."""
        return self._by_raw_id.get(raw_id, [])


def take_over(queue: Queue, ledger: Ledger, now: float) -> None:
    """Claims the queue and moves its entries into the ledger. The files go when the entries are safe on the disk.

    :raises SpoolError: where the spool can't be used; nothing is lost.
    """
    files = queue.claim()
    if files:
        last_call = queue.last_write(files) or now
        with ledger.transaction():
            ledger.add_calls(ledger.add_waiting(queue.read(files), now), last_call)
        queue.discard(files)


def has_work(ledger: Ledger, now: float) -> bool:
    """Whether anything is due, or about to be."""
    due = ledger.next_due(now)
    return due is not None and due <= now + LINGER_SECONDS


def check_pause(ledger: Ledger, now: float) -> None:
    """Obeys a Retry-After that outlasted the run which received it.

    :raises DashboardUnreachable: while the dashboard wants to be left alone.
    """
    rest = ledger.fact(PAUSE) - now
    if 0 < rest <= LONGEST_PAUSE_SECONDS:
        raise DashboardUnreachable(
            f"the dashboard asked to be left alone for another {rest:.0f} s", hint="everything is kept"
        )
