"""Slurm's commands complain of the symptom; check names the daemon, if it runs on this host."""

from __future__ import annotations

from io import BytesIO
from typing import Mapping, Sequence

import pytest

from agent.check.daemons import DATABASES, explain, read_daemons
from agent.errors import SlurmUnreachable
from agent.slurm.process import Output

#: From Slurm 22.05, with munged stopped.
MUNGE = "scontrol show config failed: scontrol: error: If munged is up, restart with --num-threads=10"
REFUSED = "scontrol show config failed: slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)"
NO_DATABASE = "sacct failed with exit status 1: sacct: error: Problem talking to the database: Connection refused"


def test_the_daemons_of_this_host() -> None:
    """Only daemons with a systemd unit on this host are listed."""
    text = (
        "Id=munge.service\nLoadState=loaded\nActiveState=active\n\n"
        "Id=mysqld.service\nLoadState=not-found\nActiveState=inactive\n\n"
        "Id=slurmctld.service\nLoadState=loaded\nActiveState=failed\n"
    )
    assert {"munge": "active", "slurmctld": "failed"} == read_daemons(lambda _: Output(0, BytesIO(text.encode()), ""))


def test_a_host_without_systemd() -> None:
    """Without systemctl the state of every daemon is unknown."""

    def run(_: Sequence[str]) -> Output:
        raise SlurmUnreachable("no systemctl")

    assert {} == read_daemons(run)


@pytest.mark.parametrize(
    ("said", "states", "text", "line"),
    [
        (
            MUNGE,
            {"munge": "inactive", "slurmctld": "active"},
            f"munge does not answer (munge.service is inactive), and no Slurm command works without it: {MUNGE}",
            "systemctl start munge",
        ),
        (
            MUNGE,
            {"munge": "active"},
            f"munge does not answer, and no Slurm command works without it: {MUNGE}",
            "systemctl restart munge",
        ),
        (MUNGE, {}, f"munge does not answer, and no Slurm command works without it: {MUNGE}", ""),
        (
            REFUSED,
            {"munge": "active", "slurmctld": "failed"},
            f"slurmctld.service is failed on this host: {REFUSED}",
            "systemctl start slurmctld",
        ),
    ],
)
def test_it_names_the_daemon_that_is_down(said: str, states: Mapping[str, str], text: str, line: str) -> None:
    """The finding includes the line that starts it, if it belongs on this host."""
    reported = explain(SlurmUnreachable(said), states, "slurmctld")
    assert (text, line) == (str(reported), getattr(reported, "run", ""))


def test_a_slurmdbd_whose_database_is_down() -> None:
    """slurmdbd keeps running while its database is down."""
    states = {"munge": "active", "slurmdbd": "active", "mariadb": "inactive"}
    reported = explain(SlurmUnreachable(NO_DATABASE), states, "slurmdbd", *DATABASES)
    assert f"mariadb.service is inactive on this host: {NO_DATABASE}" == str(reported)
    assert "systemctl start mariadb" == getattr(reported, "run", "")


def test_files_elsewhere_are_unchanged() -> None:
    """Daemons on other hosts are unknown: the command's own error message and hint are kept."""
    error = SlurmUnreachable(REFUSED, hint="scontrol ping")
    assert error is explain(error, {"munge": "active"}, "slurmctld")
    assert error is explain(error, {"munge": "active", "slurmctld": "active"}, "slurmctld")
