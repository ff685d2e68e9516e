"""Formats a status for the screen, as JSON, and as a line for Nagios or Icinga. Pure."""

from __future__ import annotations

import math
import textwrap
from typing import Any, Iterator, Sequence

from agent import __version__
from agent.config import NAME
from agent.localtime import local_day, local_text, parse_day
from agent.sanitize import printable
from agent.status.health import Level, Problem, worst_level
from agent.status.snapshot import CommandRuns, Day, Delay, Hook, Snapshot, Undelivered
from agent.wording import Style, count, moment, percent, span

WIDTH = 80
LABEL_WIDTH = 11
BAR_WIDTH = 36
_COLOURS = {Level.OK: "32", Level.WARNING: "33", Level.CRITICAL: "31"}
_FAINT = "2"


def as_text(snapshot: Snapshot, problems: Sequence[Problem], style: Style) -> str:
    """A screen of 80 columns. The Slurm user could put anything into the ledger that root reads here."""
    lines = [f"{NAME} {__version__}, to {snapshot.config.api_url}", *_verdict(problems, style), ""]
    for label, text in _facts(snapshot):
        label_column = style.paint(label.ljust(LABEL_WIDTH), _FAINT)
        first, *more = textwrap.wrap(printable(text), WIDTH - LABEL_WIDTH, break_on_hyphens=False)
        lines += [label_column + first, *(" " * LABEL_WIDTH + line for line in more)]
    lines += _chart(snapshot.coverage.days, style)
    return "\n".join(lines)


def as_json(snapshot: Snapshot, problems: Sequence[Problem]) -> dict[str, Any]:
    """What ``status --json`` prints. Its keys are documented in docs/monitoring.md and must not change."""
    coverage = snapshot.coverage
    return {
        "version": __version__,
        "taken_at": snapshot.taken_at,
        "begun": snapshot.begun,
        "history_since": snapshot.history_since,
        "api_url": snapshot.config.api_url,
        "cluster_name": snapshot.config.cluster_name,
        "spool_dir": str(snapshot.config.spool_dir),
        "level": worst_level(problems).name.lower(),
        "problems": [{**problem._asdict(), "level": problem.level.name.lower()} for problem in problems],
        "under_way": snapshot.under_way._asdict() if snapshot.under_way else None,
        "hook": {**snapshot.hook._asdict(), "silent": snapshot.hook.silent},
        "backlog": snapshot.backlog._asdict(),
        "rejected": [record._asdict() for record in snapshot.rejected],
        "flush": _runs_json(snapshot.flush),
        "reconcile": _runs_json(snapshot.reconcile),
        "delay": snapshot.delay._asdict(),
        "coverage": {
            "ratio": coverage.ratio,
            "jobs": coverage.jobs,
            "days": [day._asdict() for day in coverage.days],
        },
    }


def as_check_line(snapshot: Snapshot, problems: Sequence[Problem]) -> str:
    """The line of a Nagios or Icinga plugin: the state, the problems, and performance data with thresholds."""
    said = "; ".join(problem.text for problem in problems) or "all is well"
    figures = " ".join(f"{name}={value}" for name, value in _figures(snapshot))
    return f"{_check_line(worst_level(problems), said)} | {figures}"


def as_check_failure(trouble: str) -> str:
    """The same if no snapshot could be taken: flush cannot run either."""
    return _check_line(Level.CRITICAL, trouble)


def _check_line(level: Level, said: str) -> str:
    """One line without ``|``, which would begin the performance data."""
    return f"{level.name} - {' '.join(printable(said).split()).replace('|', '/')}"


def _verdict(problems: Sequence[Problem], style: Style) -> Iterator[str]:
    bullet = "●" if style.unicode else "*"
    if not problems:
        yield f"{style.paint(bullet, _COLOURS[Level.OK])} all is well"
    for level, text, hint in problems:
        first, *more = textwrap.wrap(printable(text), WIDTH - 2, break_on_hyphens=False)
        yield f"{style.paint(bullet, _COLOURS[level])} {first}"
        yield from (f"  {line}" for line in more)
        yield f"  {'→' if style.unicode else '->'} {printable(hint)}"


def _facts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    now = snapshot.taken_at
    if snapshot.under_way:
        command, pid, since = snapshot.under_way
        yield "Under way", f"{command} for {span(now - since)}, process {pid}"
    yield "Hook", _hook_text(snapshot.hook, now)
    yield "Queue", _backlog_text(snapshot.backlog, now)
    yield from _rejected_texts(snapshot)
    yield "Flush", _runs_text(snapshot.flush, now)
    yield "Reconcile", _runs_text(snapshot.reconcile, now)
    yield "Delay", _delay_text(snapshot.delay)
    yield "Coverage", _coverage_text(snapshot)
    yield "History", _history_text(snapshot)


def _hook_text(hook: Hook, now: float) -> str:
    if hook.last_call is None:
        return "no call yet"
    return f"last call {moment(hook.last_call, now)}, {count(hook.calls_today, 'call')} today"


