"""check detects when a prerequisite is missing, and says how to fix it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import pytest

from agent.check import checks as check
from agent.check import dashboard as check_dashboard
from agent.check import host as check_host
from agent.check import slurm as check_slurm
from agent.check import spool as check_spool
from agent.check import timers as check_timers
from agent.check.finding import Finding, NotWell, examine
from agent.check.mounts import Mount, mount_of
from agent.check.wiring import Call
from agent.cli import main
from agent.config import PLACEHOLDERS, Config, load_config, parse_config
from agent.dashboard.answer import Answer
from agent.dashboard.client import Dashboard
from agent.errors import ConfigError, ExporterError, SlurmUnreachable
from agent.install_paths import find_hook
from agent.privilege import name_of
from agent.slurm.process import Output
from agent.slurm.sacct import Query
from agent.slurm.slurm import Slurm
from agent.spool.ledger import open_ledger
from agent.wording import Style
from tests.support.dashboard import API_KEY, ReceivingDashboard
from tests.support.memory import slurm_of

HOOK = Path(__file__).parents[3] / "hooks" / "jobcomp.sh"
WIRED = {"JobCompType": "jobcomp/script", "JobCompLoc": str(HOOK)}


def complaint(call: Callable[[], str]) -> tuple[str, str]:
    """The problem and how to fix it."""
    with pytest.raises(ExporterError) as caught:
        call()
    return str(caught.value), caught.value.hint


def remedy(call: Callable[[], str]) -> str:
    """The line that fixes it."""
    with pytest.raises(NotWell) as caught:
        call()
    return caught.value.run


def make_config(**settings: Any) -> Config:
    return parse_config({"api_url": "https://d.example.com", "api_key": "k", **settings}, {})


class FakeCommands:
    """A Slurm that gives the answers it was made with; exceptions among them are raised."""

    def __init__(self, *, level: str = "", database: Mapping[str, str] | ExporterError | None = None) -> None:
        self._level = level
        self._database = database or {}

    def version(self) -> str:
        return "slurm 22.05.8"

    def read_config(self) -> dict[str, str]:
        return {**WIRED, "ClusterName": "c", "SlurmUser": "slurm(64030)", "AccountingStorageType": "x/slurmdbd"}

    def read_accounting_config(self) -> dict[str, str]:
        if isinstance(self._database, ExporterError):
            raise self._database
        return dict(self._database)

    def admin_level(self, user: str) -> str:
        return self._level

    def ask_window(self, start: int, end: int, states: str = "") -> Query:
        raise SlurmUnreachable("sacct failed: slurmdbd is down", hint="start it")


def fake_slurm(**reported: Any) -> Slurm:
    return slurm_of(FakeCommands(**reported))


def no_systemd(_: Sequence[str]) -> Output:
    raise SlurmUnreachable("no systemctl")


# --- the host


@pytest.mark.parametrize("key", sorted(PLACEHOLDERS))
def test_the_examples_key_is_reported(key: str) -> None:
    """An example configuration that nobody has filled in is distinguished from one with a key."""
    assert "enter yours" in complaint(lambda: check_host.check_configuration(make_config(api_key=key)))[1]
    assert "None" == check_host.check_configuration(make_config())


def test_the_configuration_that_is_not_read(tmp_path: Path) -> None:
    """If config.json is beside config.toml, each run warns of it, and check says what to do."""
    for name in ("config.toml", "config.json"):
        (tmp_path / name).write_text('api_url = "https://d.example.com"\napi_key = "k"\n')
        (tmp_path / name).chmod(0o600)
    config = load_config(tmp_path / "config.toml", {})
    reported = (
        f"{tmp_path}/config.json is ignored because {tmp_path}/config.toml takes precedence: remove one of the two"
    )
    assert (reported,) == config.warnings
    assert tuple(reported.split(": ")) == complaint(lambda: check_host.check_configuration(config))
    assert examine("secrecy", lambda: check_host.check_secrecy(config)).ok
    (tmp_path / "config.json").unlink()
    assert () == load_config(tmp_path / "config.toml", {}).warnings


def test_a_key_that_others_can_read_is_a_fault(tmp_path: Path) -> None:
    """The fix is a command that can be copied."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"api_url": "https://d.example.com", "api_key": "k"}))
    path.chmod(0o644)
    assert f"chmod 600 {path}" == complaint(lambda: check_host.check_secrecy(load_config(path, {})))[1]
    path.chmod(0o600)
    assert f"only {check_host.own_name()} can read it" == check_host.check_secrecy(load_config(path, {}))


