"""The runs of a JobID become one job, and that one record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.jobs.finality import Stage, stage
from agent.jobs.job import LOOKBACK_SECONDS, ever_started, own_runs, runs_with
from agent.jobs.record import make_record, usage
from agent.jobs.run import Run
from tests.support.rows import NOON, make_run


def make_requeue(first_state: str = "REQUEUED", gap: int = 0, **second: str) -> list[Run]:
    """Two runs of 1,000 s and 500 s; the second is submitted ``gap`` seconds after the first one's end."""
    first = make_run(State=first_state, Start=str(NOON), End=str(NOON + 1000), ElapsedRaw="1000", AllocCPUS="4")
    submit = NOON + 1000 + gap
    values = {"Submit": str(submit), "Start": str(submit + 10), "End": str(submit + 510), "ElapsedRaw": "500"}
    return [first, make_run(**{**values, "AllocCPUS": "2", **second})]


def payload_of(runs: list[Run]) -> dict[str, Any]:
    """The fields of a job's record."""
    payload: dict[str, Any] = json.loads(make_record(runs, "lab").text)
    return payload


@pytest.mark.parametrize("gap", [0, 1, 601, 1800, 120 * 86_400, 300 * 86_400])
@pytest.mark.parametrize("state", ["REQUEUED", "RESIZING", "PREEMPTED", "NODE_FAIL"])
def test_runs_of_a_requeued_job_belong_together(state: str, gap: int) -> None:
    """This holds however late COMPLETING or a hold ends, as with a slow Epilog, a hung node or an admin."""
    runs = make_requeue(state, gap)
    assert runs == own_runs(reversed(runs))


def test_a_run_older_than_the_lookback_is_omitted() -> None:
    """So flush, which sees it by the job's ID, and reconcile, which does not, send the same."""
    runs = make_requeue(gap=LOOKBACK_SECONDS)
    assert runs[1:] == own_runs(runs)


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_was_not_requeued_and_whose_id_was_reused(state: str) -> None:
    """If Restarts shows that a row is a job's first, it is another job; so is a task of another array."""
    reused = [make_requeue(state, 3600, Restarts="0")[1], make_requeue(state, 3600)[0]._replace(restarts=1)]
    task = make_requeue(state, 3600, JobID="98_3")
    assert (reused[:1], task[1:]) == (own_runs(reused), own_runs(task))


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_rows_from_before_slurmdbd_counted_restarts(state: str) -> None:
    """After an upgrade to 24.11 the older rows have Restarts 0, all of them."""
    first, last = make_requeue(state, 3600, Restarts="0")
    runs = [first._replace(restarts=0), last]
    assert runs == own_runs(runs)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"])
def test_a_reused_id_is_another_job(state: str) -> None:
    """After any other end, a newer row of the same JobID is another job, however soon it comes."""
    runs = make_requeue(state, gap=5)
    assert runs[1:] == own_runs(runs)


def test_a_requeue_after_the_end_where_slurm_counts_restarts() -> None:
    """From 26.05 a job requeued after its end leaves a COMPLETED row; Restarts distinguishes it from a reused JobID."""
    again, reused = make_requeue("COMPLETED", 200, Restarts="1"), make_requeue("COMPLETED", 200, Restarts="0")
    assert (again, reused[1:]) == (own_runs(again), own_runs(reused))


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_requeue_that_a_killed_slurmctld_forgot(state: str) -> None:
    """Its row is never finished. The job ran on under the previous Submit, and ended after that of the requeue."""
    ended, requeue = make_requeue("COMPLETED", gap=-500, State=state, End="Unknown")
    assert [ended] == own_runs([ended, requeue])


def test_the_forgotten_requeue_does_not_hide_the_job_from_reconcile() -> None:
    """Restarts is higher in the row that is never finished, which would continue the job."""
    ended, requeue = make_requeue("COMPLETED", gap=-500, State="PENDING", End="Unknown", Restarts="1")
    assert [ended] == runs_with(ended, [requeue])


def test_a_reused_id_whose_job_is_running_is_another_job() -> None:
    """It was submitted after the end of the earlier owner, perhaps in the same second."""
    _, running = runs = make_requeue("COMPLETED", State="RUNNING", End="Unknown")
    assert [running] == own_runs(runs)


def test_another_users_requeued_job_is_not_mixed_in() -> None:
    """A JobID reused after slurmctld lost its state does not inherit a stranger's requeued run."""
    runs = make_requeue(UID="1001")
    assert runs[1:] == own_runs(runs)


#: What 22.05 has of a run whose slurmctld was killed before it reported the start: the row is root's.
HALF_WRITTEN = {"User": "root", "UID": "0", "Account": "", "Partition": "", "QOS": ""}


@pytest.mark.parametrize("half", [0, 1], ids=["the first", "the last"])
def test_a_half_written_run_counts_for_the_user_of_the_others(half: int) -> None:
    """Its hours are the job's, and the job remains its user's."""
    runs = make_requeue()
    known = runs[1 - half]
    runs[half] = make_run(
        **HALF_WRITTEN, State=runs[half].state, Submit=str(runs[half].submit), End=str(runs[half].end)
    )
    assert runs == own_runs(runs)
    payload = payload_of(runs)
    assert (known.user, known.account, known.partition) == (payload["User"], payload["Account"], payload["Partition"])
    assert sum(run.elapsed_seconds * run.cpus for run in runs) / 3600 == payload["CPUHours"]


def test_a_user_whose_name_resolves_later_is_the_same() -> None:
    """The row of a run shows the number of a user that LDAP did not know at the time."""
    runs = make_requeue(User="1000")
    assert runs == own_runs(runs)


