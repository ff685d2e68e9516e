"""One row of sacct becomes a Run."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UnreadableRow
from agent.jobs.record import make_record
from agent.jobs.run import Run
from agent.slurm.row import FIELDS, Tres, parse_count, parse_row, parse_tres
from tests.support.rows import NOON, make_run, make_values


def test_plain_row() -> None:
    """Every value of a plain row arrives, typed and in its unit."""
    assert make_run() == Run(
        job_id="100",
        raw_id=100,
        cluster="lab",
        user="alice",
        uid="1000",
        account="physics",
        partition="cpu",
        state="COMPLETED",
        qos="normal",
        submit=NOON,
        start=NOON + 60,
        end=NOON + 3660,
        elapsed_seconds=3600,
        cpus=8,
        nodes=2,
        gpus=2,
        memory_mb=4000.0,
        node_list="n[1-2]",
    )


@pytest.mark.parametrize(
    ("text", "tres"),
    [
        ("", Tres(0, 0.0)),
        ("billing=8,cpu=8,gres/gpu:a100=2,gres/gpu:h100=1,gres/gpu=3,mem=4000M,node=1", Tres(3, 4000.0)),
        ("gres/gpu:a100=2,gres/gpu:h100=1", Tres(3, 0.0)),
        ("gres/gpu=4", Tres(4, 0.0)),
        ("gres/gpumem=80G,gres/gpuutil=100,gres/shard=4,gres/mps=200", Tres(0, 0.0)),
        ("gres/gpu=NONE,mem=NONE,gres/gpu:a100=NONE", Tres(0, 0.0)),
        ("mem=40G", Tres(0, 40960.0)),
        ("mem=1.50T", Tres(0, 1572864.0)),
        ("mem=2P", Tres(0, 2.0 * 1024**3)),
        ("mem=512K", Tres(0, 0.5)),
        ("mem=500", Tres(0, 500.0)),
    ],
)
def test_tres(text: str, tres: Tres) -> None:
    """GPUs are counted by exact key, the generic one first; memory in any unit becomes MB."""
    assert tres == parse_tres(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("0", 0), ("17", 17), ("1K", 1024), ("1.5K", 1536), ("2M", 2 * 1024**2), ("1.25P", 5 * 2**48)],
)
def test_count(text: str, count: int) -> None:
    """Slurm prints 1,024 nodes as 1K, with fractions, whatever options it gets."""
    assert count == parse_count(text)


@pytest.mark.parametrize("text", ["None", "Unknown", "", "0"])
def test_texts_that_are_not_times(text: str) -> None:
    """Slurm's placeholders for a missing time are read as no time."""
    run = make_run(Start=text, End=text)
    assert (None, None, False, True) == (run.start, run.end, run.ended, run.never_started)


@pytest.mark.parametrize("text", ["None assigned", "(null)", "(unknown)", ""])
def test_missing_node_lists(text: str) -> None:
    """Slurm's placeholders for a missing node list are read as no node list."""
    assert make_run(NodeList=text).node_list is None


def test_cancelled_before_start() -> None:
    """A job on no node whose Start only repeats its End never started, whatever CPUs it had asked for."""
    run = make_run(State="CANCELLED by 1000", Start="170", End="170", ElapsedRaw="0", NodeList="None assigned")
    assert ("CANCELLED", True, True) == (run.state, run.ended, run.never_started)


def test_a_job_of_zero_seconds_has_started() -> None:
    """A job that had a node for less than a second did start."""
    assert not make_run(Start="170", End="170", ElapsedRaw="0").never_started


@pytest.mark.parametrize(("user", "uid", "shown"), [("", "1234", "1234"), ("bob", "1", "bob"), ("", "", "unknown")])
def test_user_that_no_longer_resolves(user: str, uid: str, shown: str) -> None:
    """A deleted user is shown as the numeric uid, so that the job is not dropped."""
    assert shown == make_run(User=user, UID=uid).user


