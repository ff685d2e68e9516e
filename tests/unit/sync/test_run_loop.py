"""The long-running mode: what is done when, and that only a signal ends it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from agent import cli
from agent.arguments import parse_argv
from agent.errors import Busy, ExporterError, SlurmUnreachable, UsageError
from agent.options import RunOptions
from agent.sync.run_loop import RETRY_SECONDS, run_rounds, write_health
from tests.support.dashboard import API_KEY, ReceivingDashboard
from tests.support.replayed_sacct import ReplayedSacct
from tests.support.waiting import wait_for

DAY = 86_400.0
START = 1_700_000_000.0


class World:
    """A clock that only waiting and working moves, and what was done when."""

    def __init__(self, *, takes: float = 1.0, last_reconcile: float = 0.0) -> None:
        self.now = START
        self.takes = takes
        self.last = last_reconcile
        self.done: list[tuple[str, float]] = []
        self.faults: dict[str, ExporterError] = {}

    def attempt(self, name: str) -> Callable[[], str]:
        def run() -> str:
            self.done.append((name, self.now - START))
            self.now += self.takes
            if name in self.faults:
                raise self.faults[name]
            if name == "reconcile":
                self.last = self.now
            return name

        return run

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= 30
        self.now += seconds

    def rounds(self) -> Iterator[str | ExporterError]:
        return run_rounds(
            self.attempt("flush"),
            self.attempt("reconcile"),
            flush_seconds=30.0,
            reconcile_seconds=DAY,
            last_reconcile=lambda: self.last,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def test_flushes_keep_their_interval_however_long_they_take() -> None:
    """Intervals are counted from start to start, and a run that took longer is followed at once."""
    world = World(takes=12.0, last_reconcile=START)
    assert ["flush"] * 3 == list(itertools.islice(world.rounds(), 3))
    assert [("flush", 0.0), ("flush", 30.0), ("flush", 60.0)] == world.done
    slow = World(takes=45.0, last_reconcile=START)
    list(itertools.islice(slow.rounds(), 3))
    assert [0.0, 45.0, 90.0] == [at for _, at in slow.done]


def test_a_missed_reconcile_is_run_and_then_one_each_day() -> None:
    """The ledger keeps the schedule, so that a restart of the container does not start another."""
    world = World()
    assert ["flush", "reconcile", "flush"] == list(itertools.islice(world.rounds(), 3))
    again = World(last_reconcile=START - DAY + 100)
    outcomes = list(itertools.islice(again.rounds(), 6))
    assert ["flush"] * 5 + ["reconcile"] == outcomes
    assert ("reconcile", 121.0) == again.done[-1]


def test_a_reconcile_that_fails_is_tried_again_in_an_hour() -> None:
    """A failed reconcile is repeated an hour later, and flushes continue meanwhile."""
    world = World()
    world.faults["reconcile"] = SlurmUnreachable("slurmdbd is down")
    list(itertools.islice(world.rounds(), 200))
    first, second = [at for name, at in world.done if name == "reconcile"][:2]
    assert RETRY_SECONDS <= second - first < RETRY_SECONDS + 60


def test_a_failure_in_one_round_does_not_end_the_next() -> None:
    """Whatever failed may work in the next round: outages end, configurations are fixed, locks are released."""
    world = World(last_reconcile=START)
    world.faults["flush"] = Busy("another run is in progress")
    rounds = world.rounds()
    assert isinstance(next(rounds), Busy)
    world.faults.clear()
    assert "flush" == next(rounds)


def test_a_clock_that_is_set_back_delays_nothing() -> None:
    """A clock set back by hours does not delay the next flush."""
    world = World(last_reconcile=START)
    rounds = world.rounds()
    next(rounds)
    world.now -= 7200
    next(rounds)
    assert 2 == len(world.done)


def test_the_health_file_is_whole_at_any_time(tmp_path: Path) -> None:
    """A probe reads it while it is replaced."""
    health = tmp_path / "health"
    for line in ("Flush: nothing to do", "Flush: 3 jobs delivered"):
        write_health(health, line)
        assert f"{line}\n" == health.read_text()
    assert [health] == list(tmp_path.iterdir())


def test_no_link_beside_the_health_file_is_followed(tmp_path: Path) -> None:
    """In /tmp any user could leave one, by the number that the process will have."""
    health, victim = tmp_path / "health", tmp_path / "victim"
    victim.write_text("ours\n")
    for name in ("health", f".health.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    write_health(health, "Flush: nothing to do")
    assert ("ours\n", "Flush: nothing to do\n") == (victim.read_text(), health.read_text())


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("5m", 300.0), ("5min", 300.0), ("12h", 43_200.0), ("1d", DAY), ("45", 45.0)]
)
def test_spans_are_written_as_admins_write_them(text: str, seconds: float) -> None:
    """With a unit, or in seconds."""
    _, options = parse_argv(["run", "--every", text])
    assert isinstance(options, RunOptions)
    assert seconds == options.every


@pytest.mark.parametrize("text", ["0", "-5", "1w", "367d", "1.5h", "", "soon", "٣s"])
def test_texts_that_are_not_spans_are_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(UsageError, match="such as 30s"):
        parse_argv(["run", f"--every={text}"])


def test_a_configuration_that_is_wrong_at_startup_ends_it(tmp_path: Path) -> None:
    """A container that can never work must visibly fail."""
    config = tmp_path / "config.toml"
    config.write_text("api_url = 1\n")
    assert 78 == cli.main(["--config", str(config), "run"])


def test_its_reconciles_send_only_what_is_missing(tmp_path: Path) -> None:
    """Like the daily one of the timer; with ``--reconcile-every 10m`` it replays the window 144 times a day."""
    (tmp_path / "spool").mkdir()
    sacct = ReplayedSacct(tmp_path / "slurm")
    sacct.make_jobs(20, int(time.time()) - 7200)
    rests: list[float] = []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            raise KeyboardInterrupt

    with ReceivingDashboard() as dashboard:
        settings = {"api_url": dashboard.url, "api_key": API_KEY, "cluster_name": "lab", "sacct": str(sacct.path)}
        config = tmp_path / "config.json"
        config.write_text(json.dumps({**settings, "spool_dir": str(tmp_path / "spool")}))
        config.chmod(0o600)
        argv = ["--config", str(config), "run", "--reconcile-every", "10m"]
        assert 0 == cli.main(argv, clock=lambda: time.time() + 900 * len(rests), sleep=sleep)
        assert 3 <= sacct.calls
        assert 20 == sum(len(request.jobs) for request in dashboard.requests if request.method == "POST")


def test_term_ends_it_cleanly(tmp_path: Path) -> None:
    """With exit code 0, one line for each run before, and a health file of the last."""
    (tmp_path / "spool").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        f'api_url = "http://127.0.0.1:1"\napi_key = "k"\ncluster_name = "c"\nspool_dir = "{tmp_path}/spool"\n'
        'sacct = "/nonexistent/sacct"\n'
    )
    config.chmod(0o600)
    health, log = tmp_path / "health", tmp_path / "log"
    argv = [
        sys.executable,
        "-m",
        "agent",
        "--config",
        str(config),
        "run",
        "--every",
        "1s",
        "--health-file",
        str(health),
    ]
    with log.open("w") as stderr:
        process = subprocess.Popen(argv, stderr=stderr, cwd=Path(cli.__file__).parents[1])
    try:
        wait_for(lambda: log.read_text().count("Flush: ") >= 2, "two flushes")
        wait_for(lambda: health.read_text().startswith("Flush: "), "the health file, which is written after the log")
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(60)
    finally:
        process.kill()
    lines = log.read_text().splitlines()
    assert "stopped; all undelivered jobs are kept" in lines[-1]
    assert 1 == sum("Reconcile" in line or "sacct" in line for line in lines), lines
    assert os.path.exists(tmp_path / "spool")  # noqa: PTH110
