"""`make demo`, as a newcomer runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.screen import describe_delays, describe_differences
from tests.support.exporter import ROOT
from tests.support.keeper import descendants
from tests.support.waiting import wait_for


def start_demo(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo", *options],
        cwd=ROOT,
        encoding="utf-8",
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
    )


@pytest.mark.slurm
def test_shows_real_jobs_arrive_and_compares_them() -> None:
    """Every job is printed, the dashboard equals the job table after flush and reconcile, and the demo exits 0."""
    demo = start_demo("--jobs", "60", "--interval", "1")
    said, _ = demo.communicate(timeout=280)
    rows = re.findall(r"^\d\d:\d\d:\d\d  \d\S* .* \d+\.\d$", said, re.MULTILINE)
    assert {True} == {len(row) <= 80 for row in rows}
    found = re.search(r"(\d+) jobs have ended in slurmdbd's job table", said)
    assert demo.returncode == 0, said
    assert found
    assert len(rows) == int(found[1]) >= 60
    assert said.count("equal to the job table in every field") == 3
    assert re.search(r"median [\d.]+ s, 99 % within [\d.]+ s", said)


@pytest.mark.slurm
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_leaves_nothing_behind_when_it_is_stopped(how: signal.Signals) -> None:
    """Ctrl-C during the demo ends every process and removes the folder."""
    demo = start_demo()
    assert demo.stdout
    folder = next(found[1] for found in (re.search(r"runs after .* in (\S+)", line) for line in demo.stdout) if found)
    next(line for line in demo.stdout if "COMPLETED" in line)
    processes = list(descendants(demo.pid))
    demo.send_signal(how)
    said, _ = demo.communicate(timeout=120)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the end of every process")
    assert "Traceback" not in said
    assert (demo.returncode, Path(folder).exists()) == (130, False)


def test_replays_a_recording_and_says_so() -> None:
    """Without Slurm, the real hook and exporter get recorded calls and answers, marked as recorded."""
    demo = start_demo("--recorded", "--interval", "1")
    said, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, said
    assert "NO SLURM IS RUNNING" in said
    assert said.count("RECORDED") == 3
    assert said.count("equal to the job table in every field") == 2


def test_names_every_difference() -> None:
    """A missing, extra or differing job is reported, and makes the demo fail."""
    expected = {"1": {"State": "COMPLETED"}, "2": {"State": "FAILED"}}
    shown = {"2": {"State": "COMPLETED"}, "3": {"State": "FAILED"}}
    assert describe_differences(expected, shown) == [
        "1 is not on the dashboard",
        "3 is on the dashboard alone",
        "2 has State 'COMPLETED' on the dashboard, 'FAILED' in the accounting",
    ]
    assert describe_differences(expected, expected) == []


def test_shows_median_and_99_percent() -> None:
    """Delays are summarized by the median, the 99th percentile and the maximum."""
    delays = [float(second) for second in range(1, 201)]
    assert describe_delays(delays) == "median 100.5 s, 99 % within 198.0 s, slowest 200.0 s"