def _backlog_text(backlog: Undelivered, now: float) -> str:
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in backlog.reasons.items())
    parts = [f"{backlog.queued:,} queued", f"{backlog.waiting:,} waiting" + (f" ({reasons})" if reasons else "")]
    if backlog.oldest is not None:
        parts.append(f"the oldest for {span(now - backlog.oldest)}")
    if backlog.unreadable:
        parts.append(f"{count(backlog.unreadable, 'line')} without a JobID")
    if backlog.odd_rows:
        parts.append(f"{count(backlog.odd_rows, 'row')} of sacct unreadable")
    if backlog.given_up:
        parts.append(f"{backlog.given_up:,} left to reconcile so far")
    if backlog.paused_until:
        parts.append(f"paused for {span(backlog.paused_until - now)} at the dashboard's request")
    return ", ".join(parts)


def _rejected_texts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    total = snapshot.backlog.rejected
    if not total:
        yield "Rejected", "none"
        return
    for number, record in enumerate(snapshot.rejected):
        yield "Rejected" if number == 0 else "", f"job {record.shown_id}: {record.reason}"
    if total > len(snapshot.rejected):
        yield "", f"and {total - len(snapshot.rejected):,} more"


def _runs_text(runs: CommandRuns, now: float) -> str:
    last = runs.last
    if last is None:
        return "never"
    if runs.has_failed:  # the message is among the problems
        text = f"{moment(last.started_at, now)}, failed after {span(last.seconds)}; "
        return text + (
            f"last success {moment(runs.last_success, now)}" if runs.last_success else "none has succeeded yet"
        )
    text = f"{moment(last.started_at, now)}, took {span(last.seconds)}: {last.message}"
    if runs.last_delivery and not last.delivered:
        text += f"; last delivery {moment(runs.last_delivery, now)}"
    return text


def _delay_text(delay: Delay) -> str:
    if delay.median is None or delay.p99 is None:
        return "flush delivered no job in the last day"
    jobs = count(delay.jobs, "job")
    return f"from job end to dashboard: median {span(delay.median)}, 99 % within {span(delay.p99)} ({jobs})"


def _coverage_text(snapshot: Snapshot) -> str:
    coverage, hook = snapshot.coverage, snapshot.hook
    if snapshot.no_hook:
        return snapshot.no_hook
    if coverage.ratio is None:
        return "unknown until the first reconcile after the hook's first call"
    first_day = coverage.judged[0].day
    # The first day counts only from the first call.
    begun = local_text(int(hook.since)) if hook.since and first_day == hook.first_day else first_day
    jobs = count(coverage.jobs, "job")
    return f"the hook caught {percent(coverage.ratio)} of {jobs} since {begun.replace('T', ' ')[:16]}"


def _history_text(snapshot: Snapshot) -> str:
    """How far back the dashboard has this cluster's jobs, according to the ledger."""
    if snapshot.history_since:
        reach = f"complete since {local_day(snapshot.history_since)}"
        return f"{reach}; reconcile --start-date YYYY-MM-DD delivers earlier jobs"
    reach = f"begins at {moment(snapshot.hook.since, snapshot.taken_at)}" if snapshot.hook.since else "none yet"
    return f"{reach}; reconcile delivers the last {count(snapshot.config.collection_window_days, 'day')}"


def _chart(days: Sequence[Day], style: Style) -> Iterator[str]:
    """A bar for each day: its length shows the number of jobs, the filled part those that the hook caught."""
    most = max((day.jobs for day in days), default=0)
    full, empty = ("█", "░") if style.unicode else ("#", ".")
    for day in days:
        length = max(round(day.jobs / most * BAR_WIDTH), 1)
        # Rounded down, so that a full bar means all.
        filled = day.hooked * length // day.jobs
        bar = style.paint(full * filled, _COLOURS[Level.OK])
        bar += style.paint(empty * (length - filled), _COLOURS[Level.WARNING])
        share = percent(day.hooked / day.jobs)
        name = parse_day(day.day).strftime("%a %m-%d")
        yield f"  {name} {bar}{' ' * (BAR_WIDTH - length)} {share:>8} {count(day.jobs, 'job'):>16}"


def _runs_json(runs: CommandRuns) -> dict[str, Any]:
    return {**runs._asdict(), "last": runs.last._asdict() if runs.last else None}


def _figures(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Performance data: name and ``value[unit];warning;critical;least;most``."""
    now, backlog, config = snapshot.taken_at, snapshot.backlog, snapshot.config
    ages = ";".join(f"{minutes * 60:g}" for minutes in config.status_queue_age_minutes)
    shares = ";".join(f"{percentage:g}:" for percentage in config.status_coverage_percent)
    oldest = now - backlog.oldest if backlog.oldest else 0
    yield "queued", f"{backlog.queued};;;0"
    yield "waiting", f"{backlog.waiting};;;0"
    yield "oldest", f"{max(oldest, 0):.0f}s;{ages};0"
    yield "rejected", f"{backlog.rejected};0;;0"
    if snapshot.coverage.ratio is not None:
        yield "coverage", f"{math.floor(snapshot.coverage.ratio * 10_000) / 100:.2f}%;{shares};0;100"
    if snapshot.delay.median is not None:
        yield "delay_median", f"{snapshot.delay.median:.1f}s;;;0"
        yield "delay_p99", f"{snapshot.delay.p99:.1f}s;;;0"
    for name, runs in (("flush", snapshot.flush), ("reconcile", snapshot.reconcile)):
        if runs.last_success is not None:
            yield f"{name}_age", f"{now - runs.last_success:.0f}s;;;0"
