"""A snapshot says what the spool and the ledger hold, and leaves both as they were."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Iterator

import pytest

from agent.errors import LedgerDamaged, SpoolError
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import Record
from agent.localtime import local_day
from agent.spool.facts import ELSEWHERE, GIVEN_UP, MISSED, MISSED_END, PAUSE
from agent.spool.ledger import open_ledger
from agent.spool.lock import run_lock
from agent.spool.queue import Queue
from agent.spool.run_history import RunReport
from agent.spool.spool import Spool, look_at_ledger
from agent.status.snapshot import Day, Snapshot, make_delay, take_snapshot
from tests.support.snapshots import DAY, HOUR, NOON, make_config

ROOT = Path(__file__).parents[3]


class Site:
    """A spool with a queue and a ledger, at noon of a day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = make_config(spool_dir=str(folder))
        self.ledger, _ = open_ledger(folder / "ledger.db")

    def call_hook(self, text: str, at: float, name: str = "queue") -> None:
        path = self.folder / name
        path.write_text(text)
        os.utime(path, (at, at))

    def take_over(self) -> None:
        Spool(Queue(self.folder, complain=_fail), self.ledger).take_over(NOON)

    def look(self) -> Snapshot:
        with look_at_ledger(self.folder) as ledger:
            return take_snapshot(self.config, ledger, NOON)

    def deliver(self, *, command: str, delays: list[int]) -> None:
        for number, delay in enumerate(delays):
            record = Record((number, 1), int(NOON) - 600, str(number), 8, 0, "{}")
            self.ledger.delivered.add("lab", [record], command, record.end + delay, hooked=command == "flush")


def _fail(error: Exception) -> None:
    raise error


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Site]:
    spool = Site(tmp_path)
    yield spool
    spool.ledger.close()


# The hook


def test_calls_are_counted_before_and_after_a_flush_takes_them_over(spool: Site) -> None:
    """Calls in the queue and in the ledger count alike: the hook's health does not depend on flush's."""
    spool.call_hook("1 - - -\n2 - - -\n", NOON - 2 * HOUR)
    spool.take_over()
    spool.call_hook("3 - - -\n", NOON - HOUR)
    hook = spool.look().hook
    assert (3, 3, NOON - HOUR) == (hook.calls_today, hook.calls, hook.last_call)


def test_calls_of_other_days_are_not_todays(spool: Site) -> None:
    """Each call counts on its own day, and the first of these days is remembered."""
    spool.call_hook("1 - - -\n2 - - -\n", NOON - DAY)
    spool.take_over()
    hook = spool.look().hook
    yesterday = (local_day(NOON) - timedelta(days=1)).isoformat()
    assert (0, 2, yesterday) == (hook.calls_today, hook.calls, hook.first_day)


@pytest.mark.parametrize(("missed_end", "silent"), [(NOON - 2 * HOUR, False), (NOON - HOUR / 2, True)])
def test_a_hook_is_silent_when_a_job_ended_after_its_last_call(spool: Site, missed_end: float, silent: bool) -> None:
    """A job that was missed while the hook called for others is a gap, not silence."""
    spool.call_hook("1 - - -\n", NOON - HOUR)
    spool.ledger.facts.set(MISSED, 7)
    spool.ledger.facts.set(MISSED_END, missed_end)
    hook = spool.look().hook
    assert (7, silent) == (hook.missed, hook.silent)


@pytest.mark.parametrize("elsewhere", [0, 1])
def test_no_hook_is_required_where_the_cluster_has_no_slurmctld(spool: Site, elsewhere: int) -> None:
    """The last run decides. A hook that has called all the same is required, and so is any without slurm_cluster."""
    spool.ledger.facts.set(ELSEWHERE, elsewhere)
    assert "" == spool.look().no_hook
    spool.config = make_config(spool_dir=str(spool.folder), slurm_cluster="physics")
    known = "no hook expected, because this host does not control physics"
    assert (known if elsewhere else "") == spool.look().no_hook
    spool.call_hook("1 - - -\n", NOON - HOUR)
    assert "" == spool.look().no_hook


# The backlog


