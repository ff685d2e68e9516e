"""The nine defects of the earlier exporter, each with a test that fails if it returns."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any, Callable

import pytest

from agent.errors import ExporterError, SlurmUnreachable
from agent.jobs.job import own_runs
from agent.jobs.record import make_record
from agent.jobs.run import Run
from agent.localtime import Range
from agent.slurm.complaints import count_lines
from agent.slurm.process import Output
from agent.slurm.row import FIELDS, parse_tres
from agent.slurm.sacct_argv import make_sacct_argv, make_window_selection
from agent.slurm.scontrol import Scontrol
from agent.slurm.table import Table
from agent.spool.ledger import open_ledger
from agent.sync.delivery import Delivery
from agent.sync.pipeline import Pipeline
from agent.sync.prepare import Settings
from agent.sync.reconcile import Reconcile
from agent.sync.window import window
from tests.support.memory import MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, SEPARATOR, make_output, make_run, make_values
from tests.support.snapshots import make_config

DAY = 86_400
WEEK = Range(NOON - 7 * DAY, NOON)


def payload(*runs: Run) -> dict[str, Any]:
    return dict(json.loads(make_record(own_runs(runs), "lab").text))


def replay(folder: Path, *runs: Run, batch_size: int = 100) -> MemoryDashboard:
    """What a dashboard has received after a reconcile of a week."""
    ledger, _ = open_ledger(folder / "ledger.db")
    dashboard = MemoryDashboard()
    delivery = Delivery(dashboard, ledger, "lab", command="reconcile", batch_size=batch_size, clock=lambda: NOON)
    settings = Settings("lab", "sum", skip_never_started=False, retry_max_age_seconds=7.0 * DAY)
    slurm: Any = MemorySlurm(*runs)
    Reconcile(Pipeline(ledger, slurm, delivery, settings, alive=lambda raw_ids: {}, clock=lambda: NOON)).run(WEEK)
    ledger.close()
    return dashboard


def test_1_the_last_day_is_not_lost(zone: Callable[[str], None]) -> None:
    """--end-date names a day that belongs to the range to its last second; without one, today does."""
    zone("UTC")
    now = datetime(2024, 5, 10, 15, tzinfo=timezone.utc).timestamp()
    ends = [window(7, None, last, now).end for last in (date(2024, 5, 9), None)]
    assert [datetime(2024, 5, 9, 23, 59, 59, tzinfo=timezone.utc).timestamp(), now] == ends


def test_2_a_job_longer_than_the_window_is_not_lost(tmp_path: Path) -> None:
    """Jobs are chosen by their end: one that was submitted two months before the window is there."""
    start = NOON - 30 * DAY
    long = make_run(Submit=str(NOON - 60 * DAY), Start=str(start), End=str(NOON - DAY), ElapsedRaw=str(29 * DAY))
    dashboard = replay(tmp_path, long)
    assert [29 * 24.0 * 8] == [json.loads(text)["CPUHours"] for batch in dashboard.batches for text in batch]


@pytest.mark.parametrize("start", ["None", "Unknown", ""])
def test_3_no_text_is_sent_instead_of_a_time(start: str, zone: Callable[[str], None]) -> None:
    """A job that never started has Start = End; one without End is not sent."""
    zone("UTC")
    record = payload(make_run(State="CANCELLED by 1000", Start=start, ElapsedRaw="0", NodeList="None assigned"))
    assert record["Start"] == record["End"] == "2023-11-14T23:14:20"
    assert not make_run(State="COMPLETED", End="Unknown").ended


def test_4_steps_are_not_requested_and_no_job_is_dropped() -> None:
    """sacct is asked to leave steps out, so that an empty User can mean a deleted user: the uid is sent instead."""
    assert "--allocations" in make_sacct_argv("sacct", FIELDS, separator="|")
    assert "1000" == payload(make_run(User=""))["User"]


def test_5_every_run_of_a_requeued_or_resized_job_counts() -> None:
    """sacct is asked to show all runs of a JobID, and all of them count."""
    first, again = str(NOON + 3660), str(NOON + 7320)
    runs = [make_run(State=state) for state in ("REQUEUED", "RESIZING")]
    later = make_run(Submit=first, Start=str(NOON + 3720), End=again)
    assert "--duplicates" in make_sacct_argv("sacct", FIELDS, separator="|")
    assert [16.0, 16.0] == [payload(run, later)["CPUHours"] for run in runs]


def test_6_nodes_are_counted_by_slurm() -> None:
    """n[1-4] are four nodes, and "None assigned" is not a node."""
    never = {"State": "CANCELLED by 0", "Start": "None", "ElapsedRaw": "0", "NodeList": "None assigned"}
    records = [payload(make_run(NodeList="n[1-4]", AllocNodes="4")), payload(make_run(AllocNodes="1", **never))]
    assert [(4, "n1,n2,n3,n4"), (0, "")] == [(record["AllocNodes"], record["NodeList"]) for record in records]


@pytest.mark.parametrize(
    ("tres", "gpus", "memory_mb"),
    [
        ("cpu=8,gres/gpumem=40G,gres/gpuutil=95,mem=40G", 0, 40 * 1024),
        ("cpu=8,gres/gpu:a100=2,gres/gpu:h100=1", 3, 0),
        ("cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=1.50T", 2, 1.5 * 1024 * 1024),
    ],
)
def test_7_tres_are_matched_by_their_whole_names(tres: str, gpus: int, memory_mb: float) -> None:
    """gres/gpumem does not count as a GPU, types are added up, and units are understood."""
    assert (gpus, memory_mb) == parse_tres(tres)


def test_8_an_odd_line_is_skipped() -> None:
    """An unreadable line is reported and skipped; the others are delivered."""
    complaints: list[ExporterError] = []
    output = BytesIO(make_output(["odd"], make_values(), ["x"]))
    answer = Table(output, FIELDS, SEPARATOR, lines=3, check_cluster=lambda name: None, complain=complaints.append)
    assert (["100"], 2) == ([run.job_id for run in answer], len(complaints))


def test_8_an_empty_output_is_not_an_answer() -> None:
    """Empty output is a failure, never a week without jobs."""
    with pytest.raises(SlurmUnreachable):
        count_lines(Output(0, BytesIO(), ""), "JobID", frozenset())


def test_8_the_size_of_a_post_is_limited(tmp_path: Path) -> None:
    """However many jobs there are, no POST holds more than batch_size of them."""
    runs = [make_run(JobID=str(job), JobIDRaw=str(job), End=str(NOON - DAY)) for job in range(1, 26)]
    assert [10, 10, 5] == [len(batch) for batch in replay(tmp_path, *runs, batch_size=10).batches]


def test_9_the_clusters_name_is_not_guessed(tmp_path: Path) -> None:
    """If Slurm does not report its cluster's name, that is an error: the host's name is not a cluster."""
    slurm = Scontrol(make_config(scontrol=str(tmp_path / "scontrol")), {})
    with pytest.raises(SlurmUnreachable):
        slurm.controllers()


def test_windows_have_both_bounds() -> None:
    """With states and no end, sacct answers for a single instant."""
    selection = make_window_selection(NOON, NOON + DAY)
    assert [f"--starttime=uts{NOON}", f"--endtime=uts{NOON + DAY}"] == list(selection[1:])
