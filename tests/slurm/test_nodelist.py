"""Node lists are expanded as this machine's Slurm expands them."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Callable, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.nodelist import unfold

pytestmark = pytest.mark.slurm

CONF = """\
ClusterName=lab
SlurmctldHost=localhost
AuthType=auth/munge
NodeName=n1
PartitionName=main Nodes=ALL
"""
Unfold = Callable[[str], List[str]]


@pytest.fixture(scope="module")
def slurms(tmp_path_factory: pytest.TempPathFactory) -> Unfold:
    """``scontrol show hostnames``, which needs no daemon."""
    conf = tmp_path_factory.mktemp("slurm") / "slurm.conf"
    conf.write_text(CONF)
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    scontrol = shutil.which("scontrol") or ""

    def unfold_by_slurm(node_list: str) -> list[str]:
        argv = [scontrol, "show", "hostnames", node_list]
        done = subprocess.run(argv, capture_output=True, check=True, env=environment, text=True, timeout=60)
        return done.stdout.split()

    return unfold_by_slurm


def fold(first: int, length: int, width: int) -> str:
    """A range, or a single number, with leading zeros up to a width."""
    last = first + length
    return f"{first:0{width}}-{last:0{width}}" if length else f"{first:0{width}}"


PREFIXES = st.sampled_from(["n", "gpu-node", "x1000c", "nid00", "cn7-", "A_", "node.sub"])
RANGES = st.builds(fold, st.integers(0, 1200), st.integers(0, 30), st.integers(1, 6))
BRACKETS = st.lists(RANGES, min_size=1, max_size=4).map(lambda ranges: f"[{','.join(ranges)}]")
PLAIN = st.builds(lambda prefix, number: f"{prefix}{number}", PREFIXES, st.integers(0, 99))
SUFFIXES = st.sampled_from(["", "", "-eth0", ".cluster", "b"])


@st.composite
def items(draw: st.DrawFn, *, suffixes: bool) -> str:
    """One or two brackets, each behind a name; a suffix after the last one only if this version allows it."""
    if draw(st.booleans()):
        return draw(PLAIN)
    pieces = [draw(PREFIXES) + draw(BRACKETS) for _ in range(draw(st.integers(1, 2)))]
    return "".join(pieces) + (draw(SUFFIXES) if suffixes else "")


def test_random_lists(slurms: Unfold) -> None:
    """Names with hyphens, leading zeros, several brackets and suffixes give the same names; the order may differ."""
    suffixes = slurms("a[1-2]b") == ["a1b", "a2b"]  # not on 22.05

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.lists(items(suffixes=suffixes), min_size=1, max_size=5).map(",".join))
    def same(node_list: str) -> None:
        assert sorted(slurms(node_list)) == sorted(unfold(node_list).split(","))

    same()


@pytest.mark.parametrize(
    "node_list", ["n[0001-5000]", "a[1-70]b[01-70]", "r[1-9]c[1-9]n[1-9]", "a[8-011]", "a[1-65536]"]
)
def test_long_lists(slurms: Unfold, node_list: str) -> None:
    """Thousands of nodes, and several brackets, give the same names."""
    assert sorted(slurms(node_list)) == sorted(unfold(node_list).split(","))


@pytest.mark.parametrize(
    "node_list", ["a[3-1]", "a[]", "a[1,,2]", "a[1-2-3]", "a[a-c]", "a[1-70000]", "a[1-99999999999]"]
)
def test_what_slurm_cannot_read(slurms: Unfold, node_list: str) -> None:
    """An invalid or too long list for Slurm has no names here either."""
    assert ([], "") == (slurms(node_list), unfold(node_list))
