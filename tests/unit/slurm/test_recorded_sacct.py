"""What four real Slurms printed, through all of the pure code. tests/data/README.md explains the files."""

from __future__ import annotations

import json
import math
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any, Callable

import pytest

from agent.errors import ExporterError, SlurmUnreachable
from agent.jobs.finality import Stage, stage_by_slurmctld
from agent.jobs.job import own_runs
from agent.jobs.queue_verdict import Fate, judge_doubtful, judge_entry
from agent.jobs.record import make_record
from agent.jobs.run import Run
from agent.slurm.complaints import count_lines
from agent.slurm.process import Output
from agent.slurm.table import Table
from agent.spool.queue import Queue
from tests.support.accounting import unfold_nodes
from tests.support.rows import SEPARATOR

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data"
VERSIONS = sorted(folder.name for folder in (DATA / "sacct").iterdir())
SCENARIOS = sorted(file.stem for file in (DATA / "hook" / VERSIONS[0]).glob("*.jsonl"))
#: Files that were recorded before the jobs had ended.
UNFINISHED = sorted(
    file.stem
    for file in (DATA / "sacct" / VERSIONS[0]).glob("*.txt")
    if file.stem not in {*SCENARIOS, "ended_window", "plain_window"}
)
LONG_AFTER = 10**5
#: sacct of 20.11 shows a Start for a run that has none in the table: one that was cancelled after its prolog failed, in
#: the row of its first run, looks like a run of no seconds on the node.
NO_START_TOLD = ("20.11.4", "prolog_failed")
TOLD_BY_START = ("NodeList", "AllocCPUS", "AllocNodes", "AllocMemoryMB")


@pytest.fixture(autouse=True)
def _recorded_zone(zone: Callable[[str], None]) -> None:
    zone("UTC")


def read_answer(output: Output) -> list[Run]:
    """The rows of an answer, of which none may be unreadable."""
    complaints: list[ExporterError] = []
    header = output.text.partition("\n")[0]
    output.stdout.seek(0)
    lines = count_lines(output, header, frozenset())
    table = Table(
        output.stdout,
        header.split(SEPARATOR),
        SEPARATOR,
        lines=lines,
        check_cluster=lambda name: None,
        complain=complaints.append,
    )
    runs = list(table)
    assert complaints == []
    return runs


def recorded(version: str, name: str) -> list[Run]:
    return read_answer(Output(0, BytesIO((DATA / "sacct" / version / f"{name}.txt").read_bytes()), ""))


def by_raw_id(runs: list[Run]) -> dict[int, list[Run]]:
    rows: dict[int, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.raw_id, []).append(run)
    return rows


def made(runs: list[Run], requeued_runs: str = "sum") -> dict[str, dict[str, Any]]:
    """The records of all jobs among some rows that have ended and will not run again."""
    jobs = [own_runs(rows) for rows in by_raw_id(runs).values()]
    records = (
        make_record(job, "lab", requeued_runs=requeued_runs)
        for job in jobs
        if stage_by_slurmctld(job, math.inf, None) is Stage.FINAL
    )
    return {record.job_id: json.loads(record.text) for record in records}


def expected(version: str) -> dict[str, dict[str, Any]]:
    """What plain SQL over the job table said. 20.11 cuts a long list of tasks at 32 characters."""
    records = json.loads((DATA / "sacct" / version / "expected.json").read_text())
    return {
        record["JobID"]: {**record, "NodeList": unfold_nodes(record["NodeList"] or "")}  # in the format of the table
        for record in records
    }


