"""Several from one booted host: two slurmctlds, two dashboards for one cluster, one cluster seen by slurmdbd alone.

Run by `make test-packages`. They run in the order of this file. Both clusters give the same JobIDs.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Iterator

import pytest

from tests.install.installation import NAME
from tests.install.machine import SLURM_CONF, Machine
from tests.packaging.building import VERSION, build_packages, build_zipapp
from tests.support.dashboard import DEPLOY_KEY, ReceivingDashboard
from tests.support.waiting import wait_for

HOOK = f"/usr/libexec/{NAME}/jobcomp.sh"
ADAPT = f"/usr/libexec/{NAME}/adapt"
SECOND_CONF = "/etc/slurm-second/slurm.conf"
#: Each with the cluster whose jobs it has to show. The host's own instance has no name.
INSTANCES = {"": "booted", "test": "booted", "second": "second", "viewer": "second"}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("debs")
    (made,) = build_packages(folder, build_zipapp(folder), "--deb")
    folder.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    with Machine(deb.parent) as machine:
        start_second_cluster(machine)
        yield machine


def start_second_cluster(machine: Machine) -> None:
    """A second slurmctld and slurmd on the same host, with the same slurmdbd."""
    conf = SLURM_CONF.replace("ClusterName=booted", "ClusterName=second")
    conf = conf.replace("/var/lib/slurm/slurm", "/var/lib/slurm/second-slurm")
    conf += "SlurmctldPort=7817\nSlurmdPort=7818\n"
    conf += "SlurmctldPidFile=/run/second-slurmctld.pid\nSlurmdPidFile=/run/second-slurmd.pid\n"
    machine.write(SECOND_CONF, f"{conf}JobCompType=jobcomp/script\nJobCompLoc=/etc/{NAME}/second/jobcomp.sh\n")
    machine.write("/etc/slurm-second/cgroup.conf", "")
    machine.run("install", "-d", "-o", "slurm", "/var/lib/slurm/second-slurmctld")


@pytest.fixture(scope="module")
def dashboards(machine: Machine) -> Iterator[dict[str, ReceivingDashboard]]:
    """A dashboard for each instance, which accepts a deploy key for its cluster."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(machine.dashboard(deploy_keys={DEPLOY_KEY: cluster}))
            for name, cluster in INSTANCES.items()
        }


def call(machine: Machine, instance: str, *arguments: str, expect: int | None = 0, stdin: str = "") -> str:
    """Runs the exporter for an instance."""
    option = ("--instance", instance) if instance else ()
    conf = SECOND_CONF if instance == "second" else "/etc/slurm/slurm.conf"
    return machine.run(NAME, *option, *arguments, expect=expect, stdin=stdin, SLURM_CONF=conf)


def units(instance: str) -> tuple[str, str]:
    suffix = f"@{instance}" if instance else ""
    return f"{NAME}{suffix}.timer", f"{NAME}-flush{suffix}.timer"


@pytest.fixture(scope="module")
def installed(machine: Machine, deb: Path, dashboards: dict[str, ReceivingDashboard]) -> None:
    """The package, three instances beside the host's own, and both slurmctlds wired."""
    machine.run("apt-get", "install", "--yes", "--no-install-recommends", f"/wheels/{deb.name}")
    said = machine.run(ADAPT, "second", SLURM_CONF=SECOND_CONF)
    assert f"Set its hook in slurm.conf: JobCompLoc=/etc/{NAME}/second/jobcomp.sh" in said
    machine.run(ADAPT, "test")
    machine.run(ADAPT, "viewer")
    for instance, dashboard in dashboards.items():
        call(machine, instance, "setup", "--api-url", dashboard.url, "--deploy-key", "-", stdin=DEPLOY_KEY)
    machine.run("tee", "-a", f"/etc/{NAME}/viewer/config.toml", stdin='slurm_cluster = "second"\n')
    # One slurmctld, two dashboards: its script calls the hook for each.
    both = f"#!/bin/sh\n{HOOK}\nSLURM_USAGE_HISTORY_SPOOL=/var/spool/{NAME}@test {HOOK}\nexit 0\n"
    machine.write("/etc/slurm/jobcomp.sh", both)
    machine.run("chmod", "755", "/etc/slurm/jobcomp.sh")
    wiring = "JobCompType=jobcomp/script\nJobCompLoc=/etc/slurm/jobcomp.sh\n"
    machine.run("tee", "-a", "/etc/slurm/slurm.conf", stdin=wiring)
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    machine.run("systemd-run", "--unit=second-slurmctld", "slurmctld", "-D", "-f", SECOND_CONF)
    machine.run("systemd-run", "--unit=second-slurmd", "slurmd", "-D", "-N", "controller", "-f", SECOND_CONF)
    idle = ("sinfo", "-h", "-o", "%T")
    wait_for(lambda: "idle" in machine.run(*idle, expect=None, SLURM_CONF=SECOND_CONF), "a node", limit_seconds=120)
    for instance in ("", "test", "second"):
        machine.run("systemctl", "enable", "--now", *units(instance))
    machine.run("systemctl", "enable", "--now", f"{NAME}@viewer.timer")  # it has no hook, and nothing to flush


def run_jobs(machine: Machine, count: int, conf: str = "/etc/slurm/slurm.conf") -> list[str]:
    sbatch = ("sbatch", "--parsable", "--wait", "--output=/dev/null", "--wrap=true")
    return [machine.run(*sbatch, SLURM_CONF=conf).strip() for _ in range(count)]


