"""Compares Slurm's own report of usage with the dashboard, and computes what sreport counts differently."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.proof.histories import PENDING, REVOKED, RUNNING, SUSPENDED, Histories, Row, gpu_mixes
from tests.proof.jobtable import ACCOUNTS, Gpus, fill, gpu_ids, has_restarts, owners
from tests.proof.site import Site, spans
from tests.support.dashboard import ReceivingDashboard
from tests.support.slurm import Slurm
from tests.support.sreport import read_sreport, usage_shown

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

HOUR, DAY = 3600, 86_400
#: sreport's names of the GPUs, if the generic TRES is tracked and if only its types are.
TRACKED = {"gpu": ["gres/gpu"], "types alone": ["gres/gpu:a100", "gres/gpu:h100"]}


@pytest.mark.parametrize("tracked", TRACKED)
def test_totals(slurm: Slurm, tmp_path: Path, *, zone: str, seed: int, jobs: int, tracked: str) -> None:
    """CPU- and GPU-seconds of each user in each account agree to the second, where sreport counts the same.

    It also counts jobs that still run, wait to run again, or ran elsewhere in a federation, and a suspended job's
    GPUs. It does not count jobs, or early runs of them, without an association.
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
        shown = usage_shown(dashboard.stored.values(), ACCOUNTS)
    assert len(reported) == 8  # two users, two accounts, CPUs and GPUs
    assert reported == shown + usage_besides(slurm, rows, gpus, end)


def _hours(first: int, last: int) -> tuple[int, int]:
    """The range extended to full hours, sreport's unit."""
    return first // HOUR * HOUR, last // HOUR * HOUR + HOUR


def usage_besides(slurm: Slurm, rows: list[Row], gpus: Gpus, end: int) -> Counter[tuple[str, str, str]]:
    """What sreport counts and the dashboard does not, up to ``end``; negative if the dashboard counts more.

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
        seconds = max((row.time_end or end) - row.time_start, 0)  # a live job may start after the last end
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
    """The row that the dashboard shows for a job, by the job's name, without live and REVOKED jobs."""
    here = (row for row in sorted(rows, key=lambda row: row.time_submit) if row.state != REVOKED)
    newest = {row.job_name: row for row in here}
    return {name: row for name, row in newest.items() if row.state not in {PENDING, RUNNING, SUSPENDED}}
