"""The Ansible role against booted Debians with a Slurm: package and bundle, wiring, and a second run without a change.

Run by `make test-packages`. In the order in which they stand here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.install.installation import CHECKOUT, NAME
from tests.install.machine import Machine
from tests.packaging.ansible import install_tools, make_inventory
from tests.packaging.building import VERSION, build_packages, build_zipapp
from tests.support.dashboard import API_KEY, ReceivingDashboard
from tests.support.waiting import wait_for

ROLE = "slurm_usage_history_exporter"
PACKAGE_HOOK = f"/usr/libexec/{NAME}/jobcomp.sh"
BUNDLE_HOOK = f"/opt/{NAME}/bin/jobcomp.sh"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def tools() -> Path:
    return install_tools()


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deb and the bundle."""
    folder = tmp_path_factory.mktemp("artefacts")
    build_packages(folder, build_zipapp(folder), "--deb")
    build = [sys.executable, str(CHECKOUT / "etc/bundle.py"), "--bundle", "--python", "3.11", str(folder)]
    subprocess.run(build, check=True, capture_output=True)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def machine(artefacts: Path) -> Iterator[Machine]:
    with Machine(artefacts) as machine:
        yield machine


@pytest.fixture(scope="module")
def dashboard(machine: Machine) -> Iterator[ReceivingDashboard]:
    with machine.dashboard() as dashboard:
        yield dashboard


class Site:
    """A site that keeps its controller by Ansible."""

    def __init__(self, tools: Path, machine: Machine, dashboard: ReceivingDashboard, folder: Path) -> None:
        self._tools = tools
        self._folder = folder
        self._inventory = make_inventory(machine, folder)
        self._settings = {
            f"{ROLE}_api_url": dashboard.url,
            f"{ROLE}_api_key": API_KEY,
            f"{ROLE}_settings": {"cluster_name": "booted"},
        }

    def play(self, *options: str, expect: int = 0, **settings: Any) -> tuple[int, str]:
        """Applies the role; returns how many tasks have changed something, and all that was said."""
        variables = {**self._settings, **{f"{ROLE}_{name}": value for name, value in settings.items()}}
        variables = {name: value for name, value in variables.items() if value is not None}
        playbook = self._folder / "site.json"
        roles = [{"role": ROLE, "vars": variables}]
        playbook.write_text(json.dumps([{"hosts": "slurm_controllers", "gather_facts": True, "roles": roles}]))
        done = subprocess.run(
            [str(self._tools / "ansible-playbook"), "-i", str(self._inventory), "--diff", *options, str(playbook)],
            check=False,
            env={**os.environ, "ANSIBLE_ROLES_PATH": str(CHECKOUT / "etc/ansible/roles"), "ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert expect == done.returncode, done.stdout
        changed = re.search(r"changed=(\d+)", done.stdout)
        return int(changed[1]) if changed else 0, done.stdout


@pytest.fixture(scope="module")
def site(
    tools: Path, machine: Machine, dashboard: ReceivingDashboard, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    return Site(tools, machine, dashboard, tmp_path_factory.mktemp("site"))


def deb(artefacts: Path) -> str:
    return str(artefacts / f"{NAME}_{VERSION}-1_all.deb")


def deliver(machine: Machine, dashboard: ReceivingDashboard) -> None:
    job = machine.run_job()
    wait_for(lambda: job in dashboard.records, f"job {job}", limit_seconds=420)


def test_ansible_lint_finds_nothing(tools: Path, tmp_path: Path) -> None:
    """In its strictest profile."""
    options = ["--offline", "--strict", "--profile", "production"]
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    lint = subprocess.run(
        [str(tools / "ansible-lint"), *options, "etc/ansible"],
        check=False,
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert 0 == lint.returncode, lint.stdout


def test_a_playbook_without_a_key_is_refused(site: Site, machine: Machine) -> None:
    """Before anything is done on the host, and in one sentence."""
    _, said = site.play(api_key=None, expect=2)
    assert f"{ROLE}_api_key" in said
    assert not machine.succeeds(f"test -e /etc/{NAME}")


def test_the_first_run_brings_jobs_to_the_dashboard(
    site: Site, machine: Machine, dashboard: ReceivingDashboard, artefacts: Path
) -> None:
    """Package, configuration, timers, and the hook in slurm.conf, as the site has said yes to it."""
    changed, said = site.play(package=deb(artefacts), wire=True, within_seconds=True)
    print(f"\nfirst run: changed={changed}")
    assert changed > 0
    assert API_KEY not in said
    assert f"JobCompLoc={PACKAGE_HOOK}" in machine.run("cat", "/etc/slurm/slurm.conf")
    machine.wait_for_slurm()
    deliver(machine, dashboard)
    assert "slurm 600\n" == machine.run("stat", "-c", "%U %a", f"/etc/{NAME}/config.toml")


def test_the_second_run_changes_nothing(site: Site, machine: Machine, artefacts: Path) -> None:
    """Neither a file nor a service."""
    started = ("systemctl", "show", "--property=ActiveEnterTimestamp", "slurmctld", f"{NAME}.timer")
    before = machine.run(*started)
    changed, said = site.play(package=deb(artefacts), wire=True, within_seconds=True)
    assert 0 == changed, said
    assert before == machine.run(*started)


def test_a_changed_setting_is_all_that_changes(site: Site, machine: Machine, artefacts: Path) -> None:
    """And slurmctld is left alone."""
    settings = {"cluster_name": "booted", "batch_size": 1000}
    changed, said = site.play(package=deb(artefacts), wire=True, within_seconds=True, settings=settings)
    assert 1 == changed, said
    assert "batch_size = 1000\n" in machine.run("cat", f"/etc/{NAME}/config.toml")


def test_another_plugin_keeps_its_place(site: Site, machine: Machine, artefacts: Path) -> None:
    """The role does not take JobCompType from elasticsearch; it says what to do."""
    machine.run("sed", "-i", "s|^JobCompType=.*|JobCompType=jobcomp/elasticsearch|", "/etc/slurm/slurm.conf")
    before = machine.run("cat", "/etc/slurm/slurm.conf")
    _, said = site.play(package=deb(artefacts), wire=True, expect=2)
    assert "has another JobCompType" in said
    assert before == machine.run("cat", "/etc/slurm/slurm.conf")
    machine.run("sed", "-i", "/^JobComp/d", "/etc/slurm/slurm.conf")


def test_without_a_yes_slurm_is_left_alone(site: Site, machine: Machine, artefacts: Path) -> None:
    """Neither slurm.conf nor slurmctld is touched by default."""
    before = machine.run("cat", "/etc/slurm/slurm.conf")
    site.play(package=deb(artefacts))
    assert before == machine.run("cat", "/etc/slurm/slurm.conf")


def test_the_bundle_does_as_well(site: Site, machine: Machine, dashboard: ReceivingDashboard, artefacts: Path) -> None:
    """By install.sh, with the same configuration, once the package is gone; and it is idempotent, too."""
    machine.run("apt-get", "remove", "--yes", NAME)
    bundle = str(artefacts / f"{NAME}-{VERSION}-bundle.tar.gz")
    assert site.play(bundle=bundle, wire=True)[0] > 0
    assert f"JobCompLoc={BUNDLE_HOOK}" in machine.run("cat", "/etc/slurm/slurm.conf")
    machine.wait_for_slurm()
    deliver(machine, dashboard)
    changed, said = site.play(bundle=bundle, wire=True)
    assert 0 == changed, said
