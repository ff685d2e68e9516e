"""Days and times are the cluster's, not those of the shell that the exporter is called from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from agent.localtime import day_end, day_start
from agent.slurm.row import FIELDS
from agent.slurm.sacct_argv import ALL_ENDS
from tests.support.rows import FILL_IN, SEPARATOR

ROOT = Path(__file__).parents[2]
FIRST, LAST = date(2024, 3, 30), date(2024, 4, 1)


def asked(folder: Path, environ: dict[str, str]) -> list[int]:
    """The bounds of the windows that a dry reconcile from FIRST to LAST asks for, in epoch seconds."""
    sacct, calls, config = folder / "sacct", folder / "calls", folder / "config.json"
    (folder / "recorded").write_text(f"{SEPARATOR.join(FIELDS)}\n")
    fill_in = FILL_IN % {"recorded": folder / "recorded", "answer": folder / "answer"}
    sacct.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n{fill_in}cat {folder}/answer\n')
    sacct.chmod(0o755)
    settings = {"api_url": "http://127.0.0.1:9", "api_key": "a", "cluster_name": "lab", "spool_dir": str(folder)}
    config.touch(mode=0o600)
    config.write_text(json.dumps({**settings, "sacct": str(sacct)}))
    folder.chmod(0o700)
    argv = [sys.executable, "-m", "agent", "--config", str(config), "--dry-run", "--start-date", str(FIRST)]
    done = subprocess.run(
        [*argv, "--end-date", str(LAST)], check=False, cwd=ROOT, capture_output=True, text=True, env=environ
    )
    assert done.returncode == 0, done.stderr
    windows = [line.split() for line in calls.read_text().splitlines() if f"--state={ALL_ENDS}" in line]
    return sorted(int(word.partition("=uts")[2]) for words in windows for word in words if "time=uts" in word)


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo", "America/St_Johns"])
def test_days_are_those_of_the_host_whatever_tz_is_set(tmp_path: Path, zone: str | None) -> None:
    """From the first second of the first day to the last of the last one, by the clock of the host."""
    environ = {name: value for name, value in os.environ.items() if name != "TZ"}
    bounds = asked(tmp_path, {**environ, **({"TZ": zone} if zone else {})})
    assert [day_start(FIRST), day_end(LAST)] == [bounds[0], bounds[-1]]
