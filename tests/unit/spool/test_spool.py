"""The spool is opened by one run at a time, taken over, and set aside when something in it breaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, ContextManager, Iterator, Sequence

import pytest

import agent
from agent.errors import Busy, ConfigError, LedgerDamaged, SpoolError
from agent.jobs.queue_entry import QueueEntry
from agent.localtime import Range
from agent.privilege import name_of
from agent.spool.ledger import Ledger
from agent.spool.lock import run_lock
from agent.spool.owner import check_spool, step_down
from agent.spool.queue import Queue
from agent.spool.spool import Spool, look_at_ledger, open_spool

STEP_DOWN = """
import pathlib, sys
from agent.spool.owner import step_down
from agent.errors import SpoolError
try:
    step_down(pathlib.Path(sys.argv[1]))
except SpoolError as error:
    print(f"{error} ({error.hint})")
"""


NOW = 1_700_000_000.0


def open_quietly(folder: Path, *, alone: bool = False) -> ContextManager[Spool]:
    return open_spool(folder, complain=lambda error: None, alone=alone)


def lose_a_table(folder: Path, *, alone: bool) -> None:
    """Damage that opening the file does not show."""
    with open_quietly(folder, alone=alone) as spool:
        spool.ledger.database.execute("DROP TABLE waiting")
        spool.ledger.waiting.count()


def test_a_ledger_whose_damage_shows_late_is_set_aside(tmp_path: Path) -> None:
    """One run fails, saying where the ledger was moved; the next one starts with a new ledger."""
    with pytest.raises(LedgerDamaged) as caught:
        lose_a_table(tmp_path, alone=True)
    (aside,) = tmp_path.glob("ledger.db.aside.*")
    assert f"it was set aside as {aside}; the next reconcile replays the whole window" == caught.value.hint
    with open_quietly(tmp_path, alone=True) as spool:
        assert (0, None) == spool.ledger.waiting.count()


def test_reading_a_damaged_ledger_leaves_it_in_place(tmp_path: Path) -> None:
    """Another run may be writing to it."""
    with pytest.raises(LedgerDamaged) as caught:
        lose_a_table(tmp_path, alone=False)
    assert "the next flush or reconcile sets it aside and starts a new one; no job is lost" == caught.value.hint


def test_two_runs_at_once(tmp_path: Path) -> None:
    """The second run exits at once; reading needs no lock."""
    with open_quietly(tmp_path, alone=True):
        with pytest.raises(Busy), open_quietly(tmp_path, alone=True):
            pass
        with open_quietly(tmp_path) as spool:
            assert [] == list(spool.ledger.rejected.newest())
    with run_lock(tmp_path):
        pass


@pytest.fixture
def spool_of_nobody() -> Iterator[Path]:
    """A spool in a folder that everyone may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        yield Path(folder)


