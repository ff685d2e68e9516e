"""Answers of a real sacct that are hard to understand: accounts of any bytes, limited ranges, several clusters."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any, Iterator

import pytest

from agent.slurm.row import FIELDS
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter
from tests.support.slurm import Slurm

from .conftest import Site, small_site

pytestmark = pytest.mark.slurm
GUEST = pwd.getpwnam("games")  # Slurm 26.05 does not accept the user nobody
#: A complete row between line breaks: with the separator formerly used, and with other common ones.
FORGED = (
    "666",
    "666",
    "lab",
    "root",
    "0",
    "physics",
    "main",
    "COMPLETED",
    "normal",
    "1",
    "1",
    "2",
    "1",
    "9",
    "1",
    "",
    "n",
)
ACCOUNTS = (
    b"plain",
    b"a|b\x1fc",
    b"x\n" + "\x1f".join(FORGED).encode() + b"\ny",
    b"x\n" + "|".join(FORGED).encode() + b"\ny",
    b"\n\n\n",
    b"x\r\ny\ttab",
    b"\x1b[2J\x1b]0;owned\x07",
    b'it\'s "quoted" \\ \\n %s $(touch x)',
    "schön \u202e✘".encode(),
    b"\xff\xfe broken",
    b"x" * 255,
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A cluster whose users may name any account, with a job for each."""
    with small_site() as site:
        site.slurm.layout.slurm_conf.chmod(0o644)
        for account in ACCOUNTS:
            site.slurm.sbatch(f"--account={os.fsdecode(account)}")
        site.slurm.wait_until_idle()
        yield site


@pytest.fixture
def dashboard(site: Site) -> Iterator[ReceivingDashboard]:
    """An empty dashboard for each test."""
    with ReceivingDashboard() as dashboard:
        yield dashboard


def exporter_of(
    site: Site, dashboard: ReceivingDashboard, name: str, conf: Path | None = None, **settings: Any
) -> Exporter:
    """An exporter with a spool of its own, on a host with another slurm.conf."""
    folder = site.slurm.folder / name
    folder.mkdir()
    env = {**site.slurm.env, "SLURM_USAGE_HISTORY_SPOOL": str(folder / "spool")}
    if conf:
        env["SLURM_CONF"] = str(conf)
    return Exporter(folder, env, api_url=dashboard.url, **settings)


def change_conf(slurm: Slurm, name: str, *changes: tuple[str, str]) -> Path:
    """A changed copy of slurm.conf."""
    text = slurm.layout.slurm_conf.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = slurm.folder / name
    path.write_text(text)
    return path


def job_ids(site: Site) -> set[str]:
    return {row["id_job"] for row in site.slurm.sql("select id_job from lab_job_table")}


def test_accounts_of_any_bytes(site: Site, dashboard: ReceivingDashboard) -> None:
    """Each job that slurmdbd has arrives under its own JobID, none is forged, and control characters are removed."""
    done = exporter_of(site, dashboard, "accounts").run("reconcile")
    records = dashboard.records
    assert job_ids(site) == set(records)
    assert {"root"} == {record["User"] for record in records.values()}
    assert "666" not in records
    assert all(record["Account"].isprintable() for record in records.values())
    assert all(line.isprintable() for line in done.stderr.splitlines())


def test_a_limited_range(site: Site, dashboard: ReceivingDashboard) -> None:
    """slurmdbd gives a user without Operator rights 20 days at a time, and a window of 40 days still arrives."""
    slurm = site.slurm
    slurm.daemons.stop("slurmdbd")
    conf = slurm.folder / "slurmdbd.conf"
    before = conf.read_text()
    conf.write_text(f"{before}MaxQueryTimeRange=20-00:00:00\n")
    slurm.start("slurmdbd")
    try:
        tools = slurm.folder / "tools"
        tools.mkdir()
        for command in ("sacct", "sacctmgr"):
            (tools / command).write_text(f'#!/bin/sh\nexec runuser -u {GUEST.pw_name} -- {command} "$@"\n')
            (tools / command).chmod(0o755)
        exporter = exporter_of(site, dashboard, "limited", sacct=str(tools / "sacct"), collection_window_days=40)
        done = exporter.run("reconcile")
        assert "Too wide" not in done.stderr
        assert job_ids(site) == set(dashboard.records)
        exporter.run("queue", "add", *job_ids(site))
        exporter.run("flush")
        assert 0 == exporter.backlog()
    finally:
        slurm.daemons.stop("slurmdbd")
        conf.write_text(before)
        slurm.start("slurmdbd")


def test_a_first_slurmdbd_whose_name_does_not_resolve(site: Site, dashboard: ReceivingDashboard) -> None:
    """The backup slurmdbd answers, though sacct reports the primary and an odd line, and retries for 10 s a call."""
    good = next(
        line
        for line in site.slurm.layout.slurm_conf.read_text().splitlines()
        if line.startswith("AccountingStorageHost=")
    )
    backup = good.replace("StorageHost", "StorageBackupHost")
    odd = "AccountingStorageHost=nowhere.invalid\n"
    conf = change_conf(site.slurm, "backup.conf", (good, odd + backup), ("MaxArraySize=10001", "MaxArraySize=99999999"))
    exporter = exporter_of(site, dashboard, "first_dbd", conf)
    job = min(job_ids(site))
    exporter.run("queue", "add", job)
    exporter.run("flush")
    assert {job} == set(dashboard.records)


def test_slurms_cluster_and_the_dashboards_name(site: Site, dashboard: ReceivingDashboard) -> None:
    """Two clusters of one slurmdbd: each one's jobs arrive under its own name, or another unique one."""
    slurm = site.slurm
    slurm.sacctmgr("add", "cluster", "beta")
    slurm.sql("insert into beta_job_table select * from lab_job_table limit 1")
    slurm.sql("update beta_job_table set id_job = 901")
    refused = exporter_of(site, dashboard, "wrong").run("--cluster-name", "beta", "reconcile", expect=78)
    assert "these are the jobs of cluster lab, and beta is another cluster of the same slurmdbd" in refused.stderr
    assert {} == dashboard.records
    exporter_of(site, dashboard, "beta", slurm_cluster="beta").run("reconcile")
    assert {"901": "beta"} == {job: record["Cluster"] for job, record in dashboard.records.items()}
    exporter_of(site, dashboard, "shown", cluster_name="our lab").run("reconcile")
    names = {record["Cluster"] for record in dashboard.records.values()}
    assert {"beta", "our lab"} == names
    unknown = exporter_of(site, dashboard, "gamma", slurm_cluster="gamma").run("reconcile", expect=78)
    assert "slurmdbd does not know cluster gamma; it knows beta, lab" in unknown.stderr
    conf = change_conf(slurm, "gamma.conf", ("ClusterName=lab", "ClusterName=gamma"))
    exporter_of(site, dashboard, "gammas", conf, cluster_name="gamma").run("reconcile", expect=69)


def test_fields_that_a_user_writes_are_not_requested() -> None:
    """Account is what users can set freely if nothing is enforced; its row may span several lines."""
    assert not {"JobName", "Comment", "WorkDir", "SubmitLine", "WCKey", "Reason", "AdminComment"} & set(FIELDS)
