"""Snapshots for tests: a healthy one, with the values that a test changes."""

from __future__ import annotations

from typing import Any

from agent.config import Config, parse_config
from agent.localtime import day_start, parse_day
from agent.spool.rejected import Rejected
from agent.spool.run_history import RunReport
from agent.status.snapshot import CommandRuns, Coverage, Day, Delay, Hook, Snapshot, Undelivered

NOON = day_start(parse_day("2024-03-20")) + 12 * 3600.0
HOUR, DAY = 3600.0, 86_400.0

HOOK = Hook("2024-01-02", NOON - 12, calls_today=1523, calls=91_002, missed=3, missed_end=NOON - 3 * DAY)
BACKLOG = Undelivered(
    queued=2,
    unreadable=0,
    waiting=1,
    reasons={"no record yet": 1},
    oldest=NOON - 40,
    rejected=0,
    given_up=0,
    paused_until=None,
)
REFUSED = Rejected(4711, "4711", int(NOON - 600), int(NOON - 300), "CPUHours: too many", NOON - 200, "{}")
FLUSH = CommandRuns(
    RunReport("flush", NOON - 30, 0.4, 0, "12 delivered, 0 rejected, 1 waiting", 12), NOON - 30, NOON - 29.6, 90_000
)
RECONCILE = CommandRuns(
    RunReport("reconcile", NOON - 10 * HOUR, 41.2, 0, "18000 jobs ended in the range", 18_000, missed=3),
    NOON - 10 * HOUR,
    NOON - 10 * HOUR + 41,
    126_000,
)
DAYS = (Day("2024-03-18", 9_000, 8_000), Day("2024-03-19", 18_000, 18_000), Day("2024-03-20", 2_000, 1_999))


def make_config(**settings: Any) -> Config:
    """A configuration with some keys set."""
    return parse_config({"api_url": "https://dashboard.example.com", "api_key": "secret", **settings}, {})


def make_runs(report: RunReport, last_success: float | None = None) -> CommandRuns:
    """The runs of a command, the last of which ended as reported."""
    return CommandRuns(report, last_success, last_success, 0)


def make_snapshot(**changes: Any) -> Snapshot:
    """A snapshot of a healthy exporter."""
    healthy = Snapshot(
        taken_at=NOON,
        config=make_config(),
        under_way=None,
        hook=HOOK,
        backlog=BACKLOG,
        rejected=(),
        flush=FLUSH,
        reconcile=RECONCILE,
        delay=Delay(1500, 14.2, 41.0),
        coverage=Coverage(DAYS, DAYS[1:]),
        begun=NOON - 19 * 24 * HOUR,
        history_since=NOON - 19 * 24 * HOUR,
    )
    return healthy._replace(**changes)
