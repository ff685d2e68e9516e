"""The proof: thousands of random histories in a real accounting database reach the dashboard exactly as SQL reads them.

``PROOF_SEEDS=40 PROOF_JOBS=5000`` makes it a long one.
"""

from __future__ import annotations

import os
import random
import sys
import time
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.proof.histories import NO_TASK, Histories, Owner, Row
from tests.support.accounting import expected_stored
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

SEEDS = int(os.environ.get("PROOF_SEEDS", "2"))
JOBS = int(os.environ.get("PROOF_JOBS", "400"))
ZONES = ("Europe/Berlin", "America/St_Johns", "UTC")
ZONEINFO = Path("/usr/share/zoneinfo")
INSERTED_AT_ONCE = 500
GONE_UID = 4_000_001


class ZonedExporter(Exporter):
    """The exporter on a host of another time zone: it sees another /etc/localtime, in a mount namespace of its own."""

    zone = "UTC"

    def argv(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "agent", "--config", str(self.config), *arguments]
        if not (ZONEINFO / self.zone).exists():
            return command
        localtime = Path("/etc/localtime").resolve()
        return [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'mount --bind {ZONEINFO / self.zone} {localtime} && exec "$@"',
            "sh",
            *command,
        ]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with Slurm(nodes=1) as lab:
        lab.sacctmgr("add", "account", "physics,astro", "Organization=lab", "Description=lab")
        lab.sacctmgr("add", "user", "nobody,games", "account=physics,astro")
        yield lab


@pytest.fixture
def zone(seed: int) -> Iterator[str]:
    """The zone of the host, for this process too: the records that SQL leads to are in its wall clock."""
    name = ZONES[seed % len(ZONES)]
    os.environ["TZ"] = name
    time.tzset()
    yield name
    del os.environ["TZ"]
    time.tzset()


def owners(slurm: Slurm) -> list[Owner]:
    """Users with an association, one of whom the host does not know, and a uid without any."""
    members = slurm.sql(
        f"select id_assoc, acct, user from {slurm.cluster}_assoc_table where user in ('nobody', 'games')"
    )
    uids = {"nobody": 65534, "games": 5}
    known = [Owner(row["acct"], uids[row["user"]], int(row["id_assoc"])) for row in members]
    return [*known, known[0]._replace(id_user=GONE_UID), Owner(None, GONE_UID, 0)]


def moments(today: date) -> list[int]:
    """Around these many jobs begin and end: both changes of summer time, new year, and a week ago."""
    first = today - timedelta(days=420)
    days = [first + timedelta(days=number) for number in range(380)]
    noons = [int(time.mktime((*day.timetuple()[:3], 12, 0, 0, 0, 0, -1))) for day in days]
    changes = [noon for noon, after in zip(noons, noons[1:]) if after - noon != 24 * 3600]
    return [*changes, int(datetime(today.year, 1, 1).timestamp()), noons[0], noons[-1]]


def fill(slurm: Slurm, rows: list[Row]) -> None:
    """Puts rows in the place of all that are in the job table."""
    table = f"{slurm.cluster}_job_table"
    fixed = {
        "cpus_req": 1,
        "id_qos": 1,
        "id_resv": 0,
        "id_wckey": 0,
        "id_group": 0,
        "state_reason_prev": 0,
        "priority": 1,
        **({"track_steps": 0} if slurm.version < (21, 0) else {}),  # a column of 20.11 without a default
    }
    names = [f"`{name}`" for name in (*Row._fields, *fixed, "mod_time", "time_eligible", "tres_req", "node_inx")]
    slurm.sql(f"truncate table {table}")
    for start in range(0, len(rows), INSERTED_AT_ONCE):
        values = (_values(row, fixed) for row in rows[start : start + INSERTED_AT_ONCE])
        slurm.sql(f"insert into {table} ({','.join(names)}) values {','.join(values)}")


def _values(row: Row, fixed: dict[str, int]) -> str:
    eligible = row.time_submit
    texts = [
        *map(_quoted, row),
        *map(str, fixed.values()),
        str(row.time_end or eligible),
        str(eligible),
        "'1=1'",
        "'0'",
    ]
    return f"({','.join(texts)})"