def test_the_spool_belongs_to_the_slurm_user(tmp_path: Path) -> None:
    """A spool of another user, a missing one and a world-writable one are distinguished."""
    me, spool = check_host.own_name(), tmp_path / "spool"
    assert "does not exist" in complaint(lambda: check_spool.check_spool_folder(spool, me))[0]
    spool.mkdir(mode=0o750)
    assert f"{spool}, owned by {me}" == check_spool.check_spool_folder(spool, me)
    assert f"{spool}, owned by {me}" == check_spool.check_spool_folder(spool, "")
    assert f"chown -R slurm {spool}" == remedy(lambda: check_spool.check_spool_folder(spool, "slurm"))
    spool.chmod(0o777)
    assert f"chmod 750 {spool}" == remedy(lambda: check_spool.check_spool_folder(spool, me))


def test_a_file_of_root_in_the_spool(tmp_path: Path) -> None:
    """Such a file, created by root manually, blocks the hook or the agent."""
    me, spool = check_host.own_name(), tmp_path / "spool"
    spool.mkdir(mode=0o750)
    (spool / "queue").touch()
    os.chown(spool / "queue", 12345, -1)
    text = f"{spool}/queue belongs to 12345, so {me} may be unable to use it"
    assert (text, f"give it to {me}") == complaint(lambda: check_spool.check_spool_folder(spool, me))
    assert f"chown -hR {me} {spool}" == remedy(lambda: check_spool.check_spool_folder(spool, me))


def test_a_users_own_spool_keeps_its_owner(tmp_path: Path) -> None:
    """A user's own spool needs no hook, so nobody is advised to give it to the Slurm user."""
    spool, config = tmp_path / "spool", tmp_path / "config.toml"
    spool.mkdir(mode=0o750)
    os.chown(spool, 12345, -1)
    config.write_text('api_url = "https://d.example.com"\n#status_coverage_percent = [99, 90]\n[comments]\n')
    text, hint = complaint(lambda: check_spool.check_spool_folder(spool, "slurm", config))
    assert "the hook runs as slurm and cannot write to 12345's own spool: the daily reconcile delivers all jobs" == text
    assert f"set status_coverage_percent = [0, 0] in {config} to expect no hook" == hint
    subprocess.run(remedy(lambda: check_spool.check_spool_folder(spool, "slurm", config)), shell=True, check=True)
    assert config.read_text().startswith("status_coverage_percent = [0, 0]\napi_url = ")
    assert "" == remedy(lambda: check_spool.check_spool_folder(spool, "slurm", config))
    system = Path("/etc/slurm-usage-history-exporter/config.toml")
    assert f"chown -R slurm {spool}" == remedy(lambda: check_spool.check_spool_folder(spool, "slurm", system))


@pytest.mark.parametrize(
    ("blocks", "files", "well"), [(1 << 20, 10_000, True), (100, 10_000, False), (1 << 20, 3, False)]
)
def test_a_spool_needs_room(tmp_path: Path, blocks: int, files: int, well: bool) -> None:
    """Both bytes and files can run out."""
    disk = os.statvfs_result((4096, 4096, blocks, blocks, blocks, files, files, files, 0, 255))
    assert well == examine("space", lambda: check_spool.check_space(tmp_path, lambda _: disk)).ok


def test_a_filesystem_without_a_limit_of_files_has_room(tmp_path: Path) -> None:
    """btrfs reports 0 of 0 files."""
    disk = os.statvfs_result((4096, 4096, 1 << 20, 1 << 20, 1 << 20, 0, 0, 0, 0, 255))
    assert "4.3 GB free" == check_spool.check_space(tmp_path, lambda _: disk)


