"""Slurm's own report of usage: the seconds that the dashboard shows, and those that it counts besides."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Iterable

import pytest

from tests.proof.histories import PENDING, REVOKED, RUNNING, SUSPENDED, Histories, Row, gpu_mixes
from tests.proof.jobtable import ACCOUNTS, Gpus, fill, gpu_ids, has_restarts, owners
from tests.proof.site import Site, spans
from tests.support.dashboard import ReceivingDashboard
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

HOUR, DAY = 3600, 86_400
#: The GPUs in sreport's words, where the generic TRES is tracked and where its types alone are.
TRACKED = {"gpu": ["gres/gpu"], "types alone": ["gres/gpu:a100", "gres/gpu:h100"]}


@pytest.mark.parametrize("tracked", TRACKED)
def test_totals(slurm: Slurm, tmp_path: Path, *, zone: str, seed: int, jobs: int, tracked: str) -> None:
    """CPU- and GPU-seconds of each user in each account agree to the second, where sreport counts the same.

    It counts besides: what jobs have used that run, that wait to run again, or that a federation ran elsewhere; and a
    suspended job's GPUs. It does not count: jobs, or early runs of them, without an association.
    """
    gpus = gpu_ids(slurm)
    mixes = [mix for mix in gpu_mixes(*gpus) if not mix or (f",{gpus.generic}=" in mix) == (tracked == "gpu")]
    rows = Histories(
        seed,
        owners(slurm),
        mixes,
        [int(time.time()) - 60 * DAY],
        int(time.time()) - HOUR,
        most_tasks=4,
        has_restarts=has_restarts(slurm),
    ).rows(jobs)
    fill(slurm, rows)
    first, end = _hours(min(row.time_submit or row.time_start for row in rows), max(row.time_end for row in rows))
    reported = read_sreport(slurm, first, end, TRACKED[tracked])
    with ReceivingDashboard() as dashboard:
        site = Site(tmp_path / "site", slurm.env, dashboard, zone)
        for days in spans(rows):
            site.reconcile(*days)
        shown = usage_shown(dashboard.stored.values())
    assert len(reported) == 8  # two users, two accounts, CPUs and GPUs
    assert reported == shown + usage_besides(slurm, rows, gpus, end)


def _hours(first: int, last: int) -> tuple[int, int]:
    """Whole hours around: sreport knows no smaller ones."""
    return first // HOUR * HOUR, last // HOUR * HOUR + HOUR


def read_sreport(slurm: Slurm, first: int, end: int, gpus: list[str]) -> Counter[tuple[str, str, str]]:
    """(account, user, cpu or gpu) → seconds, after slurmdbd has added up the hours once more.

    sreport says nothing of hours before the cluster's registration, so that this is moved back.
    """
    kinds = [f"{kind}_{span}" for kind in ("assoc_usage", "usage") for span in ("hour", "day", "month")]
    slurm.sql("".join(f"truncate table {slurm.cluster}_{kind}_table;" for kind in kinds))
    slurm.sql(f"update {slurm.cluster}_event_table set time_start = {first - DAY} where node_name = ''")
    slurm.sacctmgr("rollup", f"uts{first}", f"uts{end}")
    report = ("cluster", "AccountUtilizationByUser", f"start=uts{first}", f"end=uts{end}")
    columns = "format=Accounts,Login,TRESName,Used"
    text = slurm.run("sreport", "-n", "-P", "-t", "Seconds", "-T", ",".join(["cpu", *gpus]), *report, columns)
    usage: Counter[tuple[str, str, str]] = Counter()
    for account, user, tres, seconds in (line.split("|") for line in text.splitlines()):
        if user:  # without one it is the account's sum
            usage[account, user, "cpu" if tres == "cpu" else "gpu"] += int(seconds)
    return +usage


def usage_shown(records: Iterable[dict[str, Any]]) -> Counter[tuple[str, str, str]]:
    """The same of the dashboard's records, but for those without an association."""
    usage: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        if record["Account"] in ACCOUNTS:
            usage[record["Account"], record["User"], "cpu"] += round(record["CPUHours"] * HOUR)
            usage[record["Account"], record["User"], "gpu"] += round(record["GPUHours"] * HOUR)
    return +usage


def usage_besides(slurm: Slurm, rows: list[Row], gpus: Gpus, end: int) -> Counter[tuple[str, str, str]]:
    """What sreport counts and the dashboard does not, up to ``end``: less than nothing where it is the other way round.

    sreport counts each run under its own association, the dashboard all of them under the newest one's.
    """
    members = slurm.sql(f"select id_assoc, acct, user from {slurm.cluster}_assoc_table where user != ''")
    names = {int(row["id_assoc"]): (row["acct"], row["user"]) for row in members}
    shown_as = newest_here(rows)
    usage: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        if not row.tres_alloc:
            continue
        tres = {number: int(count) for number, count in (pair.split("=") for pair in row.tres_alloc.split(","))}
        cards = tres.get(gpus.generic, tres.get(gpus.a100, 0) + tres.get(gpus.h100, 0))
        seconds = max((row.time_end or end) - row.time_start, 0)  # a live one may start behind the last end
        ran = seconds - row.time_suspended
        if row.id_assoc in names:
            account, user = names[row.id_assoc]
            usage[account, user, "cpu"] += ran * tres["1"]
            usage[account, user, "gpu"] += seconds * cards
        job = shown_as.get(row.job_name)
        if row.state != REVOKED and job and job.id_assoc in names:
            account, user = names[job.id_assoc]
            usage[account, user, "cpu"] -= ran * tres["1"]
            usage[account, user, "gpu"] -= ran * cards
    return usage


def newest_here(rows: list[Row]) -> dict[int, Row]:
    """Under which row the dashboard has a job, by its name; jobs that are alive, or ran elsewhere alone, left out."""
    here = (row for row in sorted(rows, key=lambda row: row.time_submit) if row.state != REVOKED)
    newest = {row.job_name: row for row in here}
    return {name: row for name, row in newest.items() if row.state not in {PENDING, RUNNING, SUSPENDED}}
