"""Finds the problems in a status snapshot, and rates them. Pure."""

from __future__ import annotations

import enum
from typing import Iterable, Iterator, NamedTuple

from agent.config import NAME, PLAIN_HTTP_HINT
from agent.errors import KeyRefused
from agent.spool.lock import LONGEST_RUN_SECONDS
from agent.status.snapshot import CommandRuns, Snapshot
from agent.wording import count, moment, percent, span

#: Reconcile runs once a day, and is late after a day and a half.
RECONCILE_LATE_SECONDS = 36 * 3600


class Level(enum.IntEnum):
    """The severity; its value is the exit code of ``status --check``, as for a Nagios or Icinga plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


class Problem(NamedTuple):
    """Something that needs an admin's attention."""

    level: Level
    text: str
    hint: str


def find_problems(snapshot: Snapshot) -> list[Problem]:
    """All problems, the most severe first."""
    found = [
        *_failed_runs("flush", snapshot.flush, snapshot.taken_at),
        *_failed_runs("reconcile", snapshot.reconcile, snapshot.taken_at),
        *_plain_http(snapshot),
        *_endless_run(snapshot),
        *_old_queue(snapshot),
        *_without_turns(snapshot),
        *_late_runs(snapshot),
        *_silent_hook(snapshot),
        *_low_coverage(snapshot),
        *_rejected_records(snapshot),
        *_odd_rows(snapshot),
    ]
    return sorted(found, key=lambda problem: -problem.level)


def _plain_http(snapshot: Snapshot) -> Iterator[Problem]:
    problem = snapshot.config.plain_http
    if problem:
        yield Problem(Level.WARNING, problem, PLAIN_HTTP_HINT)


def _endless_run(snapshot: Snapshot) -> Iterator[Problem]:
    run = snapshot.under_way
    if run and snapshot.taken_at - run.since > LONGEST_RUN_SECONDS:
        text = (
            f"process {run.pid} has been running for {span(snapshot.taken_at - run.since)}, longer than a run may take"
        )
        yield Problem(
            Level.CRITICAL, text, "it blocks all other runs: end it, unless it is a long replay that you started"
        )


def worst_level(problems: Iterable[Problem]) -> Level:
    """The severity of the worst problem."""
    return max((problem.level for problem in problems), default=Level.OK)


def _failed_runs(command: str, runs: CommandRuns, now: float) -> Iterator[Problem]:
    last = runs.last
    if last is None or not runs.has_failed:
        return
    level = Level.CRITICAL if last.exit_code == KeyRefused.exit_code else Level.WARNING
    text = f"the last {command}, {moment(last.started_at, now)}, failed: {last.message}"
    yield Problem(level, text, "run `check` to find the cause; all undelivered jobs are kept")


def _old_queue(snapshot: Snapshot) -> Iterator[Problem]:
    backlog = snapshot.backlog
    if backlog.oldest is None:
        return
    age = snapshot.taken_at - backlog.oldest
    warning, critical = (minutes * 60 for minutes in snapshot.config.status_queue_age_minutes)
    if age >= min(warning, critical):
        level = Level.CRITICAL if age >= critical else Level.WARNING
        jobs = count(backlog.queued + backlog.waiting - backlog.half_written, "job")
        text = f"{jobs} not delivered yet; the oldest has waited {span(age)}"
        yield Problem(level, text, "`queue list` shows why each is waiting")


def _without_turns(snapshot: Snapshot) -> Iterator[Problem]:
    since = snapshot.without_turns
    if since:
        text = (
            f"runs have sent without taking turns with the other controllers since {moment(since, snapshot.taken_at)}"
        )
        hint = "run `check` to find the cause, then `reconcile` on each controller, which resends what was overwritten"
        yield Problem(Level.WARNING, text, hint)


def _late_runs(snapshot: Snapshot) -> Iterator[Problem]:
    config, now = snapshot.config, snapshot.taken_at
    last_flush = snapshot.flush.last
    if last_flush and not snapshot.no_hook and now - last_flush.started_at >= config.status_queue_age_minutes[0] * 60:
        text = f"no flush since {moment(last_flush.started_at, now)}"
        yield Problem(Level.WARNING, text, "run one: slurm-usage-history-exporter flush; `check` tests its timer")
    success = snapshot.reconcile.last_success
    if success is None:
        if snapshot.begun and now - snapshot.begun >= RECONCILE_LATE_SECONDS:  # the first one may still be due
            yield Problem(Level.WARNING, "no reconcile has succeeded yet", f"run one: {NAME} reconcile")
    elif now - success >= RECONCILE_LATE_SECONDS:
        # After that long, jobs that the hook missed have left the window undelivered.
        level = Level.CRITICAL if now - success >= config.collection_window_days * 86_400 else Level.WARNING
        text = f"no reconcile has succeeded since {moment(success, now)}"
        yield Problem(level, text, f"run one: {NAME} reconcile; `check` tests its timer")


def _silent_hook(snapshot: Snapshot) -> Iterator[Problem]:
    hook, now = snapshot.hook, snapshot.taken_at
    if not hook.silent or snapshot.no_hook:
        return
    ended = f"a job ended {moment(hook.missed_end or 0, now)}"
    since = f"has not been called since {moment(hook.last_call, now)}" if hook.last_call else "has never been called"
    hint = "reconcile delivered that job; test the hook with `check --test-job`"
    yield Problem(Level.WARNING, f"the hook {since}, but {ended}", hint)


def _low_coverage(snapshot: Snapshot) -> Iterator[Problem]:
    coverage = snapshot.coverage
    warning, critical = (percentage / 100 for percentage in snapshot.config.status_coverage_percent)
    if coverage.ratio is not None and coverage.ratio < max(warning, critical):
        level = Level.CRITICAL if coverage.ratio < critical else Level.WARNING
        text = f"the hook caught only {percent(coverage.ratio)} of the {count(coverage.jobs, 'recent job')}"
        yield Problem(level, text, "reconcile delivered the others; `check` tests the hook")


def _rejected_records(snapshot: Snapshot) -> Iterator[Problem]:
    rejected = snapshot.backlog.rejected
    if rejected:
        hint = "see `queue list`; `queue retry` resends them, `queue drop JOBID` drops one"
        yield Problem(Level.WARNING, f"the dashboard rejected {count(rejected, 'record')}", hint)


def _odd_rows(snapshot: Snapshot) -> Iterator[Problem]:
    rows = snapshot.backlog.odd_rows
    if rows:
        hint = "their jobs were not delivered; see the log of the last reconcile"
        yield Problem(Level.WARNING, f"cannot parse {count(rows, 'row')} of sacct's output", hint)
