"""`check` on a booted controller, broken on purpose: is the cause right, and does the printed remedy fix it?

Run by `make test-install`. Each case breaks one thing. Then `check` runs, and the line that it prints is run
unchanged, repeatedly until nothing is wrong or no line is left. The results are a table, docs/check.md.
"""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any, Iterator, NamedTuple

import pytest

from tests.install import booted
from tests.install.booted import CONFIG, HOOK, SHORT, SPOOL, TIMERS, WATCH
from tests.install.installation import CHECKOUT, NAME
from tests.install.machine import Machine
from tests.support.dashboard import API_KEY, DEPLOY_KEY, ReceivingDashboard

pytestmark = pytest.mark.timeout(900)

wheels, machine, dashboard = booted.wheels, booted.machine, booted.dashboard

CONF = "/etc/slurm/slurm.conf"
FLUSH, DAILY = f"{NAME}-flush.service", f"{NAME}.service"
RESTART = "systemctl restart slurmctld"
#: A shell's, with a folder in which no service looks.
ADMINS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games"
TABLE = CHECKOUT / "docs" / "check.md"
#: No remedy may take more steps than this.
MOST_STEPS = 3


class Break(NamedTuple):
    """Something that breaks, as lines of shell."""

    what: str
    breaks: str
    found_by: str
    says: str  # in the text
    by_hand: str = ""  # what the text asks for, if no line of shell can do it
    undo: str = ""  # undoes what the remedy leaves
    slurm: bool = False  # whether slurm.conf is changed: then a real call of the hook has to follow


def set_key(key: str, value: str) -> str:
    """Changes a key of the configuration."""
    return f"cp -p {CONFIG} /tmp; sed -i 's|^{key} = .*|{key} = \"{value}\"|' {CONFIG}"


#: Restores what set_key has saved.
RESTORE = f"cp -p /tmp/config.toml {CONFIG}"


def rewire(lines: str, *, restart: bool = True) -> str:
    """Replaces the hook's lines in slurm.conf."""
    change = f"sed -i '/^JobComp/d; /^Epilog/d' {CONF}; printf '%b' '{lines}' >>{CONF}"
    return f"{change}; {RESTART}; sleep 2" if restart else change