def test_the_backlog_is_the_queue_and_the_waiting_jobs(spool: Site) -> None:
    """Queued and waiting jobs are counted apart; the oldest is the one that ended first, wherever it is."""
    spool.call_hook(f"1 - {int(NOON) - 500}\n", NOON - 400)
    spool.take_over()
    spool.call_hook(f"2 - {int(NOON) - 900}\nno job\n3\n", NOON - 100)
    spool.call_hook("4\n", NOON - 50, name="queue.side.77.4")
    backlog = spool.look().backlog
    assert (3, 1, 1, {"not sent yet": 1}) == (backlog.queued, backlog.unreadable, backlog.waiting, backlog.reasons)
    assert NOON - 900 == backlog.oldest


def test_a_line_without_an_end_is_as_old_as_its_file(spool: Site) -> None:
    """`echo 4711 >>queue` records only when it was done."""
    spool.call_hook("4711\n", NOON - 77)
    assert NOON - 77 == spool.look().backlog.oldest


def test_rejected_records_are_shown_with_the_dashboards_message(spool: Site) -> None:
    """All are counted, the newest few are shown."""
    for number in range(5):
        record = Record((number, 1), 2, f"{number}_9", 0, 0, "{}")
        spool.ledger.rejected.add("lab", record, "no such user", NOON - number, hooked=True)
    snapshot = spool.look()
    assert 5 == snapshot.backlog.rejected
    assert [("0_9", "no such user"), ("1_9", "no such user")] == [
        (record.shown_id, record.reason) for record in snapshot.rejected[:2]
    ]


@pytest.mark.parametrize(("until", "shown"), [(NOON + 60, NOON + 60), (NOON - 60, None)])
def test_a_pause_is_shown_while_it_lasts(spool: Site, until: float, shown: float | None) -> None:
    """An expired Retry-After is not shown. Records given up stay counted."""
    spool.ledger.facts.set(PAUSE, until)
    spool.ledger.facts.set(GIVEN_UP, 4)
    backlog = spool.look().backlog
    assert (shown, 4) == (backlog.paused_until, backlog.given_up)


# CommandRuns


def test_the_last_run_the_last_success_and_the_last_delivery_differ(spool: Site) -> None:
    """A flush that fails now may have succeeded an hour ago, and delivered something two hours ago."""
    delivered = RunReport("flush", NOON - 2 * HOUR, 3.0, 0, "5 delivered", delivered=5)
    idle = RunReport("flush", NOON - HOUR, 0.1, 0, "nothing to do")
    failed = RunReport("flush", NOON - 60, 30.0, 69, "no answer")
    for report in (delivered, idle, failed):
        spool.ledger.history.add_run(report)
    runs = spool.look().flush
    assert (failed, NOON - HOUR, NOON - 2 * HOUR + 3) == (runs.last, runs.last_success, runs.last_delivery)


def test_a_run_with_rejected_records_counts_as_successful(spool: Site) -> None:
    """Everything else was delivered: one bad record does not make the reconcile count as missing."""
    spool.ledger.history.add_run(RunReport("reconcile", NOON - HOUR, 9.0, 65, "5 delivered, 1 rejected", 5, 1))
    runs = spool.look().reconcile
    assert (NOON - HOUR, False) == (runs.last_success, runs.has_failed)


@pytest.mark.parametrize("command", ["flush", "reconcile"])
def test_a_run_that_holds_the_lock_is_shown(spool: Site, command: str) -> None:
    """It is shown with its command and process, without touching the lock."""
    holder = (
        "import sys; from pathlib import Path; from agent.spool.lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", holder, str(spool.folder), command]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        under_way = spool.look().under_way
        process.communicate()
    assert under_way
    assert (command, process.pid) == (under_way.command, under_way.pid)


def test_no_run_is_under_way_when_nobody_holds_the_lock(spool: Site) -> None:
    """The lock's file stays behind: it is the lock that counts."""
    with run_lock(spool.folder):
        pass
    assert spool.look().under_way is None


# Delay and coverage


def test_the_delay_is_that_of_flush(spool: Site) -> None:
    """Jobs that reconcile delivers do not count."""
    spool.deliver(command="flush", delays=[5, 7, 30])
    spool.ledger.delivered.add("lab", [Record((9, 1), 5, "9", 0, 0, "{}")], "reconcile", NOON, hooked=False)
    assert (3, 7.0, 30.0) == spool.look().delay


