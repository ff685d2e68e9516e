"""Gathers the exporter's state from the spool and the ledger into a :class:`Snapshot`.

Read-only: it changes nothing and waits for no run. Times are epoch seconds, None if there is none.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple, Sequence

from agent.config import Config
from agent.errors import STOPPED, RecordsRejected
from agent.localtime import local_day
from agent.spool.facts import (
    DELIVERED_BY,
    ELSEWHERE,
    GIVEN_UP,
    HISTORY_SINCE,
    HOOK_SINCE,
    LEDGER_SINCE,
    MISSED,
    MISSED_END,
    ODD_ROWS,
    OTHERS_RECONCILED,
    PAUSE,
    WITHOUT_TURNS,
)
from agent.spool.ledger import Ledger
from agent.spool.lock import RUN_LOCK, lock_holder
from agent.spool.queue import Queue
from agent.spool.rejected import Rejected
from agent.spool.run_history import RunReport

#: The delay is computed over the jobs delivered within this time, up to this number of them.
DELAY_SECONDS = 86_400
DELAY_JOBS = 10_000
#: How many rejected records are shown with the dashboard's error message.
SHOWN_REJECTED = 3
#: Coverage is judged by this many recent days: one bad day shows, and disappears after a good one or two.
JUDGED_DAYS = 2


class UnderWay(NamedTuple):
    """The run that holds the lock now."""

    command: str
    pid: int
    since: float


class Hook(NamedTuple):
    """The hook's calls. Totals are since the ledger was created."""

    first_day: str | None  # YYYY-MM-DD
    last_call: float | None
    calls_today: int
    calls: int
    missed: int  # jobs that it did not queue; reconcile delivered them
    missed_end: float | None  # when the newest of them that had run ended
    since: float | None = None  # its first call; jobs that ended earlier do not count as missed

    @property
    def silent(self) -> bool:
        """Whether a job has run and ended since the last call without a call of its own."""
        return (self.missed_end or 0) > (self.last_call or 0)


class Undelivered(NamedTuple):
    """The jobs that are not delivered yet."""

    queued: int  # in the queue file, not claimed by a flush yet
    unreadable: int  # lines there without a valid JobID
    waiting: int
    reasons: dict[str, int]  # how many jobs, by the reason for waiting
    oldest: float | None  # when the oldest of these jobs ended, as far as known; half-written ones do not count
    rejected: int
    given_up: int  # left to reconcile after retry_max_age_days, since the ledger was created
    paused_until: float | None  # the dashboard asked for a pause
    half_written: int = 0  # waiting jobs of which slurmdbd has little more than the end; for a day at most
    odd_rows: int = 0  # rows of sacct that the last reconcile, or a flush since then, could not parse


class CommandRuns(NamedTuple):
    """The runs of one command."""

    last: RunReport | None
    last_success: float | None
    last_delivery: float | None
    delivered: int  # jobs, including repeats, since the ledger was created

    @property
    def has_failed(self) -> bool:
        """Whether the last run failed. Rejected records are reported separately, and Ctrl-C is not a failure."""
        return self.last is not None and self.last.exit_code not in {0, RecordsRejected.exit_code, STOPPED}


class Delay(NamedTuple):
    """The time from a job's end to its delivery, for jobs that flush delivered recently, in seconds."""

    jobs: int
    median: float | None
    p99: float | None


class Day(NamedTuple):
    """The jobs that ended on one day, counted by reconcile."""

    day: str  # YYYY-MM-DD
    jobs: int
    hooked: int  # of these, the ones that the hook caught


class Coverage(NamedTuple):
    """The share of jobs that the hook caught."""

    days: tuple[Day, ...]  # of the collection window
    judged: tuple[Day, ...]  # the latest of them, since the hook's first call

    @property
    def jobs(self) -> int:
        """The number of jobs on the judged days."""
        return sum(day.jobs for day in self.judged)

    @property
    def ratio(self) -> float | None:
        """The share caught on the judged days, from 0 to 1."""
        return sum(day.hooked for day in self.judged) / self.jobs if self.jobs else None


class Snapshot(NamedTuple):
    """Everything that ``status`` shows."""

    taken_at: float
    config: Config
    under_way: UnderWay | None
    hook: Hook
    backlog: Undelivered
    rejected: tuple[Rejected, ...]  # the newest few
    flush: CommandRuns
    reconcile: CommandRuns
    delay: Delay
    coverage: Coverage
    begun: float | None = None  # when this ledger's first run began
    history_since: float | None = None  # since when reconcile has delivered everything
    elsewhere: bool = False  # whether slurm_cluster names a cluster that this host does not control
    without_turns: float | None = None  # since when runs have sent without taking turns with the other controllers

    @property
    def no_hook(self) -> str:
        """Why no hook is expected; empty if one is."""
        if not any(self.config.status_coverage_percent):
            return "no hook expected, because status_coverage_percent is [0, 0]"
        if self.elsewhere and not self.hook.since:
            return f"no hook expected, because this host does not control {self.config.slurm_cluster}"
        return ""


