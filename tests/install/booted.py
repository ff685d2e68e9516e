"""A production controller, booted for real: systemd, munge, MariaDB and Slurm from packages, as user slurm.

Run by `make test-install`. The tests share one machine, from the first installation to the removal of the last file,
and run in the order of this file. They print what they measure: pytest -s shows it.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tarfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.install.installation import CHECKOUT, NAME
from tests.install.machine import Machine
from tests.install.proxy import Proxy
from tests.support.certificate import make_certificate
from tests.support.dashboard import API_KEY, DEPLOY_KEY, Answer, ReceivingDashboard
from tests.support.waiting import wait_for

CONFIG = f"/etc/{NAME}/config.toml"
SPOOL = f"/var/spool/{NAME}"
HOOK = f"/opt/{NAME}/bin/jobcomp.sh"
TIMERS = (f"{NAME}.timer", f"{NAME}-flush.timer")
WATCH = f"{NAME}-flush.path"
SHORT = f"/etc/systemd/system/{NAME}-flush-soon.timer.d/short.conf"
WIRING = f"JobCompType=jobcomp/script\nJobCompLoc={HOOK}\n"
#: Where an installation could leave files. Logs, Slurm's own state and files in memory are not its own.
NOT_SEARCHED = (
    "/root/exporter",
    "/var/log/",
    "/var/lib/slurm",
    "/var/lib/mysql",
    "/var/lib/munge",
    "/tmp/",
    "/var/tmp/",
    "/run/",
)
SEARCHED = "find / -xdev " + " ".join(f"-not -path '{place}*'" for place in NOT_SEARCHED)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, unpacked, with the zipapp and the repository beside it."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, str(CHECKOUT / "etc" / "bundle.py"), "--python", "3.11", str(folder)]
    made = subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    with tarfile.open(made[0]) as archive:
        archive.extractall(folder)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    unpacked.rename(folder / "bundle")
    folder.chmod(0o755)  # every user installs from it
    # The checkout may be one of several work trees, whose repository lies elsewhere.
    subprocess.run(["git", "clone", "--quiet", "--bare", str(CHECKOUT), str(folder / "exporter.git")], check=True)
    return folder


@pytest.fixture(scope="module")
def machine(wheels: Path) -> Iterator[Machine]:
    with Machine(wheels) as machine:
        yield machine


@pytest.fixture(scope="module")
def files_before(machine: Machine) -> set[str]:
    """The files of the machine before the installation."""
    return set(machine.run("sh", "-c", SEARCHED).splitlines())


@pytest.fixture(scope="module")
def dashboard(machine: Machine) -> Iterator[ReceivingDashboard]:
    with machine.dashboard(deploy_keys={DEPLOY_KEY: "booted"}) as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def seconds_to_first_job(machine: Machine, files_before: set[str], dashboard: ReceivingDashboard) -> float:
    """Installs with four commands, and waits for the first job. Nothing after this is manual."""
    assert files_before
    began = time.monotonic()
    machine.run("git", "clone", "--quiet", "/wheels/exporter.git", "/root/exporter")
    options = ["--wheelhouse", "/wheels/bundle/wheelhouse", "--enable"]  # the machine can't reach PyPI
    options += ["--api-url", dashboard.url, "--deploy-key", "-"]
    said = machine.run("/root/exporter/install.sh", *options, stdin=DEPLOY_KEY)
    assert WIRING == "".join(f"{line}\n" for line in re.findall("^    ([A-Z]\\w+=.*)", said, re.MULTILINE))
    machine.run("tee", "-a", "/etc/slurm/slurm.conf", stdin=WIRING)
    machine.run("systemctl", "restart", "slurmctld")
    job = machine.run_job()
    wait_for(lambda: job in dashboard.records, "the first job", limit_seconds=400)
    return time.monotonic() - began


def wait_for_job(dashboard: ReceivingDashboard, job: str, limit_seconds: float = 400) -> float:
    """Waits until a job is on the dashboard, and returns the seconds it took from its end.

    Slurm gives the end in whole seconds, so this is up to a second too long.
    """
    wait_for(lambda: job in dashboard.records, f"job {job}", limit_seconds=limit_seconds)
    arrived = next(post.arrived for post in dashboard.posts if job in {record["JobID"] for record in post.jobs})
    return arrived - datetime.fromisoformat(dashboard.records[job]["End"]).timestamp()


def check(machine: Machine, **environ: str) -> dict[str, dict[str, Any]]:
    """What `check` finds, by name. It exits 0 only if all is well."""
    answer = json.loads(machine.run(NAME, "check", "--json", expect=None, **environ))
    return {finding["name"]: finding for finding in answer["checks"]}


def not_well(machine: Machine) -> dict[str, str]:
    return {name: finding["text"] for name, finding in check(machine).items() if not finding["ok"]}


def flushes(machine: Machine, since: float) -> list[float]:
    """When the flush service was started since a moment, in epoch seconds."""
    journal = ["journalctl", "-u", f"{NAME}-flush.service", f"--since=@{since:.0f}", "--no-pager", "-o", "short-unix"]
    return [float(line.split()[0]) for line in machine.run(*journal).splitlines() if "Starting " in line]


def test_four_commands_bring_jobs_to_the_dashboard(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """Clone, install, wire, restart: then the flush timer delivers as user slurm, in the sandbox."""
    print(f"\nfrom git clone to the first job on the dashboard: {seconds_to_first_job:.0f} s")
    assert {"1"} == dashboard.records.keys()
    owners = machine.run("find", SPOOL, "-printf", "%u %f\n").splitlines()
    assert {"slurm"} == {line.split()[0] for line in owners}
    assert not machine.succeeds(f"test -e {SPOOL}/queue")
    assert "600 slurm" == machine.run("stat", "-c", "%a %U", CONFIG).strip()


def test_check_finds_no_fault(machine: Machine, seconds_to_first_job: float) -> None:
    """As root and as the Slurm user."""
    said = machine.run(NAME, "check", LANG="C.UTF-8")
    print(f"\n{said}")
    assert "✘" not in said
    machine.run("runuser", "-u", "slurm", "--", NAME, "check")


@pytest.mark.parametrize("service", [NAME, f"{NAME}-flush"])
def test_the_installed_sandbox_is_tight(machine: Machine, seconds_to_first_job: float, service: str) -> None:
    """The exposure level is 2.0 or better, by the systemd that runs it."""
    (verdict,) = re.findall(r"Overall exposure.*", machine.run("systemd-analyze", "security", f"{service}.service"))
    print(f"\n{verdict}")
    assert float(re.findall(r": ([0-9.]+) ", verdict)[0]) <= 2.0


def test_the_sandbox_holds(machine: Machine, seconds_to_first_job: float) -> None:
    """Slurm's state belongs to the same user, and can't be written from inside; nor can a process be seen."""
    drop_in = f"/etc/systemd/system/{NAME}-flush.service.d/probe.conf"
    probe = "touch /var/lib/slurm/slurmctld/x; touch /etc/x; ls -d /proc/1; touch $0/probe && ls $0"
    machine.write(drop_in, f"[Service]\nExecStart=\nExecStart=/bin/sh -c '{probe}' {SPOOL}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", f"{NAME}-flush.service")
    said = machine.run("journalctl", "-u", f"{NAME}-flush", "-n", "20", "-o", "cat", "--no-pager")
    machine.run("rm", "-r", drop_in.rpartition("/")[0], f"{SPOOL}/probe")
    machine.run("systemctl", "daemon-reload")
    assert 2 == said.count("Read-only file system")
    assert "cannot access '/proc/1'" in said
    assert "\nprobe\n" in said


def test_the_path_unit_delivers_a_job_within_its_interval(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """35 s as installed; 8 s with the interval set to 5 s."""
    machine.run("systemctl", "enable", "--quiet", "--now", WATCH)
    as_installed = [wait_for_job(dashboard, machine.run_job(), 60) for _ in range(3)]
    machine.write(SHORT, "[Timer]\nOnActiveSec=\nOnActiveSec=5s\n")
    machine.run("systemctl", "daemon-reload")
    shortened = [wait_for_job(dashboard, machine.run_job(), 60) for _ in range(10)]
    print(
        f"\nseconds from end to dashboard: {max(as_installed):.1f} as installed, {max(shortened):.1f} shortened to 5 s"
    )
    assert max(as_installed) < 35
    assert max(shortened) < 8


def test_a_busy_cluster_flushes_no_more_often(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """Of a minute's stream of jobs none is lost, and flushes are at least five seconds apart."""
    posts, began = len(dashboard.posts), time.time()
    jobs = []
    while time.time() - began < 60:
        jobs.append(machine.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=true").strip())
        time.sleep(0.1)  # a stream, not a flood
    wait_for(lambda: set(jobs) <= dashboard.records.keys(), "all jobs", limit_seconds=60)
    starts = flushes(machine, began)
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:])]
    print(f"\n{len(jobs)} jobs in a minute: {len(starts)} flushes, {min(gaps):.1f} s apart or more,")
    print(f"with {len(dashboard.posts) - posts} POSTs, as one waits for records that are about to come")
    assert len(starts) > 5
    assert min(gaps) > 4.5