def test_empty_account_and_partition_are_unknown() -> None:
    """The dashboard rejects an empty account or partition, so a placeholder is sent."""
    run = make_run(Account="", Partition="", QOS="")
    assert ("unknown", "unknown", None) == (run.account, run.partition, run.qos)


def test_a_qos_that_slurmdbd_does_not_know() -> None:
    """Slurm's placeholder for an unknown QOS is not taken for a name."""
    assert make_run(QOS="Unknown").qos is None


def test_a_run_without_submit() -> None:
    """If slurmdbd has none, sacct says Unknown, and the run is read all the same."""
    assert make_run(Submit="Unknown").submit == 0


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUSPENDED"])
def test_live_states_have_not_ended(state: str) -> None:
    """A live job has not ended, even if the row has an End."""
    assert not make_run(State=state).ended


def test_unknown_state_with_an_end_has_ended() -> None:
    """A state that a later Slurm may invent ends the job if the row has an End."""
    assert make_run(State="VAPORIZED").ended


@pytest.mark.parametrize(("restarts", "expected"), [("", 0), ("0", 0), ("2", 2)])
def test_restarts_where_slurm_counts_them(restarts: str, expected: int) -> None:
    """Later versions say how often a job was requeued; others leave it open."""
    assert (expected, None) == (make_run(Restarts=restarts).restarts, make_run().restarts)


@pytest.mark.parametrize(
    "changes",
    [
        {"JobIDRaw": "abc"},
        {"JobID": "x\n100"},
        {"Submit": "yesterday"},
        {"End": "2024-01-01T00:00:00"},
        {"AllocCPUS": "x"},
        {"State": ""},
    ],
)
def test_a_value_of_the_wrong_type_is_refused(changes: dict[str, str]) -> None:
    """A row with a value that sacct never prints is refused with the row in the error."""
    values = make_values(**changes)
    with pytest.raises(UnreadableRow) as caught:
        parse_row(values)
    assert values == caught.value.subject


@given(st.lists(st.text(max_size=12), max_size=len(FIELDS) + 2))
def test_any_row_is_parsed_or_refused(values: list[str]) -> None:
    """Whatever a row holds, it is a Run or an UnreadableRow."""
    try:
        assert isinstance(parse_row(values), Run)
    except UnreadableRow as error:
        assert values == error.subject


@given(
    st.integers(0, 10**9), st.sampled_from(["mem", "gres/gpu", "gres/gpu:a100"]), st.sampled_from([*list("KMGTP"), ""])
)
def test_any_quantity_is_counted(number: int, key: str, unit: str) -> None:
    """Every number with every unit of Slurm's gives a count that is not negative."""
    gpus, memory_mb = parse_tres(f"cpu=1,{key}={number}{unit}")
    assert gpus >= 0
    assert memory_mb >= 0
    assert (number > 0) == (gpus + memory_mb > 0)


@pytest.mark.parametrize("field", ["JobIDRaw", "Submit", "Start", "End", "ElapsedRaw", "AllocCPUS", "AllocNodes"])
@pytest.mark.parametrize("value", ["1e999", "inf", "nan", "-5", "9" * 40, "9" * 5000, "²"])
def test_numbers_that_python_would_take(field: str, value: str) -> None:
    """Slurm prints neither infinity nor signs nor hundreds of digits, and these would break later arithmetic."""
    with pytest.raises(UnreadableRow):
        parse_row(make_values(**{field: value}))


@given(st.lists(st.text(max_size=12) | st.from_regex(r"[0-9A-Za-z.=,:/_+-]{0,20}"), min_size=17, max_size=18))
def test_any_row_is_a_run_or_refused(values: list[str]) -> None:
    """Any row is either refused with our one error, or makes a record that is JSON."""
    try:
        run = parse_row(values)
    except UnreadableRow:
        return
    if run.end is not None:
        json.loads(make_record([run], "lab").text, parse_constant=pytest.fail)