@pytest.mark.parametrize(
    ("kind", "well"),
    [("ext4", True), ("xfs", True), ("nfs4", False), ("fuse.sshfs", False), ("fuse", False), ("tmpfs", False)],
)
def test_the_spool_is_on_a_disk_of_its_own(kind: str, well: bool) -> None:
    """The mount that counts is the innermost one, however the lines are sorted."""
    mounts = f"a /var {kind} rw 0 0\nb / ext4 rw 0 0\nc /va ext4 rw 0 0\nd /var/spool2 ext4 rw 0 0\n"
    assert well == examine("", lambda: check_spool.check_filesystem(Path("/var/spool"), mounts)).ok


def test_a_mount_point_with_a_blank() -> None:
    """/proc/self/mounts writes it as an octal number."""
    assert "nfs" == mount_of(Path("/a b/c"), "x /a\\040b nfs rw 0 0\ny / ext4 rw 0 0").kind


def test_the_last_mount_at_a_place_counts() -> None:
    """It hides what was mounted there before."""
    assert Mount("nfs", ("rw", "nolock")) == mount_of(Path("/a/b"), "x /a ext4 rw 0 0\ny /a nfs rw,nolock 0 0")


def test_a_stuck_hook_differs_from_a_busy_one(tmp_path: Path) -> None:
    """Only a stuck process is seen twice, a second apart."""
    holders = iter([7, 8])
    busy = check_spool.check_locks(
        tmp_path, lambda _, name: next(holders) if name == "queue.lock" else 9, lambda _: None
    )
    assert "held by a run, process 9" == busy
    assert "ps -p 7" in complaint(lambda: check_spool.check_locks(tmp_path, lambda *_: 7, lambda _: None))[1]
    assert "free" == check_spool.check_locks(tmp_path, lambda *_: None)


def test_a_lock_that_is_really_held(tmp_path: Path) -> None:
    """The kernel reports who holds it."""
    with (tmp_path / "queue.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (
            f"process {os.getpid()} " in complaint(lambda: check_spool.check_locks(tmp_path, sleep=lambda _: None))[0]
        )


def test_the_ledger_is_read(tmp_path: Path) -> None:
    """An empty file is fine, one that is not a database is not."""
    path = tmp_path / "ledger.db"
    open_ledger(path)[0].close()
    assert "0 waiting, 0 rejected" == check_spool.check_ledger(path)
    path.write_bytes(b"no database" * 1000)
    assert False is examine("ledger", lambda: check_spool.check_ledger(path)).ok


def test_metrics_need_a_folder_and_a_way_out_of_the_sandbox(tmp_path: Path) -> None:
    """The hint is the line for the units, and there is a command that writes it."""
    config = make_config(metrics_file=str(tmp_path / "x.prom"))
    assert "no metrics_file configured" == check_host.check_metrics(make_config(), "/var/spool/x")
    assert str(tmp_path / "x.prom") == check_host.check_metrics(config, "")
    assert str(tmp_path / "x.prom") == check_host.check_metrics(config, f"/var/spool/x -{tmp_path}")
    assert f"ReadWritePaths={tmp_path}" in complaint(lambda: check_host.check_metrics(config, "/var/spool/x"))[1]
    assert f"{tmp_path} >/etc/systemd/system/" in remedy(lambda: check_host.check_metrics(config, "/var/spool/x"))
    missing = make_config(metrics_file=str(tmp_path / "missing" / "x.prom"))
    assert "cannot write" in complaint(lambda: check_host.check_metrics(missing, ""))[0]


def test_the_hook_is_found_beside_the_program(tmp_path: Path) -> None:
    """The line for slurm.conf can be copied unchanged."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "jobcomp.sh").touch()
    assert f"{tmp_path}/bin/jobcomp.sh" == find_hook(environment=tmp_path / "venv-1", package=tmp_path)
    assert str(HOOK) == find_hook(environment=tmp_path / "elsewhere" / "venv", package=HOOK.parents[1] / "agent")
    assert "/path/to/jobcomp.sh" == find_hook(environment=tmp_path / "x" / "y", package=tmp_path / "x" / "z" / "agent")


def test_a_user_without_a_name_is_the_uid() -> None:
    """The uid is shown, as by ls."""
    assert "4294967294" == name_of(4294967294)


# --- Slurm


@pytest.mark.parametrize(
    ("user", "level", "private", "well"),
    [
        ("root", "", "jobs", True),
        ("slurm", "", "jobs", True),
        ("bob", "Operator", "jobs,users", True),
        ("bob", "Administrator", "all", True),
        ("bob", "None", "none", True),
        ("bob", "None", "users", True),
        ("bob", "None", "users,jobs", False),
        ("bob", "", "ALL", False),
    ],
)
def test_who_may_see_all_jobs(user: str, level: str, private: str, well: bool) -> None:
    """root, slurmdbd's own user, operators, and everybody if slurmdbd hides no jobs."""
    slurm = fake_slurm(level=level, database={"SlurmUser": "slurm(64030)", "PrivateData": private})
    assert well == examine("", lambda: check_slurm.check_privileges(slurm, user, {})).ok