def _quoted(value: Any) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, int) else f"'{value}'"


def queue_line(row: Row) -> str:
    """What the hook writes when this row ends."""
    task = row.id_array_task if row.id_array_job == row.id_job and row.id_array_task != NO_TASK else "-"
    return f"\n{row.id_job} {row.time_submit} {row.time_end} {task}\n"


class Site:
    """An accounting database full of histories, an exporter and a dashboard."""

    def __init__(self, slurm: Slurm, folder: Path, dashboard: ReceivingDashboard, zone: str) -> None:
        self.dashboard = dashboard
        self.spool = folder / "spool"
        self.spool.mkdir()
        env = {**slurm.env, "SLURM_USAGE_HISTORY_SPOOL": str(self.spool)}
        self.exporter = ZonedExporter(folder, env, api_url=dashboard.url, batch_size=700)
        self.exporter.zone = zone

    def flush(self, rows: list[Row]) -> None:
        """Queues the ends of some rows as the hook does, and flushes."""
        (self.spool / "queue").write_text("".join(map(queue_line, rows)))
        self.exporter.run("flush")

    def reconcile(self, first: date, last: date, *options: str) -> None:
        self.exporter.run("reconcile", "--start-date", str(first), "--end-date", str(last), *options)


def differences(shown: dict[Any, Any], expected: dict[Any, Any]) -> list[Any]:
    """The keys, with both records, where the dashboard and SQL differ."""
    return [
        (key, shown.get(key), expected.get(key))
        for key in sorted({*shown, *expected})
        if shown.get(key) != expected.get(key)
    ]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_dashboard_says_what_sql_says(slurm: Slurm, tmp_path: Path, seed: int, zone: str) -> None:
    """By flush alone every job but a reused JobID's first owner; by any order of both, with repeats, every job."""
    today = date.today()
    gpus = [
        row["id"]
        for row in slurm.sql(
            "select id from tres_table where type = 'gres' and name in ('gpu', 'gpu:a100', 'gpu:h100') order by name"
        )
    ]
    most_tasks = 60 if slurm.version > (21, 0) else 4
    histories = Histories(seed, owners(slurm), gpus, moments(today), int(time.time()) - 3600, most_tasks=most_tasks)
    rows = histories.rows(JOBS)
    fill(slurm, rows)
    expected = expected_stored(slurm)
    assert len(expected) > JOBS / 2
    with ReceivingDashboard() as dashboard:
        site = Site(slurm, tmp_path, dashboard, zone)
        site.flush([row for row in rows if row.time_end])
        owners_of: dict[int, int] = {}
        for row in rows:
            owners_of[row.id_job] = max(owners_of.get(row.id_job, 0), row.job_name)
        newest = expected_stored(slurm, is_shown=lambda id_job, name: owners_of[id_job] == name)
        assert [] == differences(dashboard.stored, newest)
    (tmp_path / "again").mkdir()
    with ReceivingDashboard() as dashboard:
        site = Site(slurm, tmp_path / "again", dashboard, zone)
        for step in shuffled_steps(random.Random(seed), site, rows, today):
            step()
        site.reconcile(today - timedelta(days=425), today)
        assert [] == differences(dashboard.stored, expected)
        before = len(dashboard.posts)
        site.reconcile(today - timedelta(days=425), today, "--only-missing")
        assert [] == differences(dashboard.stored, expected)
        assert len(dashboard.posts) >= before


def shuffled_steps(dice: random.Random, site: Site, rows: list[Row], today: date) -> Iterator[Callable[[], None]]:
    """Flushes of some jobs and reconciles of some ranges, in random order, some of them twice."""
    ended = [row for row in rows if row.time_end]
    for _ in range(4):
        some = dice.sample(ended, len(ended) // 5)
        first = today - timedelta(days=dice.randint(60, 430))
        last = first + timedelta(days=dice.randint(0, 60))
        options = dice.choice([[], ["--only-missing"]])
        steps = [partial(site.flush, some), partial(site.reconcile, first, last, *options)]
        yield from dice.choices(steps, k=2)