def shown(dashboard: ReceivingDashboard) -> set[tuple[str, str]]:
    return {(record["Cluster"], job) for job, record in dashboard.records.items()}


def wait_for_jobs(dashboard: ReceivingDashboard, wanted: set[tuple[str, str]]) -> None:
    wait_for(lambda: shown(dashboard) == wanted, f"{wanted}, and no other", limit_seconds=420)


def test_each_job_is_on_its_dashboard_and_on_no_other(
    machine: Machine, installed: None, dashboards: dict[str, ReceivingDashboard]
) -> None:
    """Two dashboards get the first cluster's jobs by hook and timers, the third gets the second cluster's."""
    jobs = {"booted": run_jobs(machine, 3), "second": run_jobs(machine, 2, SECOND_CONF)}
    assert set(jobs["booted"]) & set(jobs["second"]), "they give the same JobIDs, or the test means little"
    expected = {cluster: {(cluster, job) for job in ids} for cluster, ids in jobs.items()}
    for instance in ("", "test", "second"):
        wait_for_jobs(dashboards[instance], expected[INSTANCES[instance]])
        hostnames = {post.content["hostname"] for post in dashboards[instance].posts if post.jobs}
        assert {INSTANCES[instance]} == hostnames
    counted = [post.jobs for instance in ("", "test", "second") for post in dashboards[instance].posts]
    assert 3 + 3 + 2 == sum(map(len, counted)), "each job once"


def test_a_cluster_is_reconciled_through_slurmdbd_alone(
    machine: Machine, installed: None, dashboards: dict[str, ReceivingDashboard]
) -> None:
    """Without a hook and a slurmctld only this cluster's jobs arrive, though others have the same JobIDs."""
    machine.run("systemctl", "stop", "second-slurmctld")
    machine.run("systemctl", "start", f"{NAME}@viewer.service")
    assert shown(dashboards["second"]) == shown(dashboards["viewer"])
    assert 2 == len(shown(dashboards["viewer"]))
    machine.run("systemd-run", "--unit=second-slurmctld", "slurmctld", "-D", "-f", SECOND_CONF)


def test_status_asks_no_hook_of_an_instance_without_one(machine: Machine, installed: None) -> None:
    """`status` expects no hook of an instance without one, and reports every instance as ok."""
    for instance in INSTANCES:
        said = call(machine, instance, "status", "--check", expect=None)
        assert said.startswith("OK") or "OK" in said.split(":")[0] or " OK" in said[:40], f"{instance}: {said}"


def test_check_finds_no_fault_in_any_instance(machine: Machine, installed: None) -> None:
    """`check` tests the instance's own configuration, spool, hook and timers."""
    idle = ("sinfo", "-h", "-o", "%T")
    wait_for(lambda: "idle" in machine.run(*idle, expect=None, SLURM_CONF=SECOND_CONF), "a node", limit_seconds=120)
    for instance in ("", "test", "second"):
        findings = json.loads(call(machine, instance, "check", "--json", expect=None))["checks"]
        reported = {finding["name"]: finding["text"] for finding in findings}
        wrong = {finding["name"]: finding["text"] for finding in findings if not finding["ok"]}
        assert {} == {name: text for name, text in wrong.items() if name != "shown"}, instance
        suffix = f"@{instance}" if instance else ""
        assert f"/var/spool/{NAME}{suffix}" in reported["hook"]
        assert reported["spool"].startswith(f"/var/spool/{NAME}{suffix}, owned by slurm")


def test_a_hook_that_forgets_an_instance_is_noticed(machine: Machine, installed: None) -> None:
    """If the script lacks a line for the instance, `check` names the spool and the line to add."""
    machine.run("sed", "-i", "/@test/d", "/etc/slurm/jobcomp.sh")
    findings = json.loads(call(machine, "test", "check", "--json", expect=1))["checks"]
    hook = next(finding for finding in findings if finding["name"] == "hook")
    assert not hook["ok"]
    assert re.search(f"SLURM_USAGE_HISTORY_SPOOL=/var/spool/{NAME}@test", hook["mend"])


def test_instances_survive_an_upgrade_and_are_purged(machine: Machine, installed: None, deb: Path) -> None:
    """An upgrade keeps the instances' timers running; a purge removes the instances completely."""
    machine.run("apt-get", "install", "--yes", "--reinstall", f"/wheels/{deb.name}")
    timers = [timer for instance in ("", "test", "second") for timer in units(instance)]
    assert ["active"] * len(timers) == machine.run("systemctl", "is-active", *timers, expect=None).split()
    machine.run("systemctl", "stop", "slurmctld", "second-slurmctld")
    assert f"again:\n{SECOND_CONF}\n" in machine.run("apt-get", "purge", "--yes", NAME, expect=100)
    machine.run("sed", "-i", "/^JobComp/d", SECOND_CONF)
    machine.run("apt-get", "purge", "--yes", NAME)
    assert ["inactive"] * len(timers) == machine.run("systemctl", "is-active", *timers, expect=None).split()
    left = machine.run("sh", "-c", f"find / -xdev -name '*{NAME}*' -not -path '/var/lib/*' -not -path '/wheels/*'")
    assert "" == left
    assert VERSION
