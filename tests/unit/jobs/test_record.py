"""What is sent for a job if the accounting has less than usual."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.jobs.record import make_record
from agent.localtime import local_text
from tests.support.rows import NOON, make_run


def record_of(**changes: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(make_record([make_run(**changes)], "lab").text)
    return record


@pytest.mark.parametrize(
    ("folded", "names"),
    [("n1", "n1"), ("gpu-node[01-02],cn7", "gpu-node01,gpu-node02,cn7"), ("(unknown)", ""), ("a[1-99999999]", "")],
)
def test_the_node_list_is_names_with_commas(folded: str, names: str) -> None:
    """The dashboard expands lists wrongly, and makes a node called "nan" of null."""
    assert names == record_of(NodeList=folded)["NodeList"]


def test_a_job_without_a_known_node_counts_in_full() -> None:
    """If the table lost the node list of a job that ran, its hours, CPUs and nodes are sent all the same."""
    record = record_of(NodeList="(unknown)")
    assert [8.0, 8, 2] == [record[name] for name in ("CPUHours", "AllocCPUS", "AllocNodes")]


def test_a_job_without_submit() -> None:
    """It is shown as submitted when it started, as the dashboard keeps jobs by the year of their Submit."""
    record = record_of(Submit="Unknown")
    assert [local_text(NOON + 60), 0.0] == [record[name] for name in ("Submit", "WaitingTimeHours")]