@pytest.mark.parametrize(
    ("seconds", "median", "p99"),
    [([4.0], 4.0, 4.0), ([1.0, 2.0], 1.0, 2.0), ([float(n) for n in range(1, 201)], 100.0, 198.0), ([-3.0], 0.0, 0.0)],
)
def test_percentiles_are_nearest_ranks(seconds: list[float], median: float, p99: float) -> None:
    """Half, and 99 of 100, took no longer; a clock behind Slurm's makes no delay negative."""
    assert (len(seconds), median, p99) == make_delay(seconds)


def coverage_days(spool: Site, *counts: tuple[int, int]) -> list[Day]:
    """Writes the counts of the last days, the last of them today's."""
    today = local_day(NOON)
    days = [(today - timedelta(days=len(counts) - 1 - number)).isoformat() for number in range(len(counts))]
    spool.ledger.history.set_coverage(dict(zip(days, counts)))
    return [Day(day, *numbers) for day, numbers in zip(days, counts)]


def test_coverage_is_judged_by_the_last_two_days(spool: Site) -> None:
    """A bad day is reported until the days after it are good."""
    spool.ledger.history.add_calls(1, NOON - 9 * DAY, NOON - 9 * DAY)
    days = coverage_days(spool, (100, 0), (50, 40), (50, 50))
    coverage = spool.look().coverage
    assert (tuple(days), 100, 0.9) == (coverage.days, coverage.jobs, coverage.ratio)


def test_days_before_the_hook_do_not_count(spool: Site) -> None:
    """Its first day counts: reconcile leaves out what ended before the first call."""
    spool.ledger.history.add_calls(1, NOON - DAY, NOON - DAY)
    coverage_days(spool, (100, 0), (100, 60), (100, 100))
    assert 0.8 == spool.look().coverage.ratio


def test_counts_from_before_the_first_call_are_discarded(spool: Site) -> None:
    """A reconcile by hand at nine counts nothing for a hook that was wired at ten."""
    coverage_days(spool, (100, 0), (100, 0))
    spool.ledger.history.add_calls(1, NOON - HOUR, NOON)
    assert ((), None) == (spool.look().coverage.days, spool.look().coverage.ratio)


def test_a_job_queued_by_an_admin_is_not_a_hook_call(spool: Site) -> None:
    """It proves nothing about slurmctld, neither before nor after a flush."""
    spool.call_hook("4711\n203_3\n", NOON - HOUR)
    for _ in range(2):
        snapshot = spool.look()
        assert (0, None, None) == (snapshot.hook.calls, snapshot.hook.last_call, snapshot.hook.since)
        assert 2 == snapshot.backlog.queued + snapshot.backlog.waiting
        spool.take_over()


def test_the_hook_counts_from_the_end_of_the_first_job_that_it_queued(spool: Site) -> None:
    """This holds however much later a flush processes it."""
    spool.call_hook(f"1 5 {int(NOON) - 300} -\n2 5 {int(NOON) - 100} -\n", NOON - 90)
    spool.take_over()
    assert NOON - 300 == spool.look().hook.since
    spool.call_hook(f"3 5 {int(NOON) - 900} -\n", NOON - 80)
    spool.take_over()
    assert NOON - 300 == spool.look().hook.since


def test_coverage_without_a_hook_is_unknown(spool: Site) -> None:
    """A hook that was never called is a different problem from low coverage."""
    coverage_days(spool, (100, 0))
    coverage = spool.look().coverage
    assert (0, None) == (coverage.jobs, coverage.ratio)


# Looking only


def test_reading_creates_nothing(tmp_path: Path) -> None:
    """Before the first run there is no ledger, and reading creates none."""
    with look_at_ledger(tmp_path) as ledger:
        snapshot = take_snapshot(make_config(spool_dir=str(tmp_path)), ledger, NOON)
    assert (None, 0, []) == (snapshot.flush.last, snapshot.backlog.waiting, list(tmp_path.iterdir()))