BREAKS = [
    # the configuration
    Break("others can read the key", f"chmod 644 {CONFIG}", "secrecy", "other users can read or write it"),
    Break("root owns the configuration", f"chown root {CONFIG}", "secrecy", "slurm cannot read"),
    Break("an unknown key", f"echo batchsize=1 >>{CONFIG}", "configuration", "batch_size", f"sed -i '$d' {CONFIG}"),
    Break(
        "no configuration", f"mv {CONFIG} /root", "configuration", "no configuration", f"mv /root/config.toml {CONFIG}"
    ),
    Break(
        "two configurations",
        f"install -o slurm -m 600 /dev/null {CONFIG.replace('toml', 'json')}",
        "configuration",
        "is ignored",
        f"rm {CONFIG.replace('toml', 'json')}",
    ),
    Break(
        "the example's key",
        set_key("api_key", "your-secret-api-key"),
        "configuration",
        "the example's API key",
        RESTORE,
    ),
    Break("a key that the dashboard refuses", set_key("api_key", "wrong"), "API key", "", RESTORE),
    Break("nothing listens at api_url", set_key("api_url", "http://127.0.0.1:9"), "dashboard", "refused", RESTORE),
    Break(
        "a dashboard without encryption",
        set_key("api_url", "http://192.0.2.1:9"),
        "encryption",
        "not encrypted",
        RESTORE,
    ),
    Break(
        "a metrics folder outside the sandbox",
        f"cp -p {CONFIG} /tmp; install -d -o slurm /var/lib/metrics;"
        f" sed -i '1i metrics_file = \"/var/lib/metrics/x.prom\"' {CONFIG}",
        "metrics",
        "sandbox",
        undo=f"{RESTORE}; rm -r /var/lib/metrics /etc/systemd/system/{NAME}*.service.d; systemctl daemon-reload",
    ),
    # the spool
    Break("root owns the spool", f"chown -R root {SPOOL}", "spool", "belongs to root"),
    Break("a file owned by root in the spool", f"install -m 600 /dev/null {SPOOL}/queue", "spool", "belongs to root"),
    Break("a world-writable spool", f"chmod 777 {SPOOL}", "spool", "world-writable"),
    Break(
        "no spool", f"mv {SPOOL} /root/spool", "spool", "does not exist", undo=f"rm -r {SPOOL}; mv /root/spool {SPOOL}"
    ),
    Break("a spool on tmpfs", f"mount -t tmpfs -o uid=slurm t {SPOOL}", "filesystem", "reboot", f"umount {SPOOL}"),
    Break(
        "a full spool",
        f"mount -t tmpfs -o uid=slurm,size=9m t {SPOOL}",
        "free space",
        "only 0.0 GB",
        f"umount {SPOOL}",
    ),
    Break(
        "a process that keeps the queue's lock",
        f"flock --no-fork {SPOOL}/queue.lock sleep 600 >/dev/null 2>&1 & echo $! >/tmp/pid; sleep 1",
        "locks",
        "has held",
        "kill $(cat /tmp/pid)",
    ),
    Break("a damaged ledger", f"echo nonsense >{SPOOL}/ledger.db", "ledger", "", undo=f"rm -f {SPOOL}/ledger.db.*"),
    # Slurm
    Break("no sacct", "mv /usr/bin/sacct /root", "sacct", "cannot be started", "mv /root/sacct /usr/bin"),
    Break(
        "a sacct outside the services' PATH",
        "mv /usr/bin/sacct /usr/bin/sacctmgr /usr/games",
        "commands",
        "the services do not find",
        undo=f"mv /usr/games/sacct /usr/games/sacctmgr /usr/bin; sed -i '/^sacct = /d' {CONFIG}",
    ),
    Break("slurmctld is down", "systemctl stop slurmctld", "slurmctld", "slurmctld.service is inactive"),
    Break(
        "slurmctld was killed", "systemctl kill -s KILL slurmctld; sleep 1", "slurmctld", "slurmctld.service is failed"
    ),
    Break("slurmdbd is down", "systemctl stop slurmdbd", "slurmdbd", "slurmdbd.service is inactive"),
    Break("MariaDB is down", "systemctl stop mariadb.socket mariadb", "slurmdbd", "mariadb.service is inactive"),
    Break("munge is down", "systemctl stop munge", "slurmctld", "munge does not answer"),
    # the wiring
    Break("a hook that is not executable", f"chmod 644 {HOOK}", "hook", "cannot read and execute", slurm=True),
    Break(
        "a hook in a folder that slurmctld cannot enter",
        f"chmod 700 /opt/{NAME}/bin",
        "hook",
        "cannot enter",
        slurm=True,
    ),
    Break(
        "a missing hook",
        f"rm {HOOK}",
        "hook",
        "does not exist",
        f"/wheels/bundle/install.sh >/dev/null && {RESTART}",
        slurm=True,
    ),
    Break(
        "a hook with another spool",
        f"sed -i 's|:=/var/spool/{NAME}|:=/var/spool/other|' {HOOK}",
        "hook",
        "the hook writes to /var/spool/other",
        f"SLURM_USAGE_HISTORY_SPOOL={SPOOL} /wheels/bundle/install.sh >/dev/null",
    ),
    Break("no flock", "mv /usr/bin/flock /root", "hook", "flock, which the hook needs", "mv /root/flock /usr/bin"),
    Break("no line in slurm.conf", rewire(""), "slurm.conf", "JobCompType is", slurm=True),
    Break(
        "lines that slurmctld has not read",
        f"{rewire('')}; {rewire(booted.WIRING, restart=False)}",
        "slurm.conf",
        "has not read that line",
        slurm=True,
    ),
    Break(
        "a slurmctld that started before the hook was there",
        f"mv {HOOK} /root; {RESTART}; sleep 2; mv /root/jobcomp.sh {HOOK}",
        "hook calls",
        "did not find the hook when it started",
        slurm=True,
    ),
    Break(
        "a slurmctld that started while the hook was not executable",
        f"chmod 644 {HOOK}; {RESTART}; sleep 2; chmod 755 {HOOK}",
        "hook calls",
        "is not executable",
        slurm=True,
    ),
    Break(
        "a slurmctld that started while it could not enter the hook's folder",
        f"chmod 700 /opt/{NAME}/bin; {RESTART}; sleep 2; chmod 755 /opt/{NAME}/bin",
        "hook calls",
        "Permission denied",
        slurm=True,
    ),
    Break(
        "JobCompLoc in the wrong folder",
        rewire(booted.WIRING.replace("/bin/", "/")),
        "slurm.conf",
        f"JobCompLoc=/opt/{NAME}/jobcomp.sh, which does not exist",
        slurm=True,
    ),
    Break(
        "JobCompLoc with a wrong name",
        rewire(booted.WIRING.replace("jobcomp.sh", "hook.sh")),
        "slurm.conf",
        "which does not exist",
        slurm=True,
    ),
    Break(
        "the site's own script as JobCompLoc",
        rewire("JobCompType=jobcomp/script\\nJobCompLoc=/etc/slurm/own.sh\\n"),
        "slurm.conf",
        "JobCompLoc is /etc/slurm/own.sh",
        undo="rm /etc/slurm/call-both.sh",
        slurm=True,
    ),
    Break(
        "another jobcomp plugin",
        rewire("JobCompType=jobcomp/filetxt\\nJobCompLoc=/tmp/records\\n"),
        "slurm.conf",
        "JobCompType is jobcomp/filetxt",
        slurm=True,
    ),
    Break(
        "another jobcomp plugin, and the site's own EpilogSlurmctld",
        rewire("JobCompType=jobcomp/filetxt\\nJobCompLoc=/tmp/records\\nEpilogSlurmctld=/etc/slurm/own.sh\\n"),
        "slurm.conf",
        "EpilogSlurmctld is /etc/slurm/own.sh",
        undo="rm /etc/slurm/call-both.sh",
        slurm=True,
    ),
    Break(
        "Epilog instead of EpilogSlurmctld",
        rewire(f"Epilog={HOOK}\\n"),
        "slurm.conf",
        f"slurm.conf says Epilog={HOOK}, which slurmd runs on each node",
        rewire(booted.WIRING.replace("\n", "\\n")),
        slurm=True,
    ),
    Break(
        "lines that were removed from slurm.conf again",
        rewire("", restart=False),
        "slurm.conf",
        "no longer names it",
        slurm=True,
    ),
    # the timers
    Break("no daily timer", f"systemctl disable --now {TIMERS[0]}", "daily timer", "is inactive"),
    Break("no flush timer", f"systemctl disable --now {TIMERS[1]}", "flush timer", "is inactive"),
    Break("a flush timer that is not enabled", f"systemctl disable {TIMERS[1]}", "flush timer", "at boot"),
    Break("a path unit that was stopped", f"systemctl stop {WATCH}", "path unit", "is inactive"),
    Break(
        "a flush that was killed",
        f"mkdir /run/systemd/system/{FLUSH}.d; echo '[Service]\nExecStart=\nExecStart=/bin/sh -c \"kill -9 $$$$\"'"
        f" >/run/systemd/system/{FLUSH}.d/killed.conf; systemctl daemon-reload; systemctl start {FLUSH};"
        f" rm -r /run/systemd/system/{FLUSH}.d; systemctl daemon-reload",
        "flush timer",
        "failed: signal",
    ),
    Break(
        "a flush that failed because of the configuration",
        f"{set_key('api_url', 'ftp://d')}; systemctl start {FLUSH}",
        "configuration",
        "api_url",
        RESTORE,
    ),
    Break(
        "a flush that failed while the dashboard was down",
        f"echo 9999999 >>{SPOOL}/queue; chown slurm {SPOOL}/queue; {set_key('api_url', 'http://127.0.0.1:9')};"
        f" systemctl start {DAILY}",
        "dashboard",
        "refused",
        RESTORE,
    ),
]


