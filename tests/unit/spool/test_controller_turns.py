"""One controller sends at a time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from agent.errors import BatchRefused, DashboardUnreachable
from agent.spool.controller_turns import LOCK_NAME, LONGEST_TURN_SECONDS, YIELD_SECONDS, Turns
from agent.spool.shared_folder import SharedFolder
from tests.support.exporter import ROOT
from tests.support.waiting import wait_for

HOLD = """
import sys, time
from pathlib import Path
from agent.errors import BatchRefused, DashboardUnreachable
from agent.spool.controller_turns import Turns
from agent.spool.shared_folder import SharedFolder
with Turns(SharedFolder(Path(sys.argv[1]))).turn():
    print("mine", flush=True)
    sys.stdin.read()
"""
TRY = """
import fcntl, sys
fcntl.lockf(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


class Holder:
    """Another controller's run, in the middle of its turn."""

    def __init__(self, folder: Path) -> None:
        argv = [sys.executable, "-c", HOLD, str(folder)]
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert "mine" == self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_a_turn_waits_for_the_other_to_end(tmp_path: Path) -> None:
    """A run sends nothing while another controller has its turn."""
    other = Holder(tmp_path)
    threading.Timer(0.4, other.end).start()
    began = time.monotonic()
    turns = Turns(SharedFolder(tmp_path))
    with turns.turn():
        assert time.monotonic() - began >= 0.3
    assert "" == turns.failure


def test_a_killed_run_gives_up_its_turn(tmp_path: Path) -> None:
    """The kernel releases the lock."""
    other = Holder(tmp_path)
    other.kill()
    turns = Turns(SharedFolder(tmp_path), sleep=lambda seconds: pytest.fail(f"slept {seconds}") if seconds else None)
    with turns.turn():
        pass


def test_after_a_turn_the_others_get_theirs(tmp_path: Path) -> None:
    """A reconcile of many batches lets a flush of another controller come in between."""
    now = 0.0
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    turns = Turns(SharedFolder(tmp_path), clock=lambda: now, sleep=sleep)
    with turns.turn():
        pass
    with turns.turn():
        pass
    assert [0.0, YIELD_SECONDS] == slept


def test_a_request_without_an_answer_does_not_end_the_turn(tmp_path: Path) -> None:
    """The dashboard may still be processing it, so nobody else sends until it has answered for as many records."""
    turns = Turns(SharedFolder(tmp_path))

    def is_free() -> bool:
        argv = [sys.executable, "-c", TRY, str(turns.path)]
        return subprocess.run(argv, check=False, stderr=subprocess.DEVNULL).returncode == 0

    def send(records: int, error: Exception | None = None) -> None:
        with suppress(DashboardUnreachable, BatchRefused), turns.turn(records):
            if error:
                raise error

    send(600, DashboardUnreachable("no answer in time", overwhelmed=True))
    send(300, DashboardUnreachable("504", overwhelmed=True))
    send(300)
    assert not is_free()
    send(299)
    send(1, BatchRefused("400"))
    assert is_free()
    send(600, DashboardUnreachable("Connection refused"))
    assert is_free()
    send(600, DashboardUnreachable("no answer in time", overwhelmed=True))
    turns.end()
    assert is_free()


def test_a_stuck_lock_blocks_nothing_permanently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After waiting longer than any POST takes, the run sends without a turn and does not wait again."""
    other = Holder(tmp_path)
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += max(seconds, 1.0)

    turns = Turns(SharedFolder(tmp_path), clock=lambda: now, sleep=sleep)
    with turns.turn():
        assert LONGEST_TURN_SECONDS <= now < LONGEST_TURN_SECONDS + 10
    waited = now
    with turns.turn():
        assert waited == now
    other.end()
    assert turns.failure.endswith(f"{LOCK_NAME}: another controller has held it for 600 s")
    assert 1 == caplog.text.count("cannot take turns")


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """The batch is sent, and the run records that it had no turn."""
    turns = Turns(SharedFolder(tmp_path / "missing"))
    with turns.turn():
        pass
    assert turns.failure.endswith(f"{LOCK_NAME}: No such file or directory")


def test_a_filesystem_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS without a lock service returns an error."""

    def refuse(file: int, how: int) -> None:
        raise OSError(37, os.strerror(37))  # ENOLCK

    monkeypatch.setattr(fcntl, "lockf", refuse)
    turns = Turns(SharedFolder(tmp_path))
    with turns.turn():
        pass
    assert turns.failure.endswith("No locks available")


def test_a_file_server_that_hangs(tmp_path: Path) -> None:
    """The run waits for it once, and then sends without its turn, so that no job waits."""
    folder = SharedFolder(tmp_path, patience_seconds=0.05)
    answers = threading.Event()
    with pytest.raises(OSError, match="does not answer"):
        folder.ask(answers.wait)
    turns = Turns(folder)
    with turns.turn():
        pass
    answers.set()
    assert turns.failure.endswith(f"{LOCK_NAME}: the file server does not answer")


def test_a_turn_that_comes_too_late_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the file server answers, a process that runs for days does not keep the others from taking theirs."""
    answers = threading.Event()
    monkeypatch.setattr(fcntl, "lockf", lambda file, how: answers.wait())
    turns = Turns(SharedFolder(tmp_path, patience_seconds=0.05))
    with turns.turn():
        pass
    assert turns.failure
    assert is_open(turns.path)
    answers.set()
    wait_for(lambda: not is_open(turns.path), "the lock's release")


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    return any(link.is_symlink() and link.resolve() == path for link in Path("/proc/self/fd").iterdir())