@pytest.mark.parametrize("restarts", [{}, {"Restarts": "2"}], ids=["plain", "with Restarts"])
def test_a_job_that_comes_back_from_another_cluster(restarts: dict[str, str]) -> None:
    """It counts with what ran here, before and after; the row in between says how long it ran there."""
    first, there = make_requeue(State="REVOKED")
    back = make_run(Submit=str(NOON + 9000), Start=str(NOON + 9000), End=str(NOON + 10_000), **restarts)
    runs = own_runs([first, there, back._replace(elapsed_seconds=1000)])
    assert [first.state, "REVOKED", "COMPLETED"] == [run.state for run in runs]
    assert ((4000 + 8000) / 3600, "COMPLETED") == (payload_of(runs)["CPUHours"], payload_of(runs)["State"])


def test_a_job_that_was_moved_twice() -> None:
    """What it ran here goes under its own last row, not under one of the other cluster's."""
    first, there = make_requeue(State="REVOKED")
    runs = own_runs([first, there, there._replace(submit=NOON + 9000, end=NOON + 9500)])
    assert Stage.FINAL is stage(runs, NOON + 10_000)
    assert (4000 / 3600, "REQUEUED") == (payload_of(runs)["CPUHours"], payload_of(runs)["State"])


def test_hours_of_all_runs_are_added() -> None:
    """With "sum" the hours are those of Slurm's own accounting: each row's elapsed time by its own allocation."""
    assert (1000 * 4 + 500 * 2, 1000 * 2 + 500 * 2) == usage(make_requeue(), requeued_runs="sum")


def test_hours_of_the_last_run_alone() -> None:
    """With "last" an earlier run counts nothing."""
    assert 500 * 2 == usage(make_requeue(), requeued_runs="last")[0]


def test_segments_of_the_last_run_count_with_it() -> None:
    """A resized run is its segments, so "last" counts all of them."""
    assert 1000 * 4 + 500 * 2 == usage(make_requeue("RESIZING"), requeued_runs="last")[0]


def test_requeued_and_cancelled_while_pending_keeps_its_hours() -> None:
    """The last run never started; what the earlier one used is not lost, and "skip" does not skip it."""
    runs = make_requeue(State="CANCELLED", Start="None", ElapsedRaw="0", NodeList="None assigned")
    payload = payload_of(runs)
    assert (4000 / 3600, True) == (payload["CPUHours"], ever_started(runs))
    assert (0, "") == (payload["AllocCPUS"], payload["NodeList"])


@pytest.mark.usefixtures("berlin")
def test_payload_of_a_plain_job() -> None:
    """Every field that the dashboard takes, in its own units and the cluster's wall clock."""
    assert {
        "JobID": "100",
        "User": "alice",
        "Account": "physics",
        "Partition": "cpu",
        "State": "COMPLETED",
        "QOS": "normal",
        "NodeList": "n1,n2",
        "Submit": "2023-11-14T23:13:20",
        "Start": "2023-11-14T23:14:20",
        "End": "2023-11-15T00:14:20",
        "CPUHours": 8.0,
        "GPUHours": 2.0,
        "AllocCPUS": 8,
        "AllocGPUS": 2,
        "AllocNodes": 2,
        "AllocMemoryMB": 4000.0,
        "WaitingTimeHours": 60 / 3600,
        "ElapsedHours": 1.0,
        "Cluster": "lab",
    } == payload_of([make_run()])


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("change", "start", "end"),
    [
        (1_698_541_200, "2023-10-29T02:30:00", "2023-10-29T02:30:00"),
        (1_711_846_800, "2024-03-31T01:30:00", "2024-03-31T03:30:00"),
        (1_704_063_600, "2023-12-31T23:30:00", "2024-01-01T00:30:00"),
    ],
    ids=["autumn", "spring", "new year"],
)
def test_hours_across_a_change_of_the_clock(change: int, start: str, end: str) -> None:
    """Hours are elapsed hours, even across a change of the wall clock."""
    run = make_run(Submit=str(change - 5400), Start=str(change - 1800), End=str(change + 1800), ElapsedRaw="3600")
    payload = payload_of([run])
    assert [start, end] == [payload["Start"], payload["End"]]
    assert [1.0, 1.0, 8.0] == [payload[name] for name in ("WaitingTimeHours", "ElapsedHours", "CPUHours")]


@pytest.mark.usefixtures("berlin")
def test_a_requeue_across_new_year() -> None:
    """The record has the last run's Submit, and so belongs to that year, with the hours of the year before in it."""
    eve = 1_704_063_600 - 3600
    first = make_run(State="REQUEUED", Submit=str(eve - 3600), Start=str(eve - 3600), End=str(eve + 7200))
    last = make_run(Submit=str(eve + 7200), Start=str(eve + 7200), End=str(eve + 10_800))
    payload = payload_of(own_runs([first, last]))
    assert ["2024-01-01T01:00:00", 16.0] == [payload["Submit"], payload["CPUHours"]]


def test_payload_of_a_job_that_never_started() -> None:
    """It has Start = End, no hours, no resources and no node, although Slurm still shows what it had asked for."""
    run = make_run(State="CANCELLED", Start="None", ElapsedRaw="0", NodeList="None assigned")
    payload = payload_of([run])
    assert payload["Start"] == payload["End"]
    shown = ["CPUHours", "GPUHours", "AllocCPUS", "AllocGPUS", "AllocNodes", "AllocMemoryMB", "NodeList"]
    assert [0.0, 0.0, 0, 0, 0, 0.0, ""] == [payload[name] for name in shown]


def test_digest_changes_with_the_record() -> None:
    """An admin's edit in Slurm's accounting makes another digest, a replay of the same row does not."""
    record, same = (make_record([make_run()], "lab") for _ in range(2))
    edited = make_record([make_run(Account="chemistry")], "lab")
    assert record.digest == same.digest != edited.digest
