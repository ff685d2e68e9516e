"""The deb in booted Debians 11, 12 and 13, from the first installation to the last file removed.

Run by `make test-packages`. Each test of a machine continues where the previous one ended, so they run in the order of
this file. They print what they measure: pytest -s shows it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Iterator

import pytest

from tests.install.installation import NAME
from tests.install.machine import Machine
from tests.packaging.building import VERSION, build_packages, build_zipapp
from tests.support.dashboard import DEPLOY_KEY, ReceivingDashboard
from tests.support.waiting import wait_for

CONFIG = f"/etc/{NAME}/config.toml"
SPOOL = f"/var/spool/{NAME}"
HOOK = f"/usr/libexec/{NAME}/jobcomp.sh"
ADAPT = f"/usr/libexec/{NAME}/adapt"
TIMERS = (f"{NAME}.timer", f"{NAME}-flush.timer")
WIRING = f"JobCompType=jobcomp/script\nJobCompLoc={HOOK}\n"
#: Where an installation could leave files. Logs, Slurm's own state and files in memory are not its own; dpkg
#: and apt have their own records.
NOT_SEARCHED: tuple[str, ...] = (
    "/var/log/",
    "/var/lib/slurm",
    "/var/lib/mysql",
    "/var/lib/munge",
    "/var/lib/dpkg/",
    "/var/lib/apt/",
)
NOT_SEARCHED += ("/var/cache/", "/tmp/", "/var/tmp/", "/run/", "/root/")
SEARCHED = "find / -xdev " + " ".join(f"-not -path '{place}*'" for place in NOT_SEARCHED)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two releases of the deb, and the RPM."""
    folder = tmp_path_factory.mktemp("debs")
    zipapp = build_zipapp(folder)
    build_packages(folder, zipapp, "--rpm")
    for release in ("1", "2"):
        build_packages(folder, zipapp, "--deb", "--release", release)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module", params=["bullseye", "bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, debs: Path) -> Iterator[Machine]:
    with Machine(debs, request.param) as machine:
        yield machine


@pytest.fixture(scope="module")
def files_before(machine: Machine) -> set[str]:
    """Every file of the machine before anything is installed."""
    return set(machine.run("sh", "-c", SEARCHED).splitlines())


@pytest.fixture(scope="module")
def dashboard(machine: Machine) -> Iterator[ReceivingDashboard]:
    with machine.dashboard(deploy_keys={DEPLOY_KEY: "booted"}) as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def installed(machine: Machine, files_before: set[str], dashboard: ReceivingDashboard) -> str:
    """Installs, sets up and enables the exporter, and wires the hook; returns the output of apt and the package."""
    assert files_before
    said = install(machine, "1")
    machine.run(NAME, "setup", "--api-url", dashboard.url, "--deploy-key", "-", stdin=DEPLOY_KEY)
    machine.run("systemctl", "enable", "--now", *TIMERS)
    machine.run("tee", "-a", "/etc/slurm/slurm.conf", stdin=WIRING)
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    return said


def install(machine: Machine, release: str) -> str:
    """Installs a release of the deb over the present one, without a network and without prompts."""
    deb = f"/wheels/{NAME}_{VERSION}-{release}_all.deb"
    options = ["--yes", "--no-install-recommends", "--allow-downgrades"]
    return machine.run("apt-get", "install", *options, deb, DEBIAN_FRONTEND="noninteractive")


def owner_and_mode(machine: Machine, path: str) -> str:
    return machine.run("stat", "-c", "%U:%G %a", path).strip()


def deliver(machine: Machine, dashboard: ReceivingDashboard) -> float:
    """Runs a job, and waits until the timers have delivered it; returns the seconds from its end."""
    job = machine.run_job()
    began = time.monotonic()
    wait_for(lambda: job in dashboard.records, f"job {job}", limit_seconds=420)
    return time.monotonic() - began


def active(machine: Machine) -> list[str]:
    return machine.run("systemctl", "is-active", *TIMERS, expect=None).split()


def version(machine: Machine) -> str:
    return machine.run("dpkg-query", "-W", "-f", "${Version} ${Status}", NAME)


def test_the_spool_and_the_key_belong_to_the_slurm_user(machine: Machine, installed: str) -> None:
    """Configuration and spool belong to the Slurm user from the installation on; everything else is root's."""
    assert "There is no user" not in installed
    assert "slurm:slurm 750" == owner_and_mode(machine, SPOOL)
    assert "slurm:slurm 600" == owner_and_mode(machine, CONFIG)
    assert "root:root 755" == owner_and_mode(machine, HOOK)
    assert "root:root 755" == owner_and_mode(machine, f"/etc/{NAME}")


def test_the_first_job_arrives(machine: Machine, installed: str, dashboard: ReceivingDashboard) -> None:
    """The first job arrives by hook and timer, with the distribution's Python."""
    assert installed
    seconds = deliver(machine, dashboard)
    print(f"\n{machine.run('cat', '/etc/debian_version').strip()}: first job {seconds:.0f} s after its end")