@pytest.mark.parametrize(("version", "well"), [("24.11.5", True), ("26.05.5", False), ("26.11.0-rc1", False)])
def test_a_slurmdbd_that_does_not_report_privatedata(version: str, well: bool) -> None:
    """26.05 always reports PrivateData = none, so the right is required."""
    slurm = fake_slurm(level="None", database={"PrivateData": "none", "SLURMDBD_VERSION": version})
    assert well == examine("", lambda: check_slurm.check_privileges(slurm, "bob", {})).ok


@pytest.mark.parametrize(
    ("user", "level", "well"), [("bob", "", False), ("bob", "Operator", True), ("slurm", "", True)]
)
def test_a_slurmctld_that_hides_jobs_from_squeue(user: str, level: str, well: bool) -> None:
    """squeue would not show that a preempted job is still COMPLETING, and the job would be sent too early (22.05)."""
    slurm, settings = fake_slurm(level=level, database={}), {"SlurmUser": "slurm(64030)", "PrivateData": "jobs,usage"}
    finding = examine("", lambda: check_slurm.check_privileges(slurm, user, settings))
    assert well == finding.ok
    assert well or finding.text == "PrivateData in slurm.conf hides other users' jobs from bob"


def test_the_command_that_grants_the_right_fits_the_user() -> None:
    """A user whom slurmdbd knows is modified, another one added."""
    database = {"PrivateData": "jobs"}
    known = complaint(lambda: check_slurm.check_privileges(fake_slurm(level="None", database=database), "bob", {}))
    unknown = complaint(lambda: check_slurm.check_privileges(fake_slurm(database=database), "bob", {}))
    assert "sacctmgr modify user bob set AdminLevel=Operator" == known[1]
    assert "sacctmgr add user bob " in unknown[1]


def test_the_services_path_differs_from_the_shells(tmp_path: Path) -> None:
    """An admin's PATH has /opt/slurm/bin, the services' PATH does not."""
    sacct = tmp_path / "sacct"
    sacct.touch(mode=0o755)
    config = make_config(sacct="no-such-sacct", scontrol="sh")
    fact, mend = complaint(lambda: check_slurm.check_commands(config, lambda _: str(sacct)))
    assert f"the services do not find no-such-sacct: {tmp_path} is not in their PATH" == fact
    assert mend.startswith(f'set sacct = "{sacct}" in ')
    assert "the services find" in check_slurm.check_commands(make_config(sacct=str(sacct), scontrol="sh"))


def test_the_clusters_two_names() -> None:
    """Both names are shown if they differ."""
    assert "c" == check_slurm.check_cluster(make_config(), {"ClusterName": "c"})
    assert "d on the dashboard, c in Slurm" == check_slurm.check_cluster(
        make_config(cluster_name="d"), {"ClusterName": "c"}
    )


def test_a_cluster_without_slurmdbd_has_no_finished_jobs() -> None:
    """Asking sacct is pointless on such a cluster."""
    settings = {"AccountingStorageType": "(null)"}
    assert "does not store finished jobs" in complaint(lambda: check_slurm.check_slurmdbd(fake_slurm(), settings))[0]


def check_hook(script: Path, spool: Path) -> str:
    """For the installed hook."""
    return check_slurm.check_hook(Call("JobCompLoc", script, script), spool, str(script))


def make_hook(folder: Path, spool: Path, mode: int = 0o755) -> Path:
    hook = folder / "jobcomp.sh"
    hook.write_text(HOOK.read_text().replace("/var/spool/slurm-usage-history-exporter", str(spool)))
    hook.chmod(mode)
    return hook