def without_brackets(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same with JobIDs such as 114_[3,5,7 as 114_[: how the list of tasks is written is not sacct's alone."""
    cut = {job_id: job_id.partition("[")[0] + "[" * ("[" in job_id) for job_id in records}
    return {cut[job_id]: {**record, "JobID": cut[job_id]} for job_id, record in records.items()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "reused"])
def test_records_are_those_of_the_job_table(version: str, scenario: str) -> None:
    """sacct's rows of any scenario become, field by field, what plain SQL says of the same jobs."""
    records = without_brackets(made(recorded(version, scenario)))
    wanted = without_brackets(expected(version))
    if (version, scenario) == NO_START_TOLD:
        for record in [*records.values(), *wanted.values()]:
            record.update(dict.fromkeys(TOLD_BY_START))
    assert records
    assert {job_id: wanted[job_id] for job_id in records} == records


@pytest.mark.parametrize("version", VERSIONS)
def test_a_long_list_of_array_tasks(version: str) -> None:
    """With SLURM_BITSTR_LEN=0 the JobID of some eighty cancelled tasks is whole; 20.11 knows no such variable."""
    [job_id] = [run.job_id for run in recorded(version, "array_cut_short") if "[" in run.job_id]
    assert job_id.endswith("293,296,299%1]") or version.startswith("20.11")
    assert len(job_id) == (33 if version.startswith("20.11") else 284)


@pytest.mark.parametrize("version", VERSIONS)
def test_two_partitions_of_a_job_that_never_started(version: str) -> None:
    """Whatever Slurm shows of what the job had asked for, the record has no CPU, no node and Start = End."""
    [record] = made(recorded(version, "cancelled_held")).values()
    assert record["Partition"] == ("cpu" if version < "23" else "cpu,wide")
    assert [0, 0, ""] == [record[name] for name in ("AllocCPUS", "AllocNodes", "NodeList")]
    assert record["Start"] == record["End"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_window_holds_every_job_that_ended(version: str) -> None:
    """Asked by states and both bounds, sacct answers with the rows that ended, those cancelled while held included."""
    chosen, plain = (
        {(run.raw_id, run.submit) for run in recorded(version, name) if run.ended}
        for name in ("ended_window", "plain_window")
    )
    scenarios = {
        (run.raw_id, run.submit)
        for name in SCENARIOS
        if name != "reused"
        for run in recorded(version, name)
        if run.ended
    }
    held = {(run.raw_id, run.submit) for run in recorded(version, "cancelled_held")}
    assert scenarios <= chosen
    assert held <= chosen
    assert not held & plain


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", UNFINISHED)
def test_nothing_is_sent_of_a_job_that_continues(version: str, name: str) -> None:
    """A job that is pending again, running again, suspended or resized is held, whatever its earlier rows say."""
    if (DATA / "sacct" / version / f"{name}.txt").exists():
        assert made(recorded(version, name)) == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_hook_alone_queues_every_job(tmp_path: Path, version: str, scenario: str) -> None:
    """Fed with the environments that slurmctld gave it, the hook's lines lead to each job's record, and no other."""
    calls = [json.loads(line) for line in (DATA / "hook" / version / f"{scenario}.jsonl").read_text().splitlines()]
    for call in calls:
        if "JOBID" in call:
            env = {**call, "SLURM_USAGE_HISTORY_SPOOL": str(tmp_path)}
            subprocess.run([str(ROOT / "hooks" / "jobcomp.sh")], check=True, env=env)
    rows = by_raw_id(recorded(version, scenario))
    now = max(run.end or run.submit for runs in rows.values() for run in runs) + LONG_AFTER
    queue = Queue(tmp_path, complain=lambda error: pytest.fail(str(error)))
    judged = [judge_entry(entry, rows[entry.job_id], now) for entry in queue.read(queue.claim())]
    verdicts = [
        judge_doubtful(reported, now, {}) if reported.fate is Fate.ASK_SLURMCTLD else reported for reported in judged
    ]
    sent = {verdict.runs[-1].job_id for verdict in verdicts if verdict.fate is Fate.SEND}
    assert {verdict.fate for verdict in verdicts} == {Fate.SEND}
    assert sent == set(made(recorded(version, scenario)))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reused_id_belongs_to_the_new_job(version: str) -> None:
    """After slurmctld lost its state, a JobID's record is the new owner's; the old rows, live or requeued, are left."""
    rows = by_raw_id(recorded(version, "reused"))
    own = [own_runs(runs) for runs in rows.values()]
    assert [["bob"]] * 3 == [[run.user for run in runs] for runs in own]
    assert all(len(runs) > 1 for runs in rows.values())


SUMMED = ["requeued", "requeued_completed", "preempted_requeued", "resized"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SUMMED)
def test_every_row_of_a_job_counts(version: str, scenario: str) -> None:
    """The CPU-hours of a requeued or resized job are those of both its rows."""
    rows = recorded(version, scenario)
    seconds = sum(run.elapsed_seconds * run.cpus for run in rows)
    [record] = made(rows).values()
    assert len(rows) == 2
    assert record["CPUHours"] == seconds / 3600


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", ["requeued", "requeued_completed", "preempted_requeued"])
def test_the_last_run_alone(version: str, scenario: str) -> None:
    """With requeued_runs = "last" the hours are those of the last run."""
    rows = recorded(version, scenario)
    [record] = made(rows, "last").values()
    assert record["CPUHours"] == rows[-1].elapsed_seconds * rows[-1].cpus / 3600


@pytest.mark.parametrize("version", VERSIONS)
def test_the_users_of_jobs_that_no_longer_resolve(version: str) -> None:
    """A user with an association keeps the name; one without is the uid, in no account."""
    records = made(recorded(version, "user_gone")).values()
    assert [("carol", "physics"), ("2004", "unknown")] == [(record["User"], record["Account"]) for record in records]


@pytest.mark.parametrize("version", VERSIONS)
def test_gpus_of_one_type_of_two_of_any_and_none(version: str) -> None:
    """GPUs are counted once, however they were requested and are written."""
    assert [2, 2, 1, 0] == [record["AllocGPUS"] for record in made(recorded(version, "gpus")).values()]


@pytest.mark.parametrize("version", VERSIONS)
def test_memory_with_its_units(version: str) -> None:
    """600 MB, three times 300 MB, and 40 GB."""
    assert [600, 900, 40960] == [record["AllocMemoryMB"] for record in made(recorded(version, "memory")).values()]


REFUSED = ["no_id", "no_such_field", "no_such_state", "no_slurmdbd", "no_mariadb"]
EMPTY = ["no_such_id", "no_such_cluster"]


def failure(version: str, name: str) -> Output:
    reported = json.loads((DATA / "sacct" / version / f"failure_{name}.json").read_text())
    return Output(reported["returncode"], BytesIO(reported["stdout"].encode()), reported["stderr"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_failed_query_is_not_an_answer(version: str, name: str) -> None:
    """If slurmdbd or MariaDB is down, or an argument is invalid, that never looks like a day without jobs."""
    with pytest.raises(SlurmUnreachable):
        read_answer(failure(version, name))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", EMPTY)
def test_an_answer_without_rows_is_valid(version: str, name: str) -> None:
    """For an ID that does not exist yet sacct prints only the header; likewise for a cluster that does not exist."""
    assert read_answer(failure(version, name)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_without_rights_sacct_shows_only_the_users_own_jobs_and_no_error(version: str) -> None:
    """With PrivateData=jobs other users' jobs are missing with exit status 0: why `check` looks at the rights."""
    output = failure(version, "private_data")
    assert {"bob"} == {run.user for run in read_answer(output)}
    assert (0, "") == (output.returncode, output.stderr)