def test_check_finds_no_fault(machine: Machine, installed: str) -> None:
    """`check` finds the package's hook, and no fault."""
    assert installed
    machine.run("systemctl", "start", f"{NAME}.service")
    checks = json.loads(machine.run(NAME, "check", "--json", expect=None))["checks"]
    # The receiving dashboard speaks plain HTTP.
    wrong = {finding["name"]: finding["text"] for finding in checks if not finding["ok"]}
    assert {} == {name: text for name, text in wrong.items() if "http://" not in text}


def test_bytecode_is_compiled_once(machine: Machine, installed: str) -> None:
    """Bytecode exists, so that a flush, which cannot write there, starts as fast as from a virtual environment."""
    assert installed
    made = machine.run("find", f"/var/cache/{NAME}", "-path", "*/agent/cli.*.pyc")
    assert 1 == len(made.splitlines()), made


def test_dpkg_finds_every_file_as_it_was_packed(machine: Machine, installed: str) -> None:
    """`dpkg --verify` reports nothing after setup."""
    assert installed
    assert "" == machine.run("dpkg", "--verify", NAME)


@pytest.mark.parametrize("release", ["2", "1"], ids=["upgrade", "downgrade"])
def test_another_release_takes_over(
    machine: Machine, installed: str, dashboard: ReceivingDashboard, release: str
) -> None:
    """An upgrade keeps configuration, queue and enabled units; jobs queued before it are delivered afterwards."""
    assert installed
    machine.run("systemctl", "stop", f"{NAME}-flush.timer")
    job = machine.run_job()
    machine.run("systemctl", "start", f"{NAME}-flush.timer")
    before = machine.run("cat", CONFIG)
    machine.write(f"/etc/{NAME}/environment", "#a site's own line\n")
    install(machine, release)
    assert f"{VERSION}-{release} install ok installed" == version(machine)
    assert before == machine.run("cat", CONFIG)
    assert "#a site's own line\n" == machine.run("cat", f"/etc/{NAME}/environment")
    assert ["active", "active"] == active(machine)
    assert "slurm:slurm 750" == owner_and_mode(machine, SPOOL)
    wait_for(lambda: job in dashboard.records, f"job {job}", limit_seconds=420)


def test_a_second_run_of_adapt_changes_nothing(machine: Machine, installed: str) -> None:
    """`adapt` can be run again at any time, for example after SlurmUser has changed."""
    assert installed
    listing = ("sh", "-c", f"find /etc/{NAME} {SPOOL} /etc/tmpfiles.d /etc/systemd/system -printf '%p %u %m %T@\\n'")
    machine.run("systemctl", "stop", *TIMERS)
    machine.run("touch", f"/etc/tmpfiles.d/{NAME}.conf", "--date=@0")
    before = [line.rpartition(" ")[0] for line in machine.run(*listing).splitlines()]
    machine.run(ADAPT)
    assert before == [line.rpartition(" ")[0] for line in machine.run(*listing).splitlines()]
    machine.run("systemctl", "start", *TIMERS)


def test_systemd_makes_the_spool_again(machine: Machine, installed: str) -> None:
    """If /var is empty at boot, systemd-tmpfiles creates the spool with numeric owners, before name services are up."""
    assert installed
    machine.run("systemctl", "stop", *TIMERS)
    machine.run("mv", SPOOL, f"{SPOOL}.before")
    machine.run("systemd-tmpfiles", "--create")
    assert "slurm:slurm 750" == owner_and_mode(machine, SPOOL)
    machine.run("sh", "-c", f"rm -rf {SPOOL} && mv {SPOOL}.before {SPOOL}")
    machine.run("systemctl", "start", *TIMERS)


def wire(machine: Machine, *, wired: bool) -> None:
    """Adds the hook to slurm.conf, or removes it, and restarts slurmctld."""
    machine.run("sed", "-i", "/^JobComp/d", "/etc/slurm/slurm.conf")
    if wired:
        machine.run("tee", "-a", "/etc/slurm/slurm.conf", stdin=WIRING)
    restart_slurmctld(machine)


def restart_slurmctld(machine: Machine) -> None:
    """Restarts slurmctld, which from 24.11 on does not start if a script in slurm.conf is missing."""
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()


@pytest.mark.parametrize("command", ["remove", "purge"])
def test_the_package_stays_while_slurm_conf_names_its_hook(machine: Machine, installed: str, command: str) -> None:
    """While slurm.conf names the hook, nothing is removed and no timer stops, and slurmctld still starts."""
    assert installed
    said = machine.run("apt-get", command, "--yes", NAME, expect=100)
    assert "still names the hook, without which slurmctld might not start again:\n/etc/slurm/slurm.conf\n" in said
    assert f"{VERSION}-1 install ok installed" == version(machine)
    assert machine.succeeds(f"test -x {HOOK} && test -s {CONFIG}")
    assert ["active", "active"] == active(machine)
    restart_slurmctld(machine)