class Outcome(NamedTuple):
    """A row of the table."""

    what: str
    found_by: str
    said: str
    remedy: str
    fixed: str


class Row:
    """Adds to the table."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def write(self, version: str) -> None:
        lines = [*HEADING.format(version=version, day=f"{date.today():%-d %B %Y}").splitlines()]
        for outcome in self.outcomes:
            cells = [re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in outcome]
            lines.append(f"| {' | '.join(cells)} |")
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


HEADING = """\
# What `check` detects, and whether its fix works

`make test-install` boots a controller, breaks one thing after another, runs `check`, and executes the command that it
prints, unchanged. "by hand" means that `check` describes the fix in words, such as filling in a key; the test then does
that. After faults of the hook, `check --test-job` must see a real call.
This table is generated by that test: {version}, {day}.

| fault | found by | message | fix | fixed |
|---|---|---|---|---|
"""


@pytest.fixture(scope="module")
def table(machine: Machine) -> Iterator[Row]:
    row = Row()
    yield row
    if len(row.outcomes) == len(BREAKS):
        row.write(machine.run("slurmctld", "-V").strip())


class FirstDay(NamedTuple):
    """What an admin sees who edited slurm.conf first, and typed a wrong deploy key."""

    failed: str  # by install.sh
    unproved: dict[str, dict[str, Any]]  # by check, once all was set up
    queued: bool  # whether the job that ended meanwhile made slurmctld call
    proved: dict[str, dict[str, Any]]  # by check, after its remedy
    reconcile: str
    status: dict[str, Any]


@pytest.fixture(scope="module")
def first_day(machine: Machine, dashboard: ReceivingDashboard) -> FirstDay:
    """Following only install.sh and check leads from slurm.conf to the first reconcile."""
    machine.run("install", "-m", "755", "/dev/null", "/etc/slurm/own.sh")
    machine.write("/etc/slurm/own.sh", "#!/bin/sh\necho called >>/tmp/own\nexit 0\n")
    machine.run("sh", "-c", f"cat >>{CONF}; cp {CONF} /root/slurm.conf", stdin=booted.WIRING)
    machine.run("systemctl", "restart", "slurmctld")
    machine.wait_for_slurm()
    machine.run_job()
    machine.run("git", "clone", "--quiet", "/wheels/exporter.git", "/root/exporter")
    options = ["--wheelhouse", "/wheels/bundle/wheelhouse", "--enable", "--api-url", dashboard.url]
    failed = machine.run("/root/exporter/install.sh", *options, "--deploy-key", "-", stdin="wrong", expect=1)
    (set_up,) = re.findall(r"^    sudo (.* setup .*)$", failed, re.MULTILINE)
    (enable,) = re.findall(r"^Start the timers: sudo (.*)$", failed, re.MULTILINE)
    machine.run("sh", "-c", set_up, stdin=f"{DEPLOY_KEY}\n")
    machine.run("sh", "-c", enable)
    machine.run_job()
    queued = machine.succeeds(f"test -e {SPOOL}/queue")
    unproved = check(machine)
    carry_out(machine, unproved["hook calls"]["run"])
    proved = check(machine, "--test-job")
    reconcile = machine.run(NAME, "reconcile")
    status = json.loads(machine.run(NAME, "status", "--json"))
    return FirstDay(failed, unproved, queued, proved, reconcile, status)


@pytest.fixture(scope="module")
def installed(machine: Machine, first_day: FirstDay) -> Machine:
    """A healthy controller, with a script of the site's that slurm.conf may name."""
    machine.run("sh", "-c", f"echo SlurmctldLogFile=/var/log/slurm/slurmctld.log >>{CONF}; cp {CONF} /root/slurm.conf")
    machine.run("sh", "-c", f"install -d -o slurm /var/log/slurm; {RESTART}")
    machine.wait_for_slurm()
    machine.write(SHORT, "[Timer]\nOnActiveSec=\nOnActiveSec=2s\n")
    machine.run("systemctl", "enable", "--quiet", "--now", WATCH)
    machine.run("systemctl", "start", FLUSH, DAILY)
    return machine


