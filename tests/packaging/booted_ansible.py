"""The Ansible role against booted Debians with a Slurm: package and bundle, wiring, and a second run without a change.

Run by `make test-packages`. They run in the order of this file.
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
SLURM_CONF = "/etc/slurm/slurm.conf"
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
    """A site that manages its controller with Ansible."""

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
        """Applies the role; returns the number of changed tasks, and the output."""
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
    """ansible-lint passes in its strictest profile."""
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
    """A missing setting fails the role in one sentence, before anything is changed on the host."""
    _, said = site.play(api_key=None, expect=2)
    assert f"{ROLE}_api_key" in said
    assert not machine.succeeds(f"test -e /etc/{NAME}")


def test_the_first_run_delivers_jobs(
    site: Site, machine: Machine, dashboard: ReceivingDashboard, artefacts: Path
) -> None:
    """The role sets up package, configuration and timers, and, as the site allows it, the hook in slurm.conf."""
    changed, said = site.play(package=deb(artefacts), wire=True, within_seconds=True)
    print(f"\nfirst run: changed={changed}")
    assert changed > 0
    assert API_KEY not in said
    assert f"JobCompLoc={PACKAGE_HOOK}" in machine.run("cat", "/etc/slurm/slurm.conf")
    machine.wait_for_slurm()
    deliver(machine, dashboard)
    assert "slurm 600\n" == machine.run("stat", "-c", "%U %a", f"/etc/{NAME}/config.toml")


def test_the_second_run_changes_nothing(site: Site, machine: Machine, artefacts: Path) -> None:
    """A second run changes neither a file nor a service."""
    started = ("systemctl", "show", "--property=ActiveEnterTimestamp", "slurmctld", f"{NAME}.timer")
    before = machine.run(*started)
    changed, said = site.play(package=deb(artefacts), wire=True, within_seconds=True)
    assert 0 == changed, said
    assert before == machine.run(*started)


def test_only_the_changed_setting_changes(site: Site, machine: Machine, artefacts: Path) -> None:
    """A changed setting is applied without restarting slurmctld."""
    settings = {"cluster_name": "booted", "batch_size": 1000}
    changed, said = site.play(package=deb(artefacts), wire=True, within_seconds=True, settings=settings)
    assert 1 == changed, said
    assert "batch_size = 1000\n" in machine.run("cat", f"/etc/{NAME}/config.toml")


def test_another_plugin_is_kept(site: Site, machine: Machine, artefacts: Path) -> None:
    """If elasticsearch uses JobCompType, the role leaves it and says what to do."""
    machine.run("sed", "-i", "s|^JobCompType=.*|JobCompType=jobcomp/elasticsearch|", "/etc/slurm/slurm.conf")
    before = machine.run("cat", "/etc/slurm/slurm.conf")
    _, said = site.play(package=deb(artefacts), wire=True, expect=2)
    assert "has another JobCompType" in said
    assert before == machine.run("cat", "/etc/slurm/slurm.conf")
    machine.run("sed", "-i", "/^JobComp/d", "/etc/slurm/slurm.conf")


def test_without_consent_slurm_is_not_changed(site: Site, machine: Machine, artefacts: Path) -> None:
    """Neither slurm.conf nor slurmctld is touched by default."""
    before = machine.run("cat", "/etc/slurm/slurm.conf")
    site.play(package=deb(artefacts))
    assert before == machine.run("cat", "/etc/slurm/slurm.conf")


def test_each_instance_has_its_configuration_and_timers(site: Site, machine: Machine, artefacts: Path) -> None:
    """One with a hook, one seen through slurmdbd alone; a second run changes nothing, a changed setting one file."""
    physics = {"name": "physics", "api_url": "http://127.0.0.1:9", "api_key": "of-physics", "slurm_conf": SLURM_CONF}
    viewer = {"name": "viewer", "api_url": "http://127.0.0.1:9", "api_key": "of-viewer", "hook": False}
    viewer["settings"] = {"slurm_cluster": "second"}
    changed, said = site.play(package=deb(artefacts), instances=[physics, viewer])
    assert changed > 0
    assert "of-physics" not in said
    assert "of-viewer" not in said
    timers = [f"{NAME}{kind}@{name}.timer" for name in ("physics", "viewer") for kind in ("", "-flush")]
    states = machine.run("systemctl", "is-active", *timers, expect=None).split()
    assert ["active", "active", "active", "inactive"] == states
    assert "slurm 600\n" == machine.run("stat", "-c", "%U %a", f"/etc/{NAME}/viewer/config.toml")
    assert "of-viewer" in machine.run("cat", f"/etc/{NAME}/viewer/config.toml")
    assert f"SLURM_CONF={SLURM_CONF}\n" in machine.run("cat", f"/etc/{NAME}/physics/environment")
    again, said = site.play(package=deb(artefacts), instances=[physics, viewer])
    assert 0 == again, said
    viewer["settings"] = {"slurm_cluster": "third"}
    assert 1 == site.play(package=deb(artefacts), instances=[physics, viewer])[0]
    _, said = site.play(package=deb(artefacts), instances=[{**physics, "name": "../etc"}], expect=2)
    assert "An instance is named with letters" in said


def test_the_bundle_works_too(site: Site, machine: Machine, dashboard: ReceivingDashboard, artefacts: Path) -> None:
    """Once the package is removed, the bundle replaces it with the same configuration; a second run changes nothing."""
    machine.run("apt-get", "remove", "--yes", NAME)
    bundle = str(artefacts / f"{NAME}-{VERSION}-bundle.tar.gz")
    assert site.play(bundle=bundle, wire=True)[0] > 0
    assert f"JobCompLoc={BUNDLE_HOOK}" in machine.run("cat", "/etc/slurm/slurm.conf")
    machine.wait_for_slurm()
    deliver(machine, dashboard)
    changed, said = site.play(bundle=bundle, wire=True)
    assert 0 == changed, said


def test_from_install_sh_to_the_package(
    machine: Machine, site: Site, dashboard: ReceivingDashboard, artefacts: Path
) -> None:
    """The lines that the package prints, run in that order, replace install.sh's installation."""
    said = machine.run("apt-get", "install", "--yes", "--no-install-recommends", f"/wheels/{Path(deb(artefacts)).name}")
    assert "install.sh has installed it as well" in said
    assert f"let slurm.conf name {PACKAGE_HOOK}, and restart slurmctld" in said.replace("Let", "let")
    uninstall = [f"/opt/{NAME}/install.sh", "--uninstall"]
    assert "still names" in machine.run(*uninstall, expect=1)
    machine.run("sed", "-i", f"s|^JobCompLoc=.*|JobCompLoc={PACKAGE_HOOK}|", SLURM_CONF)
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    machine.run(*uninstall)
    machine.run("systemctl", "enable", "--now", f"{NAME}.timer", f"{NAME}-flush.timer")
    assert f"/usr/bin/{NAME}\n" == machine.run("sh", "-c", f"command -v {NAME}")
    assert "" == machine.run("dpkg", "--verify", NAME)
    deliver(machine, dashboard)
    assert site


