"""The proof: random histories in a real accounting database reach the dashboard exactly as SQL reads them."""

from __future__ import annotations

import random
import time
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.proof.histories import REQUEUED, Histories, Row, gpu_mixes
from tests.proof.jobtable import fill, gpu_ids, has_restarts, owners
from tests.proof.site import Site, differences, spans
from tests.support.accounting import expected_stored
from tests.support.dashboard import ReceivingDashboard
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

#: All histories are within that many days before today.
REACH = timedelta(days=425)
LONGEST_WINDOW = 366  # days, for collection_window_days


@pytest.fixture
def rows(slurm: Slurm, zone: str, seed: int, jobs: int) -> list[Row]:
    """Random histories, in the accounting database."""
    made = Histories(
        seed,
        owners(slurm),
        gpu_mixes(*gpu_ids(slurm)),
        moments(date.today()),
        int(time.time()) - 3600,
        most_tasks=60 if slurm.version > (21, 0) else 4,
        has_restarts=has_restarts(slurm),
    ).rows(jobs)
    fill(slurm, made)
    return made


def moments(today: date) -> list[int]:
    """Many jobs start and end around these times: both changes of summer time, New Year, and a week ago."""
    first = today - timedelta(days=420)
    days = [first + timedelta(days=number) for number in range(380)]
    noons = [int(time.mktime((*day.timetuple()[:3], 12, 0, 0, 0, 0, -1))) for day in days]
    changes = [noon for noon, after in zip(noons, noons[1:]) if after - noon != 24 * 3600]
    return [*changes, int(datetime(today.year, 1, 1).timestamp()), noons[0], noons[-1]]


def test_by_flush_alone(slurm: Slurm, rows: list[Row], tmp_path: Path, zone: str, seed: int) -> None:
    """Flush delivers every ended job, except the first owner of a reused JobID and jobs that slurmctld has lost.

    With half of the seeds it queries them by ID, with the others it finds them by End.
    """
    owner_of: dict[int, int] = {}
    for row in rows:
        owner_of[row.id_job] = max(owner_of.get(row.id_job, 0), row.job_name)
    lost = {row.job_name for row in newest_rows(rows) if row.state == REQUEUED}
    expected = expected_stored(slurm, is_shown=lambda id_job, name: owner_of[id_job] == name and name not in lost)
    assert len(expected) > len(rows) / 4
    ended = [row for row in rows if row.time_end]
    with ReceivingDashboard() as dashboard:
        Site(tmp_path / "site", slurm.env, dashboard, zone).flush(ended, walking=seed % 2 == 1)
        assert [] == differences(dashboard.stored, expected, rows)


def test_by_flush_and_reconcile_in_any_order(
    slurm: Slurm, rows: list[Row], tmp_path: Path, zone: str, seed: int
) -> None:
    """In any order and with any repeats, every job has finally arrived.

    Half of the seeds have a ledger that remembers a week, the default: then the second owner of a JobID is shown if
    the days are replayed in order. With one that remembers a year, any order works.
    """
    expected = expected_stored(slurm)
    dice = random.Random(seed)
    remembered = LONGEST_WINDOW if seed % 2 else 7
    with ReceivingDashboard() as dashboard:
        site = Site(tmp_path / "site", slurm.env, dashboard, zone, collection_window_days=remembered)
        for step in shuffled_steps(dice, site, rows):
            step()
        ranges = ranges_of(dice, rows, in_order=remembered < LONGEST_WINDOW)
        for first, last in ranges:
            site.reconcile(first, last)
        assert [] == differences(dashboard.stored, expected, rows)
        posts = len(dashboard.posts)
        for first, last in ranges:
            site.reconcile(first, last, "--only-missing")
        assert [] == differences(dashboard.stored, expected, rows)
        since = str(date.today() - timedelta(days=remembered))
        again = [job for post in dashboard.posts[posts:] for job in post.jobs if job["End"] > since]
        assert [] == again


def newest_rows(rows: list[Row]) -> list[Row]:
    """The row of each job that was submitted last."""
    return list({row.job_name: row for row in sorted(rows, key=lambda row: row.time_submit)}.values())


def ranges_of(dice: random.Random, rows: list[Row], *, in_order: bool) -> list[tuple[date, date]]:
    """All days on which a job ended, sometimes as one range, which includes hundreds of empty days."""
    if dice.random() < 0.2:
        return [(date.today() - REACH, date.today())]
    found = spans(rows)
    return found if in_order else dice.sample(found, len(found))


def shuffled_steps(dice: random.Random, site: Site, rows: list[Row]) -> Iterator[Callable[[], None]]:
    """Flushes of some jobs and reconciles of some ranges, in random order, some of them twice."""
    ended = [row for row in rows if row.time_end]
    for _ in range(4):
        some = dice.sample(ended, len(ended) // 5)
        first = date.fromtimestamp(dice.choice(ended).time_end) - timedelta(days=dice.randint(0, 10))
        last = first + timedelta(days=dice.randint(0, 20))
        options = dice.choice([[], ["--only-missing"]])
        steps = [partial(site.flush, some, walking=dice.random() < 0.5), partial(site.reconcile, first, last, *options)]
        yield from dice.choices(steps, k=2)
