"""Node lists are expanded as by Slurm; tests/slurm/test_nodelist.py asks a real one."""

from __future__ import annotations

import time

import pytest

from agent.jobs.nodelist import MOST_NAMES, unfold


@pytest.mark.parametrize(
    ("folded", "names"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1,n2"),
        ("cn7,cn[10-11]", "cn7,cn10,cn11"),
        ("gpu-node[01-02]", "gpu-node01,gpu-node02"),
        ("a[1-3]b[01-02]", "a1b01,a1b02,a2b01,a2b02,a3b01,a3b02"),
        ("x1000c[0-1]s0b0n[0-1]", "x1000c0s0b0n0,x1000c0s0b0n1,x1000c1s0b0n0,x1000c1s0b0n1"),
        ("nid00[1-2]-eth0", "nid001-eth0,nid002-eth0"),
        ("a[1-2][3-4]", "a13,a14,a23,a24"),
        ("a[1-3,5,07-08]", "a1,a2,a3,a5,a07,a08"),
        ("a[08-11]", "a08,a09,a10,a11"),
        ("a[8-011]", "a8,a9,a10,a11"),
        ("a[99-101]", "a99,a100,a101"),
        ("[1-2],a", "1,2,a"),
        (",a[1],,b,", "a1,b"),
    ],
)
def test_lists(folded: str, names: str) -> None:
    """Whatever Slurm folds comes out as names with commas, in the order of the list."""
    assert names == unfold(folded)


@pytest.mark.parametrize(
    "odd",
    ["a[1", "a[]", "a[1,,2]", "a[3-1]", "a[1-2-3]", "a[a-c]", "a[1-2]]", "a[[1-2]]", "a[-1]", "a[١-٣]", "a[1-2],b["],
)
def test_texts_that_are_not_lists(odd: str) -> None:
    """Anything else results in no names, rather than wrong ones."""
    assert unfold(odd) == ""


@pytest.mark.parametrize(
    "huge",
    [
        "a[1-99999999]",
        "a[1-65537]",
        "a[1-65536],b[1-2]",
        "a[1-60000]b[1-60000]",
        "a" + "[0-9]" * 40,
        "a[1-9999999999999999999999]",
        "a[" + "1-60000," * 5000 + "1]",
    ],
)
def test_a_list_of_more_names_than_a_cluster_has_nodes(huge: str) -> None:
    """It is not sent, and takes neither memory nor time."""
    began = time.process_time()
    assert unfold(huge) == ""
    assert time.process_time() - began < 1


def test_node_lists_up_to_slurms_own_limit() -> None:
    """The largest range that Slurm reads is expanded."""
    assert unfold(f"a[1-{MOST_NAMES}]").count(",") == MOST_NAMES - 1


def test_five_thousand_nodes() -> None:
    """A list of a large job is expanded in full."""
    names = unfold("n[0001-5000]").split(",")
    assert (5000, "n0001", "n5000") == (len(names), names[0], names[-1])