def test_reading_repairs_nothing(tmp_path: Path) -> None:
    """A damaged ledger is reported, and left for the next run to set aside."""
    (tmp_path / "ledger.db").write_bytes(b"no database" * 100)
    with pytest.raises(LedgerDamaged, match="file is not a database"), look_at_ledger(tmp_path):
        pass
    assert ["ledger.db"] == [path.name for path in tmp_path.iterdir()]


def test_a_missing_spool_is_reported_and_not_created(tmp_path: Path) -> None:
    """Created by the user who runs status, the spool would belong to the wrong user."""
    missing = tmp_path / "spool"
    with pytest.raises(SpoolError, match="there is no spool"), look_at_ledger(missing):
        pass
    assert not missing.exists()


def test_reading_does_not_wait_for_a_dry_run(spool: Site) -> None:
    """A dry run keeps its changes in a transaction, which it rolls back."""
    with spool.ledger.rehearsal():
        spool.ledger.waiting.add(map(QueueEntry, range(1, 100_001)), NOON)
        assert 0 == spool.look().backlog.waiting


def test_status_imports_nothing_heavy() -> None:
    """It is run often, so it does not import what only other commands need."""
    script = "import sys, agent.cli, agent.spool.spool, agent.status.output; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.split()
    assert set() == set(modules) & {"requests", "prometheus_client", "tqdm", "email.utils", "http.client"}


# The command


def run_status(folder: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, with UTF-8 on a pipe."""
    config = folder / "config.toml"
    config.touch(mode=0o600)
    config.write_text(f'api_url = "http://localhost"\napi_key = "secret"\nspool_dir = "{folder}"\n')
    argv = [sys.executable, "-m", "agent", "status", "--config", str(config), *options]
    env = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "utf-8", **environ}
    return subprocess.run(argv, capture_output=True, check=False, cwd=ROOT, env=env, encoding="utf-8")


def test_the_exit_code_of_status_check_is_the_level(spool: Site) -> None:
    """0 is well, 1 a warning, 2 critical, by one line on standard output."""
    now = time.time()
    ends = []
    for exit_code in (0, 69, 77):
        spool.ledger.history.add_run(RunReport("reconcile", now - 60 + exit_code / 100, 1.0, exit_code, "as it was"))
        done = run_status(spool.folder, "--check")
        ends.append((done.returncode, done.stdout.partition(" - ")[0], done.stdout.count("\n"), done.stderr))
    assert [(0, "OK", 1, ""), (1, "WARNING", 1, ""), (2, "CRITICAL", 1, "")] == ends


def test_a_check_that_finds_no_spool_is_critical(tmp_path: Path) -> None:
    """If status cannot read the spool, flush cannot deliver either."""
    done = run_status(tmp_path, "--check", SLURM_USAGE_HISTORY_SPOOL=str(tmp_path / "none"))
    assert (2, "CRITICAL - there is no spool") == (done.returncode, done.stdout[:28])


def test_status_itself_always_exits_0(spool: Site) -> None:
    """Only --check sets the exit code; scripts read the JSON."""
    spool.ledger.history.begin(NOON)  # long ago, and no reconcile since
    done = run_status(spool.folder, "--json")
    assert (0, "warning") == (done.returncode, json.loads(done.stdout)["level"])


def test_a_pipe_gets_no_colour_and_an_old_locale_no_bullets(spool: Site) -> None:
    """Output to a pipe has no escapes, and in an old locale only ASCII."""
    assert "\033" not in run_status(spool.folder).stdout
    assert "●" in run_status(spool.folder).stdout
    assert run_status(spool.folder, PYTHONIOENCODING="ascii").stdout.isascii()


@pytest.mark.parametrize(
    ("environ", "coloured"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({}, False)]
)
def test_a_terminal_gets_colour_unless_it_wants_none(spool: Site, environ: dict[str, str], coloured: bool) -> None:
    """NO_COLOR is respected, and so is a missing TERM."""
    run_status(spool.folder)
    argv = [sys.executable, "-m", "agent", "status", "--config", str(spool.folder / "config.toml")]
    ours, theirs = pty.openpty()
    subprocess.run(argv, check=True, cwd=ROOT, stdout=theirs, env={"PATH": os.environ["PATH"], **environ})
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert coloured == ("\033[" in shown)