def test_the_hook_writes_where_the_agent_reads(tmp_path: Path) -> None:
    """The hook and the exporter must use the same spool."""
    hook = make_hook(tmp_path, tmp_path / "spool")
    assert f"writes to {tmp_path}/spool" == check_hook(hook, tmp_path / "spool")
    mend = complaint(lambda: check_hook(hook, tmp_path / "other"))[1]
    assert f"SLURM_USAGE_HISTORY_SPOOL={tmp_path}/other ./install.sh" in mend


def test_the_hook_finds_flock(tmp_path: Path) -> None:
    """The hook sets its own PATH, regardless of the shell's."""
    hook = make_hook(tmp_path, tmp_path)
    assert examine("hook", lambda: check_hook(hook, tmp_path)).ok
    hook.write_text(re.sub(r"(?m)^export PATH=.*$", f"export PATH={tmp_path}", HOOK.read_text()))
    wrong = "flock, which the hook needs, is not installed", "install util-linux"
    assert wrong == complaint(lambda: check_hook(hook, tmp_path))


def test_a_hook_that_cannot_be_run(tmp_path: Path) -> None:
    """A script that is not executable is as good as missing."""
    hook = make_hook(tmp_path, tmp_path, mode=0o644)
    assert "cannot read and execute" in complaint(lambda: check_hook(hook, tmp_path))[0]
    assert "does not exist" in complaint(lambda: check_hook(tmp_path / "missing", tmp_path))[0]


# --- the timers


@pytest.mark.parametrize(
    ("active", "enabled", "well"),
    [
        ("active", "enabled", True),
        ("inactive", "disabled", True),
        ("failed", "enabled", False),
        ("inactive", "enabled", False),
    ],
)
def test_the_path_unit_may_be_left_out(active: str, enabled: str, well: bool) -> None:
    """An enabled path unit must be active."""
    properties = {"ActiveState": active, "UnitFileState": enabled}
    units = check_timers.Units({f"{check_timers.FLUSH}.path": properties})
    assert well == examine("", lambda: check_timers.check_path_unit(units)).ok


# --- the dashboard


@pytest.mark.parametrize(
    ("url", "allowed", "well"),
    [
        ("https://d.example.com", False, True),
        ("http://127.0.0.1:8000", False, True),
        ("http://127.0.0.53", False, True),
        ("http://d.example.com", False, False),
        ("http://d.example.com", True, True),
    ],
)
def test_the_key_is_sent_encrypted_or_to_loopback(url: str, allowed: bool, well: bool) -> None:
    """Only the URL of another host needs https, or allow_http."""
    config = make_config(api_url=url, allow_http=allowed)
    assert well == examine("", lambda: check_dashboard.check_encryption(config, {})).ok


def test_the_certificates_issuer_is_shown() -> None:
    """The configuration takes precedence over the environment."""
    environ = {"REQUESTS_CA_BUNDLE": "/env.pem"}
    assert "https, verified with /env.pem" == check_dashboard.check_encryption(make_config(), environ)
    assert "https, verified with /c.pem" == check_dashboard.check_encryption(make_config(ca_bundle="/c.pem"), environ)


@pytest.mark.parametrize(("offset", "words"), [(0, ""), (59, ""), (-3600, "1 h behind"), (7200, "2 h ahead")])
def test_the_clocks_agree(offset: float, words: str) -> None:
    """A difference of up to a minute is accepted."""
    now = 1_700_000_000.0
    answer = Answer(200, {"Date": formatdate(now, usegmt=True)}, "")
    finding = examine("", lambda: check_dashboard.check_clock(answer, lambda: now + offset))
    assert (not words, True) == (finding.ok, words in finding.text)


def test_a_dashboard_without_a_clock() -> None:
    """A dashboard that reports no time is not a fault."""
    for headers in ({}, {"Date": "yesterday"}):
        assert "does not report its time" in check_dashboard.check_clock(Answer(200, headers, ""))


# --- all together