def test_it_is_reported_that_the_spools_owner_cannot_read_the_program(tmp_path: Path, spool_of_nobody: Path) -> None:
    """Otherwise a late import would fail in the middle of a run."""
    shutil.copytree(Path(agent.__file__).parent, tmp_path / "agent")
    tmp_path.chmod(0o700)
    command = [sys.executable, "-c", STEP_DOWN, str(spool_of_nobody)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    expected = (
        f"nobody, the owner of the spool {spool_of_nobody}, cannot read this program or its Python ({sys.executable})"
        f" (move {tmp_path} to where nobody can read it, or install it with install.sh)\n"
    )
    assert expected == done.stdout


def test_the_command_logs_that_the_owner_cannot_read_the_program(tmp_path: Path, spool_of_nobody: Path) -> None:
    """The modules that write the log are imported before root becomes that user."""
    shutil.copytree(Path(agent.__file__).parent, tmp_path / "agent")
    tmp_path.chmod(0o700)
    config = spool_of_nobody / "config.toml"
    config.touch(mode=0o600)
    os.chown(config, 65534, 65534)
    command = [sys.executable, "-m", "agent", "--config", str(config), "status"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert ConfigError.exit_code == done.returncode
    assert f"nobody, the owner of the configuration {config}, cannot read this program" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_owner_without_a_name_is_reported_to_root(tmp_path: Path) -> None:
    """Such a user has no groups that root could take on."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    nameless = next(uid for uid in range(64_000, 0, -1) if name_of(uid) == str(uid))
    os.chown(tmp_path, nameless, -1)
    with pytest.raises(SpoolError) as caught:
        step_down(tmp_path)
    assert str(caught.value).startswith(f"cannot become the owner of the spool {tmp_path}, uid {nameless}: ")
    assert f"run as that user, or chown the spool {tmp_path} to the Slurm user" == caught.value.hint


def error_as_another_user(call: Callable[[], object]) -> str:
    """The error message for a user who is neither root nor the spool's owner."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65533)
        try:
            call()
        except SpoolError as error:
            os.write(writer, f"{error} ({error.hint})".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as file:
        return file.read()


def test_without_access_to_the_spool_the_message_names_the_user(spool_of_nobody: Path) -> None:
    """The message says which user may read it."""
    said = error_as_another_user(lambda: look_at_ledger(spool_of_nobody).__enter__())
    assert f"the spool {spool_of_nobody} can't be read (run as root or as the Slurm user)" == said


def test_without_write_access_the_message_names_the_required_owner(spool_of_nobody: Path) -> None:
    """It is reported before anything else is tried there."""
    said = error_as_another_user(lambda: check_spool(spool_of_nobody))
    hint = "run as root, or as the spool's owner"
    assert f"the spool {spool_of_nobody} is not writable ({hint})" == said


def test_take_over_moves_entries_from_the_files_to_the_ledger(tmp_path: Path, ledger: Ledger) -> None:
    """Files are deleted once the ledger has their entries; a second call finds nothing."""
    (tmp_path / "queue").write_text("\n100 1700000000 1700003660 -\nrubbish\n")
    (tmp_path / "queue.side.9.101").write_text("\n101 - - -\n")
    complaints: list[Exception] = []
    spool = Spool(Queue(tmp_path, complain=complaints.append), ledger)
    spool.take_over(NOW)
    spool.take_over(NOW)
    assert [QueueEntry(101), QueueEntry(100, 1700000000, 1700003660)] == [
        item.entry for item in ledger.waiting.newest()
    ]
    assert [] == list(tmp_path.glob("queue.*.*"))
    assert 1 == len(complaints)


def test_calls_that_are_far_apart_are_announced_apart(tmp_path: Path, ledger: Ledger) -> None:
    """If this host was not in control for a week, jobs that ended before and after it are announced separately."""
    week_ago, today = 1_700_000_000, 1_700_600_000
    ends = [week_ago, today + 1400, week_ago + 800, today + 100, week_ago + 1600, today + 900]
    lines = [f"{100 + number} {end - 60} {end} -\n" for number, end in enumerate(ends)]
    queue = tmp_path / "queue"
    queue.write_text("".join(lines))
    os.utime(queue, (today + 1500,) * 2)
    spool = Spool(Queue(tmp_path, complain=lambda error: None), ledger)
    assert [Range(week_ago, week_ago + 1600), Range(today + 100, today + 1500)] == spool.take_over(NOW)
    assert [] == spool.take_over(NOW)


def test_calls_without_end_may_have_come_since_the_last_flush(tmp_path: Path, ledger: Ledger) -> None:
    """Their time is that of the last call, or up to ten minutes before."""
    queue = tmp_path / "queue"
    queue.write_text("100 - - -\n")
    os.utime(queue, (1_700_000_000,) * 2)
    spool = Spool(Queue(tmp_path, complain=lambda error: None), ledger)
    assert [Range(1_700_000_000 - 600, 1_700_000_000)] == spool.take_over(NOW)


class TornQueue(Queue):
    """A disk error after the first entry."""

    def read(self, files: Sequence[Path]) -> Iterator[QueueEntry]:
        yield next(super().read(files))
        raise SpoolError("input/output error")


def test_take_over_that_fails_keeps_the_files(tmp_path: Path, ledger: Ledger) -> None:
    """Taking over is all or nothing: what could not be stored stays in the queue for the next run."""
    (tmp_path / "queue").write_text("100\n101\n")
    with pytest.raises(SpoolError):
        Spool(TornQueue(tmp_path, complain=lambda error: None), ledger).take_over(NOW)
    assert [] == list(ledger.waiting.newest())
    Spool(Queue(tmp_path, complain=lambda error: None), ledger).take_over(NOW)
    assert [QueueEntry(101), QueueEntry(100)] == [item.entry for item in ledger.waiting.newest()]
