"""slurm.conf is read from disk as Slurm reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.slurm.controller_hosts import Controllers
from agent.slurm.slurm_conf import controllers_of, read_slurm_conf


def write(folder: Path, text: str, name: str = "slurm.conf") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_keys_and_values_with_their_places(tmp_path: Path) -> None:
    """Keys in any case, spaces around the sign, quotes, comments, several pairs a line and continued lines are read."""
    path = write(
        tmp_path,
        '# JobCompType=jobcomp/none\nJOBCOMPTYPE = jobcomp/script # ours\nJobCompLoc="/a/b.sh"\n\n'
        "NodeName=n[1-2] \\\n  CPUs=4\nMailProg=/bin/true TmpFS=/tmp\n",
    )
    conf = read_slurm_conf(path)
    found = [(setting.key, setting.value, setting.line) for setting in conf.settings]
    assert [
        ("JOBCOMPTYPE", "jobcomp/script", 2),
        ("JobCompLoc", "/a/b.sh", 3),
        ("NodeName", "n[1-2]", 5),
        ("CPUs", "4", 5),
        ("MailProg", "/bin/true", 7),
        ("TmpFS", "/tmp", 7),
    ] == found
    setting = conf.get("jobcomptype")
    assert setting
    assert f"{path}:2" == setting.place
    assert conf.complete


def test_of_several_lines_the_last_counts(tmp_path: Path) -> None:
    """As slurmctld says itself: "specified more than once, latest value used"."""
    conf = read_slurm_conf(write(tmp_path, "JobCompLoc=/a\nEpilogSlurmctld=/1\nJobCompLoc=/b\nEpilogSlurmctld=/2\n"))
    setting = conf.get("JobCompLoc")
    assert setting
    assert ("/b", 3) == (setting.value, setting.line)
    assert ["/1", "/2"] == [setting.value for setting in conf.get_all("EpilogSlurmctld")]
    assert None is conf.get("JobCompType")


def test_included_files(tmp_path: Path) -> None:
    """A name without a folder is beside slurm.conf, %c is the cluster, and the places are the included files' own."""
    (tmp_path / "conf.d").mkdir()
    write(tmp_path, "JobCompLoc=/c\nInclude other.conf\n", "lab.conf")
    write(tmp_path, "MailProg=/m\n", "other.conf")
    write(tmp_path, "TmpFS=/t\n", "conf.d/1.conf")
    conf = read_slurm_conf(write(tmp_path, "include %c.conf\nInclude conf.d/*.conf\n"), "lab")
    assert {"JobCompLoc": "lab.conf", "MailProg": "other.conf", "TmpFS": "1.conf"} == {
        setting.key: setting.file.name for setting in conf.settings
    }


def test_an_unreadable_include_is_reported(tmp_path: Path) -> None:
    """A missing key proves nothing then. A file that includes itself does not loop."""
    assert not read_slurm_conf(tmp_path / "none").complete
    assert not read_slurm_conf(write(tmp_path, "Include none.conf\nTmpFS=/t\n")).complete
    assert read_slurm_conf(write(tmp_path, "Include slurm.conf\nTmpFS=/t\n")).complete


@pytest.mark.parametrize("key", ["SlurmctldHost", "ControlMachine"])
def test_the_controllers_by_slurm_conf(tmp_path: Path, key: str) -> None:
    """The controllers are those that slurmctld would report; without a slurm.conf there are none."""
    conf = tmp_path / "slurm.conf"
    assert Controllers("", (), "") == controllers_of(read_slurm_conf(conf))
    conf.write_text(f"ClusterName=lab\n{key}=ctl1(10.0.0.1)\nStateSaveLocation=/state\n")
    assert Controllers("lab", ("ctl1(10.0.0.1)",), "/state") == controllers_of(read_slurm_conf(conf))