def take_snapshot(config: Config, ledger: Ledger, now: float) -> Snapshot:
    """Takes a snapshot.

    :raises SpoolError: if the spool or the ledger cannot be read.
    """
    queued = _read_queue(config.spool_dir)
    hook = _make_hook(ledger, queued, now)
    return Snapshot(
        taken_at=now,
        config=config,
        under_way=_find_run(config.spool_dir),
        hook=hook,
        backlog=_make_backlog(ledger, queued, now),
        rejected=tuple(ledger.rejected.newest(SHOWN_REJECTED)),
        flush=_read_runs(ledger, "flush"),
        reconcile=_with_others(_read_runs(ledger, "reconcile"), ledger.facts.get(OTHERS_RECONCILED)),
        delay=make_delay(ledger.delivered.latencies(now - DELAY_SECONDS, DELAY_JOBS)),
        coverage=_read_coverage(ledger, hook.first_day, local_day(now) - timedelta(days=config.collection_window_days)),
        begun=ledger.facts.get(LEDGER_SINCE) or None,
        history_since=ledger.facts.get(HISTORY_SINCE) or None,
        elsewhere=bool(config.slurm_cluster and ledger.facts.get(ELSEWHERE)),
        without_turns=ledger.facts.get(WITHOUT_TURNS) or None,
    )


def make_delay(seconds: Sequence[float]) -> Delay:
    """The median and the 99th percentile (nearest rank) of sorted delays."""
    if not seconds:
        return Delay(0, None, None)
    median, p99 = (max(seconds[math.ceil(share * len(seconds)) - 1], 0.0) for share in (0.5, 0.99))
    return Delay(len(seconds), median, p99)


class _Queued(NamedTuple):
    """The contents of the queue's files."""

    jobs: int
    calls: int  # of these jobs, the ones queued by the hook and not by an admin
    unreadable: int
    oldest: float | None
    last_call: float | None


def _read_queue(spool: Path) -> _Queued:
    odd: Counter[str] = Counter()
    queue = Queue(spool, complain=lambda error: odd.update(lines=1))
    jobs = 0
    oldest = math.inf
    writes: list[float] = []
    for path in queue.files():
        written = queue.last_write([path])
        if written is None:  # a flush has just claimed it
            continue
        calls = queue.calls
        for entry in queue.read([path]):
            jobs += 1
            oldest = min(oldest, entry.end or written)
        if queue.calls > calls:
            writes.append(written)
    return _Queued(jobs, queue.calls, odd["lines"], oldest if jobs else None, max(writes, default=None))


def _make_hook(ledger: Ledger, queued: _Queued, now: float) -> Hook:
    calls = ledger.history.calls()
    today = local_day(now)
    called_today, _ = calls.get(today.isoformat(), (0, 0.0))
    if queued.last_call and local_day(queued.last_call) == today:
        called_today += queued.calls
    moments = [last_call for _, last_call in calls.values()]
    if queued.last_call:
        moments.append(queued.last_call)
    since = ledger.facts.get(HOOK_SINCE) or min(moments, default=None)
    return Hook(
        first_day=local_day(since).isoformat() if since else None,
        last_call=max(moments, default=None),
        calls_today=called_today,
        calls=sum(number for number, _ in calls.values()) + queued.calls,
        missed=int(ledger.facts.get(MISSED)),
        missed_end=ledger.facts.get(MISSED_END) or None,
        since=since,
    )


def _make_backlog(ledger: Ledger, queued: _Queued, now: float) -> Undelivered:
    waiting, oldest_waiting = ledger.waiting.count()
    paused_until = ledger.facts.get(PAUSE)
    return Undelivered(
        queued=queued.jobs,
        unreadable=queued.unreadable,
        waiting=waiting,
        reasons=ledger.waiting.reasons(),
        oldest=min(filter(None, (queued.oldest, oldest_waiting)), default=None),
        rejected=ledger.rejected.count(),
        given_up=int(ledger.facts.get(GIVEN_UP)),
        paused_until=paused_until if paused_until > now else None,
        half_written=ledger.waiting.count_half_written(),
        odd_rows=int(ledger.facts.get(ODD_ROWS)),
    )


def _read_runs(ledger: Ledger, command: str) -> CommandRuns:
    success = ledger.history.last_run(command, successful=True)
    delivery = ledger.history.last_run(command, with_work=True)
    return CommandRuns(
        last=ledger.history.last_run(command),
        last_success=success.started_at if success else None,
        last_delivery=delivery.started_at + delivery.seconds if delivery else None,
        delivered=int(ledger.facts.get(DELIVERED_BY + command)),
    )


def _with_others(own: CommandRuns, others: float) -> CommandRuns:
    """Counts another controller's reconcile, in epoch seconds, like one of our own."""
    return own._replace(last_success=max(own.last_success or 0, others) or None)


def _read_coverage(ledger: Ledger, hook_since: str | None, first_day: date) -> Coverage:
    counted = ledger.history.coverage(first_day.isoformat())
    days = tuple(Day(day, jobs, hooked) for day, (jobs, hooked) in counted.items())
    hooked = [day for day in days if hook_since and day.day >= hook_since]
    return Coverage(days, tuple(hooked[-JUDGED_DAYS:]))


def _find_run(spool: Path) -> UnderWay | None:
    """The run that holds the lock, described by its entry in /proc."""
    pid = lock_holder(spool)
    if not pid:
        return None
    process = Path("/proc") / str(pid)
    with suppress(OSError):  # the process has ended meanwhile
        words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
        command = next((word for word in words if word in {"flush", "reconcile"}), "reconcile")
        # A long-lived process (`run`) takes the lock again for each run.
        return UnderWay(command, pid, max(process.stat().st_mtime, (spool / RUN_LOCK).stat().st_mtime))
    return None
