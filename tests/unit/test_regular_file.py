"""Reading a file that somebody else has named never blocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.check.finding import NotWell
from agent.check.slurm import check_hook
from agent.check.wiring import Call, find_hook_in
from agent.regular_file import read_regular
from agent.slurm.slurm_conf import read_slurm_conf


@pytest.fixture(params=["fifo", "device", "folder"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A name that is not a regular file's; reading it would never end, or is impossible."""
    path = tmp_path / "jobcomp.sh"
    if request.param == "fifo":
        os.mkfifo(path, 0o755)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


def test_it_is_an_error_at_once(odd: Path) -> None:
    """Neither a FIFO without a writer nor an endless device is read."""
    with pytest.raises(OSError, match=r"regular file|directory"):
        read_regular(odd)


def test_a_slurm_conf_that_includes_it_is_incomplete(odd: Path, tmp_path: Path) -> None:
    """The other settings are read."""
    conf = tmp_path / "slurm.conf"
    conf.write_text(f"Include {odd}\nClusterName=lab\n")
    read = read_slurm_conf(conf)
    assert ([("ClusterName", "lab")], False) == ([setting[:2] for setting in read.settings], read.complete)


def test_a_hook_is_judged_by_its_name_and_then_refused(odd: Path, tmp_path: Path) -> None:
    """`check` says that the script cannot be read."""
    assert odd == find_hook_in(odd)
    with pytest.raises(NotWell, match=r"jobcomp\.sh"):
        check_hook(Call("JobCompLoc", odd, odd), tmp_path, str(odd))
