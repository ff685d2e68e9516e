"""Delivered jobs are resent once a week, or by hand. In between, their rows are recognized and nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Sequence

import pytest

from agent.errors import DashboardUnreachable
from agent.jobs.run import Run
from agent.slurm.controller_hosts import Controllers
from tests.support.memory import DAY
from tests.support.rows import NOON, make_run
from tests.support.sites import SessionSite


class Site(SessionSite):
    """A cluster with a reconcile a day."""

    def __init__(self, folder: Path, *runs: Run, **settings: Any) -> None:
        super().__init__(folder, *runs, now=NOON + DAY, **settings)

    def next_day(self, *, daily: bool = True) -> list[str]:
        """Runs a reconcile, a day later than the one before; returns the JobIDs that it has sent."""
        try:
            self.reconcile(daily=daily)
        finally:
            self.now += DAY
        return [record["JobID"] for record in self.sent()]


def job(number: int, **changes: str) -> Run:
    return make_run(JobID=str(number), JobIDRaw=str(number), **changes)


def test_everything_is_sent_once_a_week(tmp_path: Path) -> None:
    """A dashboard that has lost a file has it again within a week; on the other days there is nothing to send."""
    site = Site(tmp_path, job(1, End=str(NOON + DAY - 900)))
    assert [["1"], *[[]] * 6, ["1"]] == [site.next_day() for _ in range(8)]


@pytest.mark.parametrize(("days", "sent"), [(1, [["1"]] * 3), (0, [["1"], [], []]), (2, [["1"], [], ["1"]])])
def test_the_site_chooses_how_often_everything_is_resent(tmp_path: Path, days: int, sent: list[list[str]]) -> None:
    """Jobs are sent again every time, never, or after that many days."""
    site = Site(tmp_path, job(1), resend_days=days)
    assert sent == [site.next_day() for _ in range(3)]


def test_a_manual_reconcile_sends_everything(tmp_path: Path) -> None:
    """A reconcile with dates sends everything that ended in them."""
    site = Site(tmp_path, job(1))
    assert [["1"], []] == [site.next_day(), site.next_day()]
    assert ["1"] == site.next_day(daily=False)


def test_new_and_changed_jobs_are_sent_every_day(tmp_path: Path) -> None:
    """A changed row is compared with what was delivered."""
    site = Site(tmp_path, job(1), job(2))
    site.next_day()
    site.slurm.runs = [job(1), job(2, Account="chemistry"), job(3)]
    assert ["2", "3"] == site.next_day()


def test_other_settings_make_other_records_of_the_same_rows(tmp_path: Path) -> None:
    """They are not taken for what the dashboard has."""
    runs = [
        job(1, State="REQUEUED", End=str(NOON + 900)),
        job(1, Submit=str(NOON + 900), Start=str(NOON + 950)),
        job(2),
    ]
    site = Site(tmp_path, *runs)
    assert ["1", "2"] == sorted(site.next_day())
    site.settings["requeued_runs"] = "last"
    assert ["1"] == site.next_day()


def test_an_interrupted_one_resumes_where_it_was(tmp_path: Path) -> None:
    """The next day's sends again what has ended since, and has then sent everything."""
    site = Site(
        tmp_path, *(job(100 + number, End=str(NOON - number * DAY // 2)) for number in range(12)), resend_days=2
    )
    site.next_day()
    site.next_day()
    site.slurm.runs.append(job(9, End=str(int(site.now) - 900)))
    submit = site.dashboard.submit
    site.dashboard.submit = failing_at("9", submit)  # type: ignore[method-assign]
    with pytest.raises(DashboardUnreachable):
        site.next_day()
    site.dashboard.batches.clear()
    site.dashboard.submit = submit  # type: ignore[method-assign]
    sent = site.next_day()
    assert ("9" in sent, len(sent) < 4) == (True, True)
    assert [] == site.next_day()


def test_a_dashboard_that_takes_a_few_jobs_at_a_time(tmp_path: Path) -> None:
    """No run repeats what an earlier one was the first to send; a week later everything is resent."""
    site = Site(tmp_path, *(job(number, End=str(NOON + DAY - 900)) for number in range(1, 7)), batch_size=1)
    submit = site.dashboard.submit
    arrived: list[str] = []
    for _ in range(2):
        site.dashboard.submit = failing_after(2, submit)  # type: ignore[method-assign]
        with pytest.raises(DashboardUnreachable, match="enough for now"):
            site.next_day()
        arrived += [record["JobID"] for record in site.sent()]
        site.now -= DAY - 60
    site.dashboard.submit = failing_after(2, submit)  # type: ignore[method-assign]
    arrived += site.next_day()
    assert ["1", "2", "3", "4", "5", "6"] == sorted(arrived)
    site.dashboard.submit = submit  # type: ignore[method-assign]
    assert [0, 0, 0, 0, 0, 0, 6] == [len(site.next_day()) for _ in range(7)]


def failing_after(batches: int, submit: Callable[..., str]) -> Callable[..., str]:
    left = [None] * batches

    def fail(cluster: str, texts: list[str], **options: Any) -> str:
        if not left:
            raise DashboardUnreachable("enough for now")
        left.pop()
        return submit(cluster, texts, **options)

    return fail


def failing_at(job_id: str, submit: Callable[..., str]) -> Callable[..., str]:
    def fail(cluster: str, texts: list[str], **options: Any) -> str:
        if job_id in {json.loads(text)["JobID"] for text in texts}:
            raise DashboardUnreachable("down")
        return submit(cluster, texts, **options)

    return fail


def test_jobs_that_end_during_a_long_resend_are_resent_too(tmp_path: Path) -> None:
    """A host without turns may have overwritten what the controller delivered while it resent."""
    site = Site(tmp_path, job(1))
    site.slurm.controllers = lambda: Controllers("lab", ("ctl1",), "/nonexistent")
    posts = 0
    deliver = site.dashboard.submit

    def submit(cluster: str, texts: Sequence[str], **options: Any) -> str:
        nonlocal posts
        posts += 1
        if posts == 2:  # the resend
            site.now += 60
            site.slurm.runs.append(job(2, End=str(int(site.now) - 30)))
        return deliver(cluster, texts, **options)

    site.dashboard.submit = submit  # type: ignore[method-assign]
    site.reconcile()
    assert ["1", "1", "2"] == [record["JobID"] for record in site.sent()]
