"""One pipeline: whichever command sends a job, and however often, the dashboard gets the same record."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.job import ever_started, own_runs
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import make_record
from agent.jobs.run import Run
from tests.support.memory import DAY
from tests.support.rows import NOON, make_run
from tests.support.sites import SessionSite

HOUR = 3600
GAPS = st.one_of(st.integers(0, 700), st.integers(700, 2 * DAY), st.integers(2 * DAY, 300 * DAY))
GOING_ON = st.sampled_from(["REQUEUED", "RESIZING", "PREEMPTED", "NODE_FAIL"])
SETTINGS = list(itertools.product(["sum", "last"], ["submit", "skip"]))


@st.composite
def histories(draw: st.DrawFn) -> list[Run]:
    """All runs of one job, oldest first: it ran, was requeued and finally ended, or was cancelled while pending."""
    submit = NOON
    runs = []
    for state in draw(st.lists(GOING_ON, max_size=3)):
        start = submit + draw(st.integers(0, DAY))
        end = start + draw(st.integers(1, 2 * DAY))
        runs.append(make_run(State=state, **times(submit, start, end)))
        submit = end + draw(GAPS)
    if draw(st.booleans()):
        idle = {"State": "CANCELLED", "Start": "None", "ElapsedRaw": "0", "NodeList": "None assigned"}
        runs.append(make_run(**{**times(submit, submit, submit + draw(st.integers(0, HOUR))), **idle}))
    else:
        start = submit + draw(st.integers(0, HOUR))
        runs.append(make_run(**times(submit, start, start + draw(st.integers(1, HOUR)))))
    return runs


def times(submit: int, start: int, end: int) -> dict[str, str]:
    return {"Submit": str(submit), "Start": str(start), "End": str(end), "ElapsedRaw": str(end - start)}


def shown_after(commands: Sequence[str], runs: Sequence[Run], settings: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """What the dashboard shows after some commands, the first of them an hour after the job's end, and one a day.

    A flush is of the last end, and a reconcile of the last seven days. For each JobID the record that came last counts.
    """
    requeued_runs, never_started = settings
    last = runs[-1]
    with tempfile.TemporaryDirectory() as folder:
        site = SessionSite(
            Path(folder), *runs, now=(last.end or 0) + HOUR, requeued_runs=requeued_runs, never_started=never_started
        )
        for command in commands:
            if command == "flush":
                site.flush(QueueEntry(last.raw_id, last.submit, last.end))
            else:
                site.reconcile(only_missing=command == "reconcile --only-missing")
            site.now += DAY
        return {record["JobID"]: record for record in site.sent()}


def expected(runs: Sequence[Run], settings: tuple[str, str]) -> dict[str, dict[str, Any]]:
    requeued_runs, never_started = settings
    own = own_runs(runs)
    if never_started == "skip" and not ever_started(own):
        return {}
    record = make_record(own, "lab", requeued_runs=requeued_runs)
    return {record.job_id: json.loads(record.text)}


@settings(max_examples=60)
@given(
    runs=histories(),
    choice=st.sampled_from(SETTINGS),
    order=st.lists(st.sampled_from(["flush", "reconcile", "reconcile --only-missing"]), min_size=1, max_size=5),
)
def test_flush_and_reconcile_send_the_same(runs: list[Run], choice: tuple[str, str], order: list[str]) -> None:
    """Each alone, and both in any order with repeats; each reconcile prunes what it needs no more."""
    want = expected(runs, choice)
    assert want == shown_after(["flush"], runs, choice)
    assert want == shown_after(["reconcile"], runs, choice)
    assert want == shown_after(order, runs, choice)


@pytest.mark.parametrize("days", [1, 91, 120, 300])
def test_a_job_requeued_long_before_its_last_end(days: int) -> None:
    """The second reconcile does not overwrite what flush and the first one sent correctly."""
    first = make_run(State="REQUEUED", **times(NOON, NOON, NOON + HOUR))
    again = NOON + days * DAY
    runs = [first, make_run(**times(NOON + HOUR, again, again + HOUR))]
    shown = shown_after(["flush", "reconcile", "reconcile"], runs, ("sum", "submit"))
    assert [16.0] == [record["CPUHours"] for record in shown.values()]


def test_a_job_that_ran_and_was_cancelled_while_pending_again_has_started() -> None:
    """With "last" no hour of it counts, but it is not left out as one that never started."""
    idle = {"State": "CANCELLED", "Start": "None", "ElapsedRaw": "0", "NodeList": "None assigned"}
    pending = make_run(**{**times(NOON + HOUR, NOON + HOUR, NOON + 2 * HOUR), **idle})
    runs = [make_run(State="REQUEUED", **times(NOON, NOON, NOON + HOUR)), pending]
    for command in ("flush", "reconcile"):
        shown = shown_after([command], runs, ("last", "skip"))
        assert [0.0] == [record["CPUHours"] for record in shown.values()], command
