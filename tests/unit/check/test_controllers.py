"""Whether several controllers can take turns."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from agent.check.controllers import check_controllers
from agent.check.finding import NotWell
from agent.check.host import own_name
from agent.slurm.controller_hosts import Controllers

LOCAL = "a / ext4 rw 0 0"


def pair(state: Path) -> Controllers:
    return Controllers("ha", ("ctl1(10.0.0.1)", "ctl2"), str(state))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Path(pair(tmp_path).common_folder).mkdir()
    return tmp_path


def test_they_can(state: Path) -> None:
    """The folder exists, the services may write to it, and its locks work across hosts."""
    folder = pair(state).common_folder
    nfs = f"{LOCAL}\nserver:/x {state} nfs4 rw,vers=4.2,local_lock=none 0 0"
    assert f"ctl1 and ctl2 take turns, using {folder}" == check_controllers(pair(state), f"/var/spool/x -{folder}", nfs)
    assert check_controllers(pair(state), "", LOCAL)


class Lack(NamedTuple):
    name: str
    look: Callable[[Path], str]
    text: str


LACKS = [
    Lack(
        "no folder",
        lambda state: check_controllers(pair(state / "other"), "", LOCAL),
        "{state}/other/slurm-usage-history-exporter, which ctl1 and ctl2 need to take turns, does not exist",
    ),
    Lack(
        "a sandbox without it",
        lambda state: check_controllers(pair(state), "/var/spool/slurm-usage-history-exporter", LOCAL),
        "the services' sandbox blocks {state}/slurm-usage-history-exporter, which ctl1 and ctl2 need to take turns",
    ),
    Lack(
        "locks of one host",
        lambda state: check_controllers(pair(state), "", f"{LOCAL}\ns:/x {state} nfs rw,nolock,local_lock=all 0 0"),
        "{state}/slurm-usage-history-exporter is mounted with local_lock=all: a lock there does not block the other"
        " controllers",
    ),
]


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: lack.name.replace(" ", "-"))
def test_what_they_lack(state: Path, lack: Lack) -> None:
    """Each problem comes with a command that can be copied unchanged."""
    with pytest.raises(NotWell) as caught:
        lack.look(state)
    assert lack.text.format(state=state) == str(caught.value)
    assert any(word in caught.value.hint for word in (f"chown {own_name()}", "systemctl edit", "mount it without"))