def test_checks_that_depend_on_something_broken_are_skipped(tmp_path: Path) -> None:
    """They are reported as not tested, and the exit code is 1."""
    config = make_config(spool_dir=str(tmp_path))
    dashboard = Dashboard(config.api_url, "k", lambda *_: Answer(502, {}, "bad gateway"))
    findings = {
        finding.name: finding.ok
        for finding in check.run_checks(check.Neighbours(config, fake_slurm(), dashboard), no_systemd, {})
    }
    assert (True, True, False) == (findings["sacct"], findings["slurmctld"], findings["slurmdbd"])
    assert (False, None, None) == (findings["dashboard"], findings["API key"], findings["clock"])
    assert None is findings["privileges"]


def test_a_site_without_a_hook_can_be_healthy(tmp_path: Path) -> None:
    """A user's own installation has no hook, and its spool does not belong to the Slurm user."""
    config = make_config(spool_dir=str(tmp_path), status_coverage_percent=[0, 0])
    dashboard = Dashboard(config.api_url, "k", lambda *_: Answer(502, {}, "bad gateway"))
    slurm = fake_slurm()
    slurm.scontrol.read_config = lambda: {"SlurmUser": "another(1)"}  # type: ignore[method-assign]
    findings = {
        finding.name: finding
        for finding in check.run_checks(check.Neighbours(config, slurm, dashboard), no_systemd, {})
    }
    assert (True, True) == (findings["hook"].ok, findings["spool"].ok)
    assert (
        "not expected, because status_coverage_percent is [0, 0]: the daily run delivers all jobs"
        == findings["hook"].text
    )
    assert "slurm.conf" not in findings


def test_without_a_configuration_the_rest_is_still_tested() -> None:
    """It reports all problems of the configuration, one per line, and the timers."""
    error = ConfigError("the configuration is wrong:\n  api_url: missing\n  a: unknown key", hint="fix it")
    findings = list(check.run_checks(error, no_systemd, {}))
    assert ("configuration", False, "fix it") == (findings[1].name, findings[1].ok, findings[1].mend)
    assert "flush timer" in {finding.name for finding in findings}
    shown = findings[1].as_lines(Style(unicode=False)).splitlines()
    column = shown[0].index("the configuration")
    assert ["api_url: missing", "a: unknown key", "-> fix it"] == [line[column:] for line in shown[1:]]


def test_a_finding_on_the_screen() -> None:
    """Findings are marked with ✔ and ✘, or ASCII without UTF-8; the fix is shown below the text."""
    bad = Finding("clock", False, "it is wrong", "set it")
    assert ["✘ clock           it is wrong", "                  → set it"] == bad.as_lines(Style()).splitlines()
    assert "ok clock           fine" == Finding("clock", True, "fine").as_lines(Style(unicode=False))
    assert Finding("x", None, "y").as_lines(Style()).startswith("– x ")
    assert bad.as_lines(Style(colour=True)).startswith("\033[31m✘\033[0m clock")


def test_an_unexpected_error_is_reported_as_a_bug() -> None:
    """It is not reported as a finding."""
    with pytest.raises(ZeroDivisionError):
        examine("", lambda: str(1 // 0))
    assert Finding("n", False, "bad", "mend") == examine("n", lambda: _raise(NotWell("bad", hint="mend")))


def _raise(error: Exception) -> str:
    raise error


def test_the_exit_code_and_json_are_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1 if something is not well; standard output is JSON alone, with every finding in it."""
    path = tmp_path / "config.json"
    path.touch(mode=0o600)
    spool = tmp_path / "spool"
    spool.mkdir()
    with ReceivingDashboard() as dashboard:
        settings = {"api_url": dashboard.url, "api_key": API_KEY, "sacct": "/none/sacct", "scontrol": "/none/scontrol"}
        path.write_text(json.dumps({**settings, "spool_dir": str(spool)}))
        began = time.time()
        assert 1 == main(["check", "--json", "--config", str(path)])
        answer = json.loads(capsys.readouterr().out)
        found = {finding["name"]: finding for finding in answer["checks"]}
        assert (False, False, True) == (answer["ok"], found["sacct"]["ok"], found["API key"]["ok"])
        assert "the path of sacct in the configuration" in found["sacct"]["mend"]
        assert {} == dashboard.stored
        assert 1 == main(["check", "--config", str(path)])
        assert "accepted" in capsys.readouterr().out
        assert time.time() - began < 30
