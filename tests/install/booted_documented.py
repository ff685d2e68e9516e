"""What the documents tell an admin to run, on a booted controller.

They try it before slurm.conf is edited, and copy the configuration to the second host of a pair.

Run by `make test-install`. The tests run in the order of this file.
"""

from __future__ import annotations

import re

import pytest

from tests.install.booted import CONFIG, TIMERS, check, dashboard, machine, wheels
from tests.install.installation import CHECKOUT, NAME
from tests.install.machine import Machine
from tests.support.dashboard import DEPLOY_KEY, ReceivingDashboard
from tests.support.waiting import wait_for

INSTALL = "/wheels/bundle/install.sh"
GUIDE = (CHECKOUT / "docs" / "installation.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.timeout(900)
__all__ = ["dashboard", "machine", "wheels"]


def test_trying_it_before_slurm_conf_is_edited(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """The commands of the guide deliver the week's jobs without a hook; check finds what it says, and nothing else."""
    job = machine.run_job()
    section = GUIDE.partition("## Try it before you edit slurm.conf")[2].partition("\n## ")[0]
    for line in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0].splitlines():
        words = line.partition(" #")[0].split()[1:]  # without sudo
        known = {"./install.sh": INSTALL, "https://dashboard.example.com": dashboard.url, "4711": job}
        said = machine.run(*(known.get(word, word) for word in words), stdin=DEPLOY_KEY, expect=int("check" in words))
        if "queue" not in words:
            assert ("reconcile" in words) == (job in dashboard.records), said
    faults = {name for name, finding in check(machine).items() if finding["ok"] is False}
    assert {"slurm.conf", "daily timer", "flush timer"} == faults


def test_a_copied_configuration(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """On the second controller install.sh keeps the first one's configuration, and its services deliver."""
    machine.run("tar", "-C", "/etc", "-cf", "/root/copy.tar", NAME)
    machine.run(INSTALL, "--purge")
    machine.run("tar", "-C", "/etc", "-xf", "/root/copy.tar")
    machine.run("chown", "root", CONFIG)
    machine.run(INSTALL, "--enable")
    assert "600 slurm" == machine.run("stat", "-c", "%a %U", CONFIG).strip()
    machine.run("systemctl", "is-active", *TIMERS)
    job = machine.run_job()
    wait_for(lambda: machine.succeeds(f"systemctl start {NAME}.service") and job in dashboard.records, "the job")
