"""In any failure of Slurm, dashboard or host every job is kept, the next run names the cause, and then all arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any, Iterator

import pytest

from agent.dashboard.client import PULSE_TRIES
from agent.errors import (
    STOPPED,
    Busy,
    DashboardUnreachable,
    KeyRefused,
    RecordsRejected,
    SlurmUnreachable,
    SpoolError,
)
from agent.spool.facts import PAUSE
from agent.spool.ledger import open_ledger, view_ledger
from tests.faults.site import Site
from tests.support import dashboard_faults as faults
from tests.support.dashboard import Answer, Fault, ReceivingDashboard
from tests.support.disk import fill, make_read_only, small_disk
from tests.support.exporter import ROOT
from tests.support.waiting import wait_for

UNREACHABLE = DashboardUnreachable.exit_code
REFUSED_KEY = KeyRefused.exit_code
REJECTED = RecordsRejected.exit_code


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ReceivingDashboard() as dashboard:
        made = Site(tmp_path, dashboard, timeout=1, sacct_timeout=2, batch_size=5000)
        with made.agents:
            made.start_over()
            made.queue_everything()
            yield made


@pytest.fixture
def expected(site: Site) -> dict[str, dict[str, Any]]:
    """What the dashboard holds if nothing fails."""
    assert site.agents.run("flush") == 0
    records = site.dashboard.records
    assert len(records) > 30
    site.start_over()
    site.queue_everything()
    return records


def waiting(site: Site) -> dict[str, str]:
    ledger = view_ledger(site.spool / "ledger.db")
    items = {item.entry.asked: item.reason for item in ledger.waiting.newest()}
    ledger.close()
    return items


def make_due(site: Site) -> None:
    """Makes delayed retries due at once."""
    site.agents.run("queue", "retry")


def assert_recovered(site: Site, expected: dict[str, dict[str, Any]]) -> None:
    """Checks that the next run delivers everything."""
    make_due(site)
    assert site.agents.run("flush") == 0, site.agents.log()
    assert (site.dashboard.records, waiting(site), site.leftovers()) == (expected, {}, [])


@pytest.mark.parametrize("manners", ["no_slurmdbd", "no_mariadb", "half", "cut", "complain", "hang"])
def test_sacct_that_cannot_be_trusted(site: Site, expected: dict[str, dict[str, Any]], manners: str) -> None:
    """If sacct fails or answers in part, even with exit 0, no job is touched, and the failure is reported."""
    site.sacct.behave(manners)
    before = len(site.hook_lines())
    for _ in range(2):
        assert site.agents.run("flush") == SlurmUnreachable.exit_code
    assert site.agents.run(*site.reconcile_argv()) == SlurmUnreachable.exit_code
    assert (site.dashboard.posts, set(waiting(site).values())) == ([], {"not sent yet"})
    assert len(waiting(site)) <= before
    site.sacct.behave("")
    assert_recovered(site, expected)


def test_sacct_that_may_not_answer(site: Site, expected: dict[str, dict[str, Any]]) -> None:
    """An empty answer, as sacct gives without privileges, means that the records are not there yet."""
    site.sacct.behave("empty")
    assert site.agents.run("flush") == 0
    assert (site.dashboard.posts, set(waiting(site).values())) == ([], {"no record yet"})
    site.sacct.behave("")
    assert_recovered(site, expected)


def test_a_hung_sacct_blocks_no_second_run(site: Site) -> None:
    """While one run waits for sacct, others exit at once; at the time limit all of sacct's processes are killed."""
    site.sacct.behave("hang")
    argv = [sys.executable, "-m", "agent", "--config", str(site.config), "flush"]
    with subprocess.Popen(argv, cwd=ROOT, env=site.env, stderr=subprocess.DEVNULL) as first:
        wait_for(lambda: site.sacct.calls == 1, "the call that hangs")
        assert [site.agents.run("flush") for _ in range(3)] == [Busy.exit_code] * 3
        assert first.poll() is None
        assert first.wait(20) == SlurmUnreachable.exit_code
    assert site.sacct.calls == 1
    wait_for(lambda: not processes_of(site), "the end of every sacct")