def test_removing_keeps_the_sites_files(machine: Machine, installed: str, dashboard: ReceivingDashboard) -> None:
    """Removal keeps configuration, queue and ledger; after a new installation everything works again."""
    assert installed
    wire(machine, wired=False)
    machine.run("apt-get", "remove", "--yes", NAME)
    restart_slurmctld(machine)
    assert ["inactive", "inactive"] == active(machine)
    assert machine.succeeds(f"test -s {CONFIG} && test -d {SPOOL} && ! test -e /var/cache/{NAME}")
    assert f"{VERSION}-1 deinstall ok config-files" == version(machine)
    install(machine, "1")
    machine.run("systemctl", "enable", "--now", *TIMERS)
    wire(machine, wired=True)
    deliver(machine, dashboard)


def test_purging_leaves_nothing(machine: Machine, installed: str, files_before: set[str]) -> None:
    """After a purge, the machine has the same files as before the installation."""
    assert installed
    wire(machine, wired=False)
    machine.run("apt-get", "purge", "--yes", NAME)
    left = set(machine.run("sh", "-c", SEARCHED).splitlines()) - files_before
    assert set() == {path for path in left if "slurm-usage" in path}
    print(f"\nothers' files since: {sorted(left)[:20]}")


def test_the_rpm_stays_while_slurm_conf_names_its_hook(
    machine: Machine, installed: str, debs: Path, tmp_path: Path
) -> None:
    """Installed by this host's rpm, it delivers a job, and can be removed once slurm.conf does not name the hook."""
    assert installed

    def rpm(*options: str, expect: int = 0) -> str:
        return machine.outside("rpm", "--root", str(machine.root), *options, expect=expect)

    with machine.dashboard(deploy_keys={DEPLOY_KEY: "booted"}) as dashboard:
        rpm("-Uvh", "--nodeps", str(debs / f"{NAME}-{VERSION}-1.noarch.rpm"))
        assert "slurm:slurm 750" == owner_and_mode(machine, SPOOL)
        machine.run(NAME, "setup", "--api-url", dashboard.url, "--deploy-key", "-", stdin=DEPLOY_KEY)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "--now", *TIMERS)
        wire(machine, wired=True)
        deliver(machine, dashboard)
        assert "still names the hook" in rpm("-e", NAME, expect=1)
        assert rpm("-q", NAME)
        restart_slurmctld(machine)
        wire(machine, wired=False)
        machine.run("systemctl", "stop", *TIMERS)  # systemd cannot be notified of it by a script in a root folder
        rpm("-e", NAME)
        restart_slurmctld(machine)
        assert machine.succeeds(f"test -s {CONFIG} && test -d {SPOOL} && ! test -e {HOOK}")
    machine.run("sh", "-c", f"rm -rf /etc/{NAME} {SPOOL} /etc/tmpfiles.d/{NAME}.conf /var/lib/rpm")
    machine.run("systemctl", "daemon-reload")


def test_adapt_completes_an_installation_before_slurm(machine: Machine, installed: str) -> None:
    """Installed into an image before Slurm, the package reports that; `adapt` changes the spool's owner later."""
    assert installed
    machine.run("systemctl", "stop", "slurmctld", "slurmdbd", "slurmd")
    machine.run("cp", "/etc/passwd", "/etc/group", "/root")
    machine.run("sed", "-i", "s/^slurm:/later:/", "/etc/passwd", "/etc/group")
    said = install(machine, "1")
    assert f"There is no user slurm yet. Once Slurm is installed, run: sudo {ADAPT}" in said
    assert "root:root 750" == owner_and_mode(machine, SPOOL)
    machine.run("cp", "/root/passwd", "/root/group", "/etc")
    assert "" == machine.run(ADAPT)
    assert "slurm:slurm 750" == owner_and_mode(machine, SPOOL)
    assert "slurm:slurm 600" == owner_and_mode(machine, CONFIG)


def test_the_units_run_as_another_slurm_user(machine: Machine, installed: str) -> None:
    """A SlurmUser with another name is set in a drop-in, which an upgrade keeps and a purge removes."""
    assert installed
    machine.run("useradd", "--system", "hpc")
    machine.run("sed", "-i", "s/^SlurmUser=.*/SlurmUser=hpc/", "/etc/slurm/slurm.conf")
    machine.run(ADAPT)
    assert "hpc:hpc 750" == owner_and_mode(machine, SPOOL)
    install(machine, "2")
    services = [f"{NAME}.service", f"{NAME}-flush.service"]
    users = machine.run("systemctl", "show", "--property=User", "--value", *services)
    assert ["hpc", "hpc"] == users.split()
    machine.run("apt-get", "purge", "--yes", NAME)
    assert "" == machine.run(
        "sh", "-c", f"find / -xdev -name '*{NAME}*' -not -path '/var/lib/*' -not -path '/wheels/*'"
    )
