"""The rows of sacct, whatever users have put into them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError, ExporterError, SlurmUnreachable
from agent.jobs.record import digest_row
from agent.jobs.run import Run
from agent.slurm.row import FIELDS
from agent.slurm.table import Table, draw_separator
from tests.support.rows import make_run, make_values

#: What a user can type as his account: up to 255 bytes of anything but NUL.
ACCOUNTS = st.binary(min_size=1, max_size=60).map(lambda noise: noise.replace(b"\0", b"\n"))


def read(output: bytes, separator: str, check_cluster: Any = lambda name: None) -> tuple[list[Run], list[str]]:
    """The rows of an answer, and what was set aside."""
    odd: list[ExporterError] = []
    body = separator.join(FIELDS).encode() + b"\n" + output
    table = Table(
        BytesIO(body), FIELDS, separator, lines=output.count(b"\n"), check_cluster=check_cluster, complain=odd.append
    )
    return list(table), [str(error) for error in odd]


def printed(separator: str, account: bytes = b"physics", **changes: str) -> bytes:
    """A row as sacct prints it, with an account of any bytes."""
    values = [value.encode() for value in make_values(**changes)]
    values[FIELDS.index("Account")] = account
    return separator.encode().join(values) + b"\n"


def test_each_call_has_a_new_separator() -> None:
    """Nobody can name an account that contains the separator of a later call."""
    drawn = {draw_separator() for _ in range(100)}
    assert (100, {8}) == (len(drawn), set(map(len, drawn)))


def test_an_account_over_several_lines() -> None:
    """The broken row is joined, the others are unchanged, and no control character reaches a terminal."""
    rows = printed("~") + printed("~", b"a\nb\n\x1b[2Jc", JobID="101") + printed("~", JobID="102")
    runs, odd = read(rows, "~")
    assert (["100", "101", "102"], r"a\nb\n\x1b[2Jc", []) == ([run.job_id for run in runs], runs[1].account, odd)


def test_a_whole_forged_row_in_an_account() -> None:
    """With a separator of an earlier call it is one job's account: nothing is forged or lost."""
    forged = b"x\n" + printed("\x1f", JobID="666", User="root")[:-1]
    runs, odd = read(printed("~", forged) + printed("~", JobID="101"), "~")
    assert (["100", "101"], {"alice"}, []) == ([run.job_id for run in runs], {run.user for run in runs}, odd)


def test_a_row_with_too_many_columns_is_set_aside_alone() -> None:
    """Even a correct guess of the separator forges nothing."""
    runs, odd = read(printed("~", b"a~b") + printed("~", JobID="101"), "~")
    shown = "100|100|lab|alice|1000|a|b|cpu|COMPLETED|normal|1700000000|1700000060|1700003660"
    assert (["101"], [f"a row of sacct has 18 columns instead of 17: '{shown[:80]}'"]) == (
        [run.job_id for run in runs],
        odd,
    )


def test_a_truncated_row_affects_no_other() -> None:
    """The next whole line is a row again."""
    runs, odd = read(b"100~100~lab\n" + printed("~", JobID="101"), "~")
    assert (["101"], 1) == ([run.job_id for run in runs], len(odd))


@settings(deadline=None)
@given(st.lists(ACCOUNTS, min_size=1, max_size=6))
def test_any_text_as_an_account(accounts: list[bytes]) -> None:
    """Every job is returned once, under its own JobID and user, without terminal escapes."""
    separator = draw_separator()
    rows = [printed(separator, account, JobID=str(job), JobIDRaw=str(job)) for job, account in enumerate(accounts, 1)]
    runs, odd = read(b"".join(rows), separator)
    assert (list(range(1, len(accounts) + 1)), []) == ([run.raw_id for run in runs], odd)
    assert {"alice"} == {run.user for run in runs}
    assert all(run.account.isprintable() for run in runs)


def test_texts_that_mean_nothing() -> None:
    """20.11 prints (unknown) for a node list that is NULL; a QOS can be the text Unknown, and a Submit, too."""
    run = make_run(NodeList="(unknown)", QOS="Unknown", Submit="Unknown")
    assert (None, None, 0) == (run.node_list, run.qos, run.submit)


def test_the_cluster_of_each_row_is_checked() -> None:
    """The check precedes the first row that is returned."""

    def refuse(name: str) -> None:
        raise ConfigError(f"these are the jobs of {name}")

    with pytest.raises(ConfigError, match="these are the jobs of lab"):
        read(printed("~"), "~", refuse)
    with pytest.raises(SlurmUnreachable, match="several clusters: 'lab' and 'other'"):
        read(printed("~") + printed("~", Cluster="other"), "~")


def test_rows_that_are_known_are_left_out() -> None:
    """Known rows are left out by content, whatever separator they were printed with, and their values are yielded."""
    numbers = ("100", "101", "102")
    before, _ = read(b"".join(printed("~", JobID=number, JobIDRaw=number) for number in numbers), "~")
    known = {digest_row(run.row): run.raw_id for run in before}
    changed = printed("%", JobID="101", JobIDRaw="101", State="FAILED")
    output = printed("%", JobID="7", JobIDRaw="7") + printed("%") + changed + printed("%", JobID="102", JobIDRaw="102")
    body = "%".join(FIELDS).encode() + b"\n" + output
    table = Table(BytesIO(body), FIELDS, "%", lines=4, check_cluster=lambda name: None, complain=print)
    left_out = [(make_values(), 100), (make_values(JobID="102", JobIDRaw="102"), 102)]
    assert left_out == [*table.leave_out(known)]
    assert (["7", "101"], set()) == ([run.job_id for run in table], table.repeated_ids)


def test_known_rows_with_a_repeated_raw_id_are_not_left_out() -> None:
    """The other row may be of the same job."""
    (run,), _ = read(printed("~"), "~")
    body = "~".join(FIELDS).encode() + b"\n" + printed("~") + printed("~", Submit="7")
    table = Table(BytesIO(body), FIELDS, "~", lines=2, check_cluster=lambda name: None, complain=print)
    assert ([], 2) == ([*table.leave_out({digest_row(run.row): 1})], len([*table]))


def test_a_partition_of_digits_behind_a_line_of_an_account() -> None:
    """After a line break in an account, digits can land in an ID's column, but are not taken for an ID."""
    rows = printed("~", b"x\ny", Partition="9" * 30) * 2
    body = "~".join(FIELDS).encode() + b"\n" + rows
    table = Table(BytesIO(body), FIELDS, "~", lines=4, check_cluster=lambda name: None, complain=print)
    assert {100} == table.repeated_ids


@pytest.mark.parametrize(
    ("output", "odd"),
    [
        (printed("~") * 2, False),
        (printed("~", b"a\nb\nc") + printed("~"), False),
        (printed("~", b"a~b") + printed("~"), True),
        (b"100~100\n" + printed("~"), True),
        (printed("~", b"x\n" + printed("~", JobID="666")[:-1]), True),
        (b"", False),
    ],
)
def test_odd_rows_are_noticed_before_any_row_is_returned(output: bytes, odd: bool) -> None:
    """Too few columns or too many, as where somebody knew the separator; an account over several lines is not odd."""
    body = "~".join(FIELDS).encode() + b"\n" + output
    complaints: list[ExporterError] = []
    table = Table(BytesIO(body), FIELDS, "~", lines=2, check_cluster=lambda name: None, complain=complaints.append)
    assert (odd, []) == (table.has_odd_rows(), complaints)
