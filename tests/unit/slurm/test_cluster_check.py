"""Rows of one cluster are never taken for another's, and an unknown cluster is an error, not an empty one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SlurmUnreachable
from agent.slurm.row import OPTIONAL_FIELD
from agent.slurm.sacct import Sacct
from agent.slurm.slurm import Slurm
from tests.support.rows import FILL_IN, make_output, make_values
from tests.support.snapshots import make_config


def make_sacct(folder: Path, output: bytes, *, local: str = "lab", known: str = "lab") -> Sacct:
    """A sacct, sacctmgr and scontrol of shell."""
    (folder / "recorded").write_bytes(output)
    fill_in = FILL_IN % {"recorded": folder / "recorded", "answer": folder / "answer"}
    scripts = {
        "sacct": f'[ "$1" != --helpformat ] || exit 0\n{fill_in}cat {folder}/answer',
        "sacctmgr": f"echo {known}",
        "scontrol": f"echo 'ClusterName = {local}'" if local else "exit 1",
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    environ = {"PATH": "/usr/bin:/bin"}
    config = make_config(sacct=str(folder / "sacct"), scontrol=str(folder / "scontrol"), sacct_timeout=20)
    return Slurm(config, environ, lambda error: pytest.fail(str(error))).sacct


def test_a_clustername_that_slurmdbd_does_not_know(tmp_path: Path) -> None:
    """sacct prints nothing and exits 0, which must not count as a cluster without jobs."""
    with pytest.raises(SlurmUnreachable, match="slurmdbd does not know cluster gamma; it knows lab") as caught:
        make_sacct(tmp_path, make_output(), local="gamma").ask_window(1, 2).answer()
    assert "see ClusterName in slurm.conf, or: sacctmgr add cluster gamma" == caught.value.hint


def test_a_quiet_cluster_while_slurmctld_is_down(tmp_path: Path) -> None:
    """slurmdbd answers, and that nothing has ended is an answer."""
    assert 0 == make_sacct(tmp_path, make_output(), local="").ask_window(1, 2).answer().rows


def test_names_of_clusters_are_compared_without_case(tmp_path: Path) -> None:
    """slurm.conf may say Lab, and slurmdbd lab."""
    sacct = make_sacct(tmp_path, make_output(make_values()))
    sacct.expect("Lab")
    assert ["lab"] == [run.cluster for run in sacct.ask_window(1, 2).answer()]


def test_a_cluster_that_was_renamed(tmp_path: Path) -> None:
    """Jobs are sent under the name that was found before; rows of another name are not accepted."""
    sacct = make_sacct(tmp_path, make_output(make_values()))
    sacct.expect("before")
    with pytest.raises(SlurmUnreachable, match="asked for cluster 'before' and answered for 'lab'") as caught:
        list(sacct.ask_window(1, 2).answer())
    assert "see ClusterName in slurm.conf" in caught.value.hint


def test_a_sacct_that_does_not_list_its_fields(tmp_path: Path) -> None:
    """Without slurmdbd it shows nothing (20.11, 22.05); a field that it has is never omitted on a guess."""
    sacct = make_sacct(tmp_path, make_output(make_values()))
    script = (tmp_path / "sacct").read_text()
    (tmp_path / "sacct").write_text("#!/bin/sh\necho 'sacct: error: Connection refused' >&2; exit 1\n")
    with pytest.raises(SlurmUnreachable, match="sacct failed with exit status 1: sacct: error: Connection refused"):
        sacct.ask_window(1, 2)
    (tmp_path / "sacct").write_text(script.replace("exit 0", f"exec echo {OPTIONAL_FIELD}"))
    (tmp_path / "recorded").write_bytes(make_output(make_values(Restarts="2")))
    assert [2] == [run.restarts for run in sacct.ask_window(1, 2).answer()]
