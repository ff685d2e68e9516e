"""The complaints of four real sacct; tests/data/README.md explains how they were recorded."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agent.errors import SlurmUnreachable
from agent.slurm.complaints import count_lines, speaks_of_attempts, usual_complaints
from agent.slurm.process import Output

DATA = Path(__file__).parents[2] / "data" / "sacct"
VERSIONS = sorted(path.parent.name for path in DATA.glob("*/complaints.json"))
#: The header, and the three jobs that there were.
ALL_LINES = 4


def recorded(version: str) -> dict[str, dict[str, Any]]:
    return {reported["name"]: reported for reported in json.loads((DATA / version / "complaints.json").read_text())}


def count(reported: dict[str, Any], which: str) -> int:
    """How many lines are trusted of one recorded call, after the first call of the same run."""
    call = reported[which]
    output = Output(call["returncode"], BytesIO(b"line\n" * call["lines"]), "\n".join(call["stderr"]))
    usual = usual_complaints("\n".join(reported["help"]["stderr"]))
    if reported["sacctmgr"]["returncode"] == 0:
        usual |= usual_complaints("\n".join(reported["sacctmgr"]["stderr"]))
    return count_lines(output, "line", usual)


def test_recordings_of_four_versions_exist() -> None:
    """Each with odd lines of slurm.conf, and slurmdbds out of reach."""
    assert ["20.11.4", "22.05.8", "24.11.5", "26.05.5"] == VERSIONS
    assert all(len(recorded(version)) > 40 for version in VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_complete_answer_is_accepted(version: str) -> None:
    """Whether sacct complained of an odd line or of a first slurmdbd whose backup answered; so is one without jobs."""
    whole = {
        name: reported
        for name, reported in recorded(version).items()
        if (reported["jobs"]["returncode"], reported["jobs"]["lines"]) == (0, ALL_LINES)
    }
    assert {"nothing_odd", "conf_tree_width", "first_unresolved", "first_refused", "first_greets"} <= set(whole)
    assert {3} == {count(reported, "jobs") for reported in whole.values()}
    quiet = {name for name in whole if name.startswith("conf_")} | {
        "first_unresolved",
        "first_refused",
        "first_no_route",
    }
    assert {0} == {count(whole[name], "no_jobs") for name in quiet}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_failed_query_is_accepted(version: str) -> None:
    """Nobody answers, or no slurmdbd: whether sacct exits 0 (20.11, 22.05) or not."""
    failed = [name for name in recorded(version) if name.startswith("only_") or name == "no_mariadb"]
    assert len(failed) == 7
    for name in failed:
        for which in ("jobs", "no_jobs"):
            with pytest.raises(SlurmUnreachable):
                count(recorded(version)[name], which)


@pytest.mark.parametrize("version", VERSIONS)
def test_failed_attempts_count_where_an_empty_answer_must_be_confirmed(version: str) -> None:
    """Attempts are noticed if the first slurmdbd is unreachable; odd lines alone do not count as attempts."""
    for name, reported in recorded(version).items():
        stderr = "\n".join(reported["no_jobs"]["stderr"])
        if name.startswith("first_") and stderr and reported["no_jobs"]["returncode"] == 0:
            assert speaks_of_attempts(stderr), name
        if name.startswith("conf_") and reported["no_jobs"]["returncode"] == 0:
            assert not speaks_of_attempts(stderr), name


@pytest.mark.parametrize("version", VERSIONS)
def test_sacct_prints_nothing_for_an_unknown_cluster(version: str) -> None:
    """It prints no row and no error, and exits 0, so slurmdbd's list of clusters has to confirm an empty answer."""
    reported = recorded(version)["cluster_unknown"]
    assert (0, 1, []) == (reported["jobs"]["returncode"], reported["jobs"]["lines"], reported["jobs"]["stderr"])
