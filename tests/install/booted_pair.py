"""A controller of a pair, booted for real: its user creates the folder that the controllers share, and the sandbox lets
the services in there.

Run by `make test-install`. The tests run in the order of this file.
"""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.install.booted import HOOK, WIRING, check, wheels
from tests.install.installation import NAME
from tests.install.machine import Machine, why_not_here
from tests.support.dashboard import API_KEY, ReceivingDashboard
from tests.support.waiting import wait_for

CONF = "/etc/slurm/slurm.conf"
STATE = "/var/lib/slurm/slurmctld"
FOLDER = f"{STATE}/{NAME}"

pytestmark = pytest.mark.timeout(900)
__all__ = ["wheels"]


@pytest.fixture(scope="module")
def machine(wheels: object) -> Iterator[Machine]:
    reason = why_not_here()
    if reason:
        pytest.fail(reason)
    with Machine(wheels) as booted:  # type: ignore[arg-type]
        yield booted


@pytest.fixture(scope="module")
def dashboard(machine: Machine) -> Iterator[ReceivingDashboard]:
    """With the exporter installed, and a slurm.conf that names a backup controller, which does not exist."""
    with machine.dashboard(deploy_keys={}) as board:
        machine.run("sed", "-i", "s/^SlurmctldHost=.*/&\\nSlurmctldHost=other(192.0.2.99)/", CONF)
        machine.run("chmod", "700", STATE)
        machine.run("systemctl", "restart", "slurmctld")
        machine.wait_for_slurm()
        machine.write("/root/key", API_KEY)
        options = ["--wheelhouse", "/wheels/bundle/wheelhouse", "--enable"]
        options += ["--api-url", board.url, "--api-key-file", "/root/key"]
        machine.run("/wheels/bundle/install.sh", *options)
        machine.run("tee", "-a", CONF, stdin=WIRING)
        machine.run("systemctl", "restart", "slurmctld")
        machine.wait_for_slurm()
        yield board


def test_the_slurm_user_creates_the_folder(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """Only the Slurm user has access to the folder."""
    assert "700 slurm" == machine.run("stat", "-c", "%a %U", FOLDER).strip()


def test_the_service_takes_its_turn(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """A service can use the folder from within its sandbox, as the Slurm user."""
    job = machine.run_job()
    wait_for(lambda: machine.succeeds("test -s " + f"/var/spool/{NAME}/queue"), "the hook's call")
    wait_for(lambda: _flush(machine) and job in dashboard.records, "the job", limit_seconds=200)
    found = machine.run("find", FOLDER, "-type", "f", "-printf", "%f %m %u\n").split("\n")
    assert {"turns.lock 600 slurm", "notices.controller 600 slurm", ""} == set(found)
    said = machine.run("journalctl", "-u", f"{NAME}-flush", "-o", "cat", "--no-pager")
    assert "cannot take turns" not in said


def test_check_sees_the_turns(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """As root and with the services' own sandbox."""
    found = check(machine)["controllers"]
    assert (True, f"controller and other take turns, using {FOLDER}") == (found["ok"], found["text"])


def test_a_folder_that_is_missing(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """The sandbox keeps the service from making it: jobs are sent without a turn, and check and journal say why."""
    machine.run("mv", FOLDER, "/root/aside")
    assert not check(machine)["controllers"]["ok"]
    job = machine.run_job()
    wait_for(lambda: _flush(machine) and job in dashboard.records, "the job", limit_seconds=200)
    said = machine.run("journalctl", "-u", f"{NAME}-flush", "-o", "cat", "--no-pager")
    assert f"cannot take turns with the other controllers using {FOLDER}/turns.lock" in said
    machine.run("mv", "/root/aside", FOLDER)
    assert check(machine)["controllers"]["ok"]


def test_purge_says_what_the_other_controllers_need(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """Removing the exporter from one host keeps the folder, which others use."""
    machine.run("sed", "-i", "/^JobComp/d", CONF)
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    said = machine.run(f"/opt/{NAME}/install.sh", "--purge")
    assert f"Kept: {FOLDER}, which the controllers share" in said
    assert machine.succeeds(f"test -d {FOLDER}")
    assert not machine.succeeds(f"test -e {HOOK}")


def _flush(machine: Machine) -> bool:
    if not machine.succeeds(f"systemctl start {NAME}-flush.service"):
        pytest.fail(machine.run("journalctl", "-u", f"{NAME}-flush", "-o", "cat", "--no-pager"))
    return True