def test_install_sh_does_not_install_over_the_package(machine: Machine, artefacts: Path) -> None:
    """Two programs would work on one spool."""
    bundle = f"/wheels/{NAME}-{VERSION}-bundle.tar.gz"
    machine.run("sh", "-c", f"mkdir /root/bundle && tar -C /root/bundle --strip-components=1 -xzf {bundle}")
    assert f"a package of {NAME} is installed" in machine.run("/root/bundle/install.sh", expect=1)
    assert artefacts


def test_an_upgrade_while_a_flush_runs(machine: Machine, dashboard: ReceivingDashboard, artefacts: Path) -> None:
    """A flush that runs during a reinstallation keeps its program, and delivers."""
    machine.run("systemctl", "stop", f"{NAME}-flush.timer")
    job = machine.run_job()
    machine.run("systemctl", "start", "--no-block", f"{NAME}-flush.service")
    name = Path(deb(artefacts)).name
    machine.run("apt-get", "install", "--yes", "--no-install-recommends", "--reinstall", f"/wheels/{name}")
    wait_for(lambda: job in dashboard.records, f"job {job}", limit_seconds=120)
    result = ("systemctl", "show", "--property=Result", "--value", f"{NAME}-flush.service")
    wait_for(lambda: machine.run(*result) == "success\n", "a flush that ends well", limit_seconds=60)


def test_the_earlier_exporters_units_and_configuration(machine: Machine, artefacts: Path) -> None:
    """Its config.json is used and gets no config.toml beside it; its units would hide the package's: said by name."""
    machine.run("sed", "-i", "/^JobComp/d", SLURM_CONF)
    machine.run("systemctl", "restart", "slurmctld")
    machine.run("apt-get", "purge", "--yes", NAME)
    settings = {"api_url": "http://127.0.0.1:9", "api_key": "key", "cluster_name": "booted"}
    machine.write(f"/etc/{NAME}/config.json", json.dumps(settings))
    unit = f"/etc/systemd/system/{NAME}.timer"
    machine.write(unit, "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")
    said = machine.run("apt-get", "install", "--yes", "--no-install-recommends", f"/wheels/{Path(deb(artefacts)).name}")
    assert f"{unit} hides the package's own: remove it, and run systemctl daemon-reload" in said
    assert not machine.succeeds(f"test -e /etc/{NAME}/config.toml")
    assert "slurm 600\n" == machine.run("stat", "-c", "%U %a", f"/etc/{NAME}/config.json")
    machine.run("rm", unit)
    machine.run("systemctl", "daemon-reload")
    where = machine.run("systemctl", "show", "--property=FragmentPath", "--value", f"{NAME}.timer")
    assert where.strip().endswith(f"lib/systemd/system/{NAME}.timer")