def check(machine: Machine, *options: str) -> dict[str, dict[str, Any]]:
    """What `check` finds, by name."""
    printed = machine.run(NAME, "check", "--json", *options, expect=None, PATH=ADMINS_PATH)
    answer = json.loads(printed[printed.index("{\n") :])  # after the output on standard error
    return {finding["name"]: finding for finding in answer["checks"]}


def faults(machine: Machine, *options: str) -> dict[str, dict[str, Any]]:
    """The findings that are not ok, in the order printed."""
    return {name: finding for name, finding in check(machine, *options).items() if finding["ok"] is False}


def carry_out(machine: Machine, line: str) -> None:
    machine.run("sh", "-c", line, expect=None)
    if "slurm" in line or "munge" in line or "mariadb" in line:
        machine.wait_for_slurm()


def repair(machine: Machine, case: Break) -> tuple[str, str]:
    """Runs the lines that check prints until nothing is wrong; returns them, and whether that was enough."""
    lines: list[str] = []
    by_hand = False
    for _ in range(MOST_STEPS):
        left = faults(machine)
        if not left:
            break
        line = next((finding["run"] for finding in left.values() if finding["run"]), "")
        if case.by_hand and not by_hand:
            carry_out(machine, case.by_hand)
            by_hand = True
        elif line and line not in lines:
            lines.append(line)
            carry_out(machine, line)
    left = faults(machine)
    shown = " then ".join([*(["by hand"] if by_hand else []), *(f"`{line}`" for line in lines)])
    return shown, "; ".join(f"{name}: {finding['text']}" for name, finding in left.items())


# --- the first day


def test_a_failed_setup_reports_what_is_installed_and_how_to_continue(first_day: FirstDay) -> None:
    """The messages were enough to continue: otherwise there would be no first day."""
    assert "NOT SET UP: the program, its hook and its units are installed, but there is no API key" in first_day.failed
    assert "Invalid, used or expired deploy key" in first_day.failed
    assert "when slurmctld looked for it, it was not installed yet.\nRestart slurmctld: " in first_day.failed