def test_a_dashboard_that_is_down_is_not_hammered(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """A claimed queue does not trigger the path unit; once the dashboard is back the timer delivers."""
    dashboard.manners = lambda _, connection, __: connection.send(Answer(503, "down"))
    began = time.time()
    job = machine.run_job()
    wait_for(lambda: "503" in machine.run(NAME, "status"), "a failed flush", limit_seconds=60)
    time.sleep(max(0.0, began + 60 - time.time()))  # the minute in which requests might pile up
    assert len(flushes(machine, began)) <= 5
    assert job not in dashboard.records
    dashboard.manners = lambda _, connection, serve: connection.send(serve())
    wait_for_job(dashboard, job)


def test_after_a_reboot_everything_continues(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """Jobs queued before the machine went down are delivered, and so are later ones."""
    machine.run("systemctl", "stop", WATCH, f"{NAME}-flush.timer")
    queued = machine.run_job()
    wait_for(lambda: machine.succeeds(f"test -e {SPOOL}/queue"), "the queue")
    machine.reboot()
    assert ["active\n"] * 3 == [machine.run("systemctl", "is-active", unit) for unit in (*TIMERS, WATCH)]
    wait_for_job(dashboard, queued)
    wait_for_job(dashboard, machine.run_job(), 60)
    assert {} == not_well(machine)


def test_the_daily_run_works_under_its_sandbox(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """Its summary is in the journal, and the hook has missed no job."""
    machine.run("systemctl", "start", f"{NAME}.service")
    said = machine.run("journalctl", "-u", NAME, "-b", "-o", "cat", "--no-pager")
    assert "Successfully submitted" in said
    status = json.loads(machine.run(NAME, "status", "--json"))
    assert 0 == status["hook"]["missed"]


def test_the_daily_run_waits_for_a_flush_that_is_under_way(machine: Machine, seconds_to_first_job: float) -> None:
    """Otherwise a busy cluster would sometimes miss the reconcile for a day."""
    drop_in = f"/etc/systemd/system/{NAME}-flush.service.d/slow.conf"
    machine.write(drop_in, f"[Service]\nExecStart=\nExecStart=/usr/bin/flock {SPOOL}/agent.lock sleep 8\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", WATCH, f"{NAME}-flush.service")
    machine.run("systemctl", "start", "--no-block", f"{NAME}-flush.service")
    wait_for(lambda: machine.succeeds("pgrep -x flock"), "a flush")
    machine.run("runuser", "-u", "slurm", "--", NAME, "flush", expect=75)
    machine.run("systemctl", "start", f"{NAME}.service")
    machine.run("rm", "-r", drop_in.rpartition("/")[0])
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", WATCH)


def test_proxy_and_site_ca(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard, tmp_path: Path
) -> None:
    """The services take the proxy from the file "environment", and the authority from ca_bundle."""
    pem = make_certificate(tmp_path)
    config = machine.run("cat", CONFIG)

    def connect(place: tuple[str, int]) -> socket.socket:
        connection: socket.socket = machine.serve(lambda: socket.create_connection(place))
        return connection

    with machine.dashboard(tls=pem) as secure, machine.serve(lambda: Proxy(connect)) as proxy:
        machine.write("/etc/site-ca.pem", (tmp_path / "certificate.pem").read_text())
        machine.write(f"/etc/{NAME}/environment", f"HTTPS_PROXY={proxy.url}\n")
        settings = {"api_url": secure.url, "api_key": API_KEY}
        changed = config
        for key, value in settings.items():
            changed = re.sub(f"(?m)^{key} = .*$", f'{key} = "{value}"', changed)
        machine.write(CONFIG, f'ca_bundle = "/etc/site-ca.pem"\n{changed}')
        wait_for_job(secure, machine.run_job(), 60)
        assert {secure.url.partition("//")[2]} == set(proxy.asked)
    machine.write(CONFIG, config)
    machine.run("rm", f"/etc/{NAME}/environment", "/etc/site-ca.pem")


def test_an_upgrade_over_a_running_version(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """Configuration, queue and ledger stay, the timers keep running, and jobs that end meanwhile arrive."""
    config, books = machine.run("cat", CONFIG), json.loads(machine.run(NAME, "status", "--json"))
    first = machine.run_job()
    assert "keeping" in machine.run("/wheels/bundle/install.sh")
    second = machine.run_job()
    wait_for_job(dashboard, first, 60)
    wait_for_job(dashboard, second, 60)
    assert config == machine.run("cat", CONFIG)
    assert books["hook"]["calls"] < json.loads(machine.run(NAME, "status", "--json"))["hook"]["calls"]
    assert {} == not_well(machine)


def test_a_failed_upgrade_leaves_the_old_version_running(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """If a package is missing or the new version does not start, the path unit delivers with the old one."""
    machine.run("cp", "-R", "/wheels/bundle", "/root/broken")
    version, environment = machine.run(NAME, "--version"), machine.run("readlink", f"/opt/{NAME}/venv")
    machine.run("sh", "-c", "rm /root/broken/wheelhouse/requests-*")
    assert "the previous installation is unchanged" in machine.run("/root/broken/install.sh", expect=1)
    machine.run("sh", "-c", "cp /wheels/bundle/wheelhouse/requests-* /root/broken/wheelhouse")
    unusable = (
        "import zipfile, sys; zipfile.ZipFile(sys.argv[1], 'a').writestr('agent/spool/ledger.py', 'raise SystemError')"
    )
    machine.run("sh", "-c", f'python3 -W ignore -c "{unusable}" /root/broken/wheelhouse/slurm_usage*')
    assert "the user slurm cannot run the new version" in machine.run("/root/broken/install.sh", expect=1)
    machine.run("rm", "-r", "/root/broken")
    assert (version, environment) == (machine.run(NAME, "--version"), machine.run("readlink", f"/opt/{NAME}/venv"))
    wait_for_job(dashboard, machine.run_job(), 60)
    assert {} == not_well(machine)


def test_the_zipapp_does_the_same(machine: Machine, seconds_to_first_job: float) -> None:
    """The zipapp finds a Python by itself, and reports if the Slurm user can't read it."""
    assert machine.run("/wheels/" + NAME + ".pyz", "--version") == machine.run(NAME, "--version")
    machine.run("/wheels/" + NAME + ".pyz", "flush")
    machine.run("cp", "/wheels/" + NAME + ".pyz", "/root")
    hidden = f"/root/{NAME}.pyz"
    assert f"move {hidden} to where slurm can read it" in machine.run(hidden, "check", expect=1)
    machine.run("rm", hidden)


def test_epilogslurmctld_works_too(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """If JobCompType is in use, install.sh prints that line; check recognizes it, and jobs arrive."""
    conf, taken = (
        "/etc/slurm/slurm.conf",
        "s|^JobCompType=.*|JobCompType=jobcomp/filetxt|; s|^JobCompLoc=.*|JobCompLoc=/tmp/x|",
    )
    kept = machine.run("cat", conf)
    machine.run("sed", "-i", taken, conf)
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    (line,) = re.findall("\n    (EpilogSlurmctld=.*)\n", machine.run("/wheels/bundle/install.sh"))
    assert f"add {line} to {conf}" in check(machine)["slurm.conf"]["mend"]
    machine.run("sh", "-c", f"echo {line} >>{conf}; systemctl restart slurmctld")
    machine.wait_for_slurm()
    wait_for_job(dashboard, machine.run_job(), 60)
    assert {} == not_well(machine)
    machine.write(conf, kept)
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()


def test_check_names_the_right_that_another_user_lacks(
    machine: Machine, seconds_to_first_job: float, dashboard: ReceivingDashboard
) -> None:
    """With their own installation and the privileges that check asks for, a user sees the jobs of all users."""
    as_user = ("runuser", "-u", "backup", "--", "env", "HOME=/tmp/home")
    machine.run("install", "-d", "-o", "backup", "/tmp/home")
    machine.write("/tmp/home/key", API_KEY)
    set_up = ("--api-url", dashboard.url, "--api-key-file", "/tmp/home/key")
    machine.run(*as_user, "/wheels/bundle/install.sh", "--user", "--no-systemd", *set_up)
    program = [*as_user, f"/tmp/home/.local/bin/{NAME}", f"--config=/tmp/home/.config/{NAME}/config.toml"]
    replay = [*program, "reconcile", "--dry-run"]

    def privileges() -> dict[str, Any]:
        checks = json.loads(machine.run(*program, "check", "--json", expect=None))["checks"]
        return next(finding for finding in checks if finding["name"] == "privileges")

    assert "No jobs found" in machine.run(*replay)
    lacking = privileges()
    assert "sacctmgr add user backup DefaultAccount=root AdminLevel=Operator" == lacking["mend"]
    machine.run("sh", "-c", lacking["mend"].replace("sacctmgr", "sacctmgr -i"))
    assert "backup sees all jobs, as Operator" == privileges()["text"]
    assert "No jobs found" not in machine.run(*replay)
    machine.run("sacctmgr", "-i", "delete", "user", "backup")
    machine.run(*as_user, "/wheels/bundle/install.sh", "--user", "--purge")
    assert "" == machine.run("find", "/tmp/home", "-name", f"*{NAME}*")


def test_uninstall_keeps_configuration_and_spool(machine: Machine, files_before: set[str]) -> None:
    """It also keeps the admin's own drop-in."""
    refusal = machine.run(f"/opt/{NAME}/install.sh", "--uninstall", expect=1)
    assert f"still names {HOOK}" in refusal
    assert machine.succeeds(f"test -x {HOOK}")
    machine.run("sed", "-i", "/^JobComp/d", "/etc/slurm/slurm.conf")
    said = machine.run(f"/opt/{NAME}/install.sh", "--uninstall")
    left = sorted(set(machine.run("sh", "-c", SEARCHED).splitlines()) - files_before)
    print("\nleft after --uninstall:\n  " + "\n  ".join(left))
    assert f"slurmctld still calls {HOOK}, which has been removed.\nRestart slurmctld: " in said
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    places = (f"/etc/{NAME}", SPOOL, SHORT.rpartition("/")[0])
    assert [] == [path for path in left if not path.startswith(places)]
    assert {CONFIG, f"{SPOOL}/ledger.db", SHORT} <= set(left)
    assert "0 loaded units listed" in machine.run("systemctl", "list-units", "--all", f"{NAME}*", "--no-pager")


def test_the_seeds_exporter_is_replaced_not_doubled(machine: Machine, dashboard: ReceivingDashboard) -> None:
    """Its config.json keeps working, its timer is now ours, and still enabled."""
    machine.run("sh", "-c", f"rm -r /etc/{NAME} {SPOOL} {SHORT.rpartition('/')[0]}")
    machine.write(f"/etc/systemd/system/{NAME}.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
    machine.write(f"/etc/systemd/system/{NAME}.timer", "[Timer]\nOnCalendar=02:00\n[Install]\nWantedBy=timers.target\n")
    settings = {"api_url": dashboard.url, "api_key": API_KEY, "timeout": 30, "comments": {"api_url": "the dashboard"}}
    machine.write(f"/etc/{NAME}/config.json", json.dumps(settings))
    machine.run("systemctl", "enable", "--quiet", "--now", f"{NAME}.timer")
    machine.run("/wheels/bundle/install.sh")
    assert "enabled\n" == machine.run("systemctl", "is-enabled", f"{NAME}.timer")
    job = machine.run_job()
    # slurmdbd gets a record after the job's end; a short job's end comes before the rest.
    is_whole = f"sacct --noheader --state=CD --starttime=now-1hour --endtime=now --jobs={job} | grep -q main"
    wait_for(lambda: machine.succeeds(is_whole), "the job's whole record")
    machine.run("systemctl", "start", f"{NAME}.service")
    assert job in dashboard.records
    assert f"/etc/{NAME}/config.json" == check(machine)["configuration"]["text"]


def test_purge_leaves_nothing(machine: Machine, files_before: set[str]) -> None:
    """The machine has the same files as before the installation."""
    machine.run("sed", "-i", "/^JobComp/d", "/etc/slurm/slurm.conf")
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    machine.run("/wheels/bundle/install.sh", "--purge")
    left = sorted(set(machine.run("sh", "-c", SEARCHED).splitlines()) - files_before)
    print(f"\nleft after --purge: {left}")
    assert [] == left