def test_a_hung_dashboard_blocks_no_second_run(site: Site) -> None:
    """Flushes and reconciles that start meanwhile exit at once; the dashboard gets one POST, not one a minute."""
    site.dashboard.manners = faults.hang()
    argv = [sys.executable, "-m", "agent", "--config", str(site.config), "flush"]
    with subprocess.Popen(argv, cwd=ROOT, env=site.env, stderr=subprocess.DEVNULL) as first:
        wait_for(lambda: site.dashboard.posts, "the request that hangs")
        first.send_signal(signal.SIGSTOP)  # its time-out is short
        commands = [("flush",), site.reconcile_argv()] * 5
        assert [site.agents.run(*command) for command in commands] == [Busy.exit_code] * 10
        first.send_signal(signal.SIGCONT)
        assert first.wait(20) == UNREACHABLE
    assert (len(site.dashboard.posts), site.sacct.calls) == (1, 1)
    assert len(site.dashboard.requests) <= 1 + PULSE_TRIES


def processes_of(site: Site) -> list[str]:
    """The sacct processes that are alive."""
    lines = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "replayed_sacct.py" in words and str(site.sacct.path.parent) in words:
            lines.append(words)
    return lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_on_request(site: Site, expected: dict[str, dict[str, Any]], number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C stop a run cleanly: no sacct process is left, and every job is kept."""
    site.sacct.behave("hang")
    argv = [sys.executable, "-m", "agent", "--config", str(site.config), "flush"]
    calls = site.sacct.calls
    with subprocess.Popen(argv, cwd=ROOT, env=site.env, stderr=subprocess.PIPE, text=True) as run:
        wait_for(lambda: site.sacct.calls > calls, "the call that hangs")
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert run.returncode == STOPPED
    assert "all undelivered jobs are kept" in said
    wait_for(lambda: not processes_of(site), "the end of every sacct")
    site.sacct.behave("")
    assert_recovered(site, expected)


NOTHING_STORED: dict[str, tuple[Fault, int]] = {
    "reset": (faults.reset, UNREACHABLE),
    "hang": (faults.hang(), UNREACHABLE),
    "redirect": (faults.answer(302, "", Location="http://127.0.0.1:1/"), UNREACHABLE),
    "html": (faults.answer(200, "<html>log in</html>"), UNREACHABLE),
    "401": (faults.answer(401, {"detail": "no"}), REFUSED_KEY),
    "403": (faults.answer(403, {"detail": "no"}), REFUSED_KEY),
    "404": (faults.answer(404, "no"), UNREACHABLE),
    "409": (faults.answer(409, "no"), UNREACHABLE),
    "413": (faults.answer(413, "no"), UNREACHABLE),
    "422": (faults.answer(422, {"detail": "no"}), UNREACHABLE),
    "429": (faults.answer(429, "no", Retry_After="100"), UNREACHABLE),
    "502": (faults.answer(502, "<html>Bad Gateway</html>", Retry_After="3600"), UNREACHABLE),
    "503 with a date": (faults.answer(503, "no", Retry_After=formatdate(time.time() + 9000, usegmt=True)), UNREACHABLE),
    "success: false": (faults.answer(200, {"success": False, "message": "disk full"}), UNREACHABLE),
}


@pytest.mark.parametrize("name", NOTHING_STORED)
def test_a_dashboard_that_accepts_nothing(site: Site, expected: dict[str, dict[str, Any]], name: str) -> None:
    """Whatever the dashboard answers, no job is set aside or dropped, and few requests are made."""
    site.dashboard.manners, status = NOTHING_STORED[name]
    assert site.agents.run("flush") == status, site.agents.log()
    assert site.agents.run("queue", "list") == 0
    ledger = view_ledger(site.spool / "ledger.db")
    assert ledger.rejected.count() == 0
    ledger.close()
    assert len(site.dashboard.requests) < 60
    site.dashboard.manners = faults.behave
    forget_pause(site)
    assert_recovered(site, expected)


def forget_pause(site: Site) -> None:
    """Simulates that the dashboard's Retry-After has expired."""
    ledger, _ = open_ledger(site.spool / "ledger.db")
    with ledger.transaction():
        ledger.facts.set(PAUSE, 0)
    ledger.close()


def test_a_dashboard_that_asks_for_a_pause(site: Site) -> None:
    """The next runs respect it without a request or a call of sacct."""
    site.dashboard.manners = faults.answer(429, "later", Retry_After="7200")
    assert [site.agents.run("flush") for _ in range(3)] == [UNREACHABLE] * 3
    assert site.agents.run(*site.reconcile_argv()) == UNREACHABLE
    assert (len(site.dashboard.posts), site.sacct.calls) == (1, 1)
    assert len(site.dashboard.requests) <= 1 + PULSE_TRIES


@pytest.mark.parametrize("trouble", [faults.store_and_reset, faults.drip(0.2)])
def test_a_dashboard_that_stores_without_acknowledging(
    site: Site, expected: dict[str, dict[str, Any]], trouble: Fault
) -> None:
    """Records that may have arrived are sent again, and are stored once."""
    site.dashboard.faults.append(trouble)
    site.agents.run("flush")
    assert_recovered(site, expected)


def test_a_dashboard_that_counts_fewer_jobs_than_sent(site: Site, expected: dict[str, dict[str, Any]]) -> None:
    """A success that counts fewer records is a failure: the missing record is found and shown."""

    def miscount(answer: Answer) -> Answer:
        stored = answer.body.get("jobs_processed", 0)
        return answer._replace(body={**answer.body, "jobs_processed": max(stored - 1, 0)})

    site.dashboard.manners = faults.rewrite(miscount)
    assert site.agents.run("flush") == UNREACHABLE
    site.dashboard.manners = faults.behave
    assert_recovered(site, expected)


def test_a_poison_record(site: Site, expected: dict[str, dict[str, Any]]) -> None:
    """A record that breaks the dashboard is found, shown with the error message, and can be retried or dropped."""

    def breaks(request: Any, connection: Any, serve: Any) -> None:
        bad = any(job["JobID"] == "104" for job in request.jobs)
        connection.send(Answer(500, {"detail": "KeyError: 'high'"}) if bad else serve())

    site.dashboard.manners = breaks
    assert site.agents.run("flush") == REJECTED
    assert site.dashboard.records == {job: record for job, record in expected.items() if job != "104"}
    assert len(site.dashboard.requests) <= 4 + 2 + 2 * 6 + 3
    site.agents.run("queue", "list")
    assert "104  JobID 104" in site.agents.log()
    assert "KeyError: 'high'" in site.agents.log()
    site.dashboard.manners = faults.behave
    assert site.agents.run("queue", "retry", "104") == 0
    assert_recovered(site, expected)


@pytest.mark.parametrize("leave_kilobytes", [0, 4, 16, 64])
def test_a_full_disk(tmp_path: Path, leave_kilobytes: int) -> None:
    """Whichever write fails on a full disk, the failure is reported, and everything arrives once there is space."""
    with ReceivingDashboard() as dashboard:
        site = Site(tmp_path, dashboard)
        with site.agents, small_disk(site.spool, 2000):
            site.queue_everything()
            filler = fill(site.spool, leave_kilobytes=leave_kilobytes)
            status = site.agents.run("flush")
            assert status in {0, SpoolError.exit_code}
            filler.unlink()
            assert site.agents.run("flush") == 0, site.agents.log()
            assert len(site.dashboard.records) > 30
            assert (waiting(site), site.leftovers()) == ({}, [])


def test_a_read_only_disk(tmp_path: Path) -> None:
    """The failure is reported, and everything arrives once the disk is writable again."""
    with ReceivingDashboard() as dashboard:
        site = Site(tmp_path, dashboard)
        with site.agents, small_disk(site.spool, 2000):
            site.queue_everything()
            make_read_only(site.spool)
            assert site.agents.run("flush") == SpoolError.exit_code
            make_read_only(site.spool, read_only=False)
            assert site.agents.run("flush") == 0
            assert len(site.dashboard.records) > 30


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0 and then nothing"])
def test_a_damaged_ledger(site: Site, damage: bytes) -> None:
    """A corrupt ledger is set aside and reported; reconcile delivers what only it knew."""
    site.agents.run("flush")
    records = site.dashboard.records
    site.dashboard.stored.clear()
    (site.spool / "ledger.db").write_bytes(damage)
    assert site.agents.run(*site.reconcile_argv()) == 0
    assert site.dashboard.records == records
    assert bool(damage) == ("it was set aside as" in site.agents.log())


@pytest.mark.parametrize("command", [["list"], ["add", "1"], ["retry"], ["drop", "1"]])
def test_only_a_run_sets_a_damaged_ledger_aside(site: Site, command: list[str]) -> None:
    """No command moves a ledger that another run may be using, such as one of a newer version."""
    ledger = site.spool / "ledger.db"
    ledger.write_bytes(b"no database")
    assert site.agents.run("queue", *command) == SpoolError.exit_code
    assert ledger.read_bytes() == b"no database"
    assert "the next flush or reconcile sets it aside" in site.agents.log()
    assert site.agents.run("flush") == 0


def test_a_spool_that_everyone_can_write_to(site: Site, expected: dict[str, dict[str, Any]]) -> None:
    """Nothing in it is trusted until that is fixed."""
    site.spool.chmod(0o777)
    assert site.agents.run("flush") == SpoolError.exit_code
    assert site.dashboard.posts == []
    site.spool.chmod(0o750)
    assert_recovered(site, expected)


def test_a_flush_during_a_reconcile(site: Site, expected: dict[str, dict[str, Any]]) -> None:
    """The second run exits at once and quietly, and the next one delivers what it would have delivered."""
    site.sacct.behave("hang", "")
    argv = [sys.executable, "-m", "agent", "--config", str(site.config), *site.reconcile_argv()]
    calls = site.sacct.calls
    with subprocess.Popen(argv, cwd=ROOT, env=site.env, stderr=subprocess.DEVNULL) as reconcile:
        wait_for(lambda: site.sacct.calls > calls, "the call that hangs")
        assert site.agents.run("flush") == Busy.exit_code
        for command in (["queue", "add", "4711"], ["queue", "list"], ["queue", "drop", "4711"], ["status"]):
            assert site.agents.run(*command) == 0, site.agents.log()
        reconcile.wait(20)
    assert_recovered(site, expected)


def test_hostile_surroundings(site: Site, expected: dict[str, dict[str, Any]]) -> None:
    """Garbage in the queue, unknown files in the spool and a hostile environment change nothing."""
    with (site.spool / "queue").open("ab") as queue:
        queue.write(b"\n$(reboot)\n\xff\xfe\x00\n0\n99999999999\n4294967295\n- - - -\n" + b"x" * 100_000 + b"\n")
    os.mkfifo(site.spool / "queue.side.1.1")
    (site.spool / "queue.side.2.2").symlink_to("/etc/passwd")
    hostile = {
        "SACCT_FORMAT": "JobID",
        "SLURM_TIME_FORMAT": "relative",
        "JOBNAME": "$(reboot)\n|'\"\udcff",
        "TZ": "Mars",
    }
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--config", str(site.config), "flush"],
        check=False,
        cwd=ROOT,
        env={**site.env, **hostile},
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert site.dashboard.records == expected
    assert waiting(site) == {}


def test_a_hung_sacct_outlives_its_killed_exporter_by_seconds(site: Site) -> None:
    """sacct still ends at its time limit, so that killed runs do not leave processes behind."""
    site.sacct.behave("hang")
    for _ in range(3):
        assert site.agents.run("flush", kill_after=0.7) < 0
    wait_for(lambda: not processes_of(site), "the end of every sacct", limit_seconds=20)