def test_a_slurmctld_that_was_started_first_is_found(first_day: FirstDay) -> None:
    """slurm.conf is right but slurmctld calls nothing: check says so, and its line fixes it, proved by a real call."""
    faults = {name for name, finding in first_day.unproved.items() if finding["ok"] is False}
    assert ({"hook calls"}, False) == (faults, first_day.queued)
    assert "before the hook was last changed" in first_day.unproved["hook calls"]["text"]
    assert RESTART == first_day.unproved["hook calls"]["run"]
    assert " after test job " in first_day.proved["hook calls"]["text"]
    assert {} == {name: finding for name, finding in first_day.proved.items() if finding["ok"] is False}


def test_the_first_reconcile_counts_no_misses(first_day: FirstDay) -> None:
    """Jobs from before the first call are delivered, and do not count as missed by the hook."""
    assert "0 missed by the hook" in first_day.reconcile
    assert "2 delivered" in first_day.reconcile or "3 delivered" in first_day.reconcile
    assert ("ok", 0) == (first_day.status["level"], first_day.status["hook"]["missed"])
    assert first_day.status["history_since"]


# --- things that break


@pytest.mark.parametrize("case", BREAKS, ids=lambda case: case.what.replace(" ", "-"))
def test_each_fault_is_found_and_fixed(installed: Machine, table: Row, case: Break) -> None:
    """The printed line, or what the text asks for, fixes it; the cause is named, and nothing else is reported."""
    machine = installed
    machine.run("sh", "-c", case.breaks, expect=None)
    try:
        found = faults(machine)
        assert case.found_by in found, found
        finding = found[case.found_by]
        shown, left = repair(machine, case)
        if case.slurm and not left:
            left = "; ".join(fault["text"] for fault in faults(machine, "--test-job").values())
    finally:
        machine.run("sh", "-c", case.undo or "true")
        if case.slurm:
            machine.run("sh", "-c", f"cmp -s /root/slurm.conf {CONF} || {{ cp /root/slurm.conf {CONF}; {RESTART}; }}")
            machine.wait_for_slurm()
        machine.run("systemctl", "start", FLUSH, expect=None)
    table.outcomes.append(Outcome(case.what, case.found_by, finding["text"], shown, left or "yes"))
    assert case.says in finding["text"]
    assert finding["mend"]
    assert "" == left
    assert {} == faults(machine)


# --- other ways to install it


def test_a_users_own_installation(installed: Machine, dashboard: ReceivingDashboard) -> None:
    """Users are not advised to give their spool away; the missing user systemd is found, and who can fix it."""
    machine = installed
    user = ("runuser", "-u", "backup", "--", "env", "HOME=/tmp/home")
    machine.run("install", "-d", "-o", "backup", "/tmp/home")
    machine.write("/tmp/home/key", API_KEY)
    options = ("--user", "--enable", "--api-url", dashboard.url, "--api-key-file", "/tmp/home/key")
    said = machine.run(*user, "/wheels/bundle/install.sh", *options)
    assert "Your own systemd cannot be reached" in said
    assert "sudo loginctl enable-linger backup" in said
    program = [*user, f"/tmp/home/.local/bin/{NAME}", f"--config=/tmp/home/.config/{NAME}/config.toml"]

    def findings() -> dict[str, dict[str, Any]]:
        printed = machine.run(*program, "check", "--json", expect=None)
        return {one["name"]: one for one in json.loads(printed[printed.index("{\n") :])["checks"]}

    found = findings()
    assert "chown" not in json.dumps(found)
    assert "the hook runs as slurm and cannot write to backup's own spool" in found["spool"]["text"]
    assert (None, None) == (found["hook"]["ok"], found["hook calls"]["ok"])
    machine.run(*user, "sh", "-c", found["spool"]["run"])
    found = findings()
    assert (True, "loginctl enable-linger backup") == (found["spool"]["ok"], found["daily timer"]["run"])
    machine.run(*user, "/wheels/bundle/install.sh", "--user", "--purge")


def test_cron_without_a_cron_daemon(installed: Machine) -> None:
    """The file alone starts nothing: install.sh says so at once, and check whenever it runs."""
    machine = installed
    said = machine.run("/wheels/bundle/install.sh", "--no-systemd")
    assert "No cron daemon is running." in said
    assert {"daily timer", "flush timer"} <= faults(machine).keys()
    assert "no cron daemon is running" in check(machine)["flush timer"]["text"]
    machine.run("/wheels/bundle/install.sh", "--enable")
    assert "Start the timers" not in machine.run("/wheels/bundle/install.sh")
    assert {} == faults(machine)
