"""The locked queue file: each line that the hook writes is claimed once and never lost."""

from __future__ import annotations

import fcntl
import io
import math
import os
import subprocess
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from random import Random
from typing import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Busy, ExporterError, SpoolError, UnreadableLine
from agent.jobs.queue_entry import LAST_JOB_ID, QueueEntry
from agent.spool.lock import lock_holder, locked, run_lock
from agent.spool.owner import check_spool
from agent.spool.queue import ABANDONED_SECONDS, LONGEST_LINE, Queue


class Spool:
    """A queue in a folder, with the problems that it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.complaints: list[ExporterError] = []
        self.queue = Queue(folder, complain=self.complaints.append, lock_wait=0.2)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def take(self) -> list[int]:
        """Claims, reads and discards, and returns the JobIDs in ascending order."""
        files = self.queue.claim()
        job_ids = sorted(entry.job_id for entry in self.queue.read(files))
        self.queue.discard(files)
        return job_ids

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@pytest.fixture
def lock_held_by_flock(spool: Spool) -> Iterator[None]:
    """Keeps the lock held, as by a stopped hook."""
    argv = ["flock", str(spool.folder / "queue.lock"), "sh", "-c", "echo held; read -r line"]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert "held\n" == holder.stdout.readline()
    yield
    holder.communicate("\n")


def link_to_passwd(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def test_what_is_queued_is_claimed_once(spool: Spool) -> None:
    """Jobs are read as they were queued, a second claim is empty, and an admin's lines do not count as hook calls."""
    entries = [QueueEntry(7), QueueEntry(203, array_task=3)]
    spool.queue.append(entries)
    files = spool.queue.claim()
    assert [entry._replace(submit=0) for entry in entries] == list(spool.queue.read(files))
    assert 0 == spool.queue.calls
    spool.queue.discard(files)
    assert [] == spool.take()
    assert ["queue.lock"] == spool.names()


def test_files_that_are_not_discarded_are_claimed_again(spool: Spool) -> None:
    """A run that is killed between claim and discard leaves its files to the next."""
    spool.write("queue", "1\n")
    spool.queue.claim()
    spool.write("queue", "2\n")
    spool.queue.claim()
    spool.write("queue", "3\n")
    assert [1, 2, 3] == spool.take()


def test_a_line_after_a_truncated_one(spool: Spool) -> None:
    """A full disk may leave half a line; the next one does not grow onto it."""
    spool.write("queue", "4711 17000")
    spool.queue.append([QueueEntry(12)])
    assert [12, 4711] == spool.take()


def test_side_files_count_too(spool: Spool) -> None:
    """A hook that could not get the lock leaves a file of its own."""
    spool.write("queue", "1\n")
    spool.write("queue.side.99.2", "\n2 1700000000 1700000060 -\n")
    assert [1, 2] == spool.take()


@pytest.mark.parametrize(("age", "taken"), [(0.0, []), (ABANDONED_SECONDS + 1.0, [5]), (-ABANDONED_SECONDS - 1.0, [5])])
def test_a_part_that_its_hook_never_named(spool: Spool, age: float, taken: list[int]) -> None:
    """It is left alone while its hook may live, and read once that is dead, or when the clock was set back."""
    part = spool.write("queue.part.99.5", "\n5\n")
    os.utime(part, (time.time() - age, time.time() - age))
    assert taken == spool.take()


@pytest.mark.parametrize("name", ["queue", "queue.side.99.2", "queue.part.99.2", "queue.claimed.1.1"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_passwd])
def test_only_regular_files_are_opened(spool: Spool, name: str, make: Callable[[Path], None]) -> None:
    """A link, a FIFO or a folder is renamed and reported, and the other files are read."""
    make(spool.folder / name)
    spool.write("queue.side.1.1", "1\n")
    assert [1] == spool.take()
    (complaint,) = spool.complaints
    (aside,) = spool.folder.glob("odd.queue.*")
    odd = spool.folder / aside.name[len("odd.") :]
    assert f"{odd} is not a readable regular file and was set aside as {aside}" == str(complaint)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_passwd])
def test_nothing_is_appended_unless_it_is_a_file(spool: Spool, make: Callable[[Path], None]) -> None:
    """A FIFO would block the caller forever, a link would lead anywhere."""
    make(spool.folder / "queue")
    with pytest.raises(SpoolError, match="not a regular file"):
        spool.queue.append([QueueEntry(1)])


@pytest.mark.usefixtures("lock_held_by_flock")
def test_a_hook_excludes_a_claim(spool: Spool) -> None:
    """While flock(1) holds the lock, nothing is appended and the queue is not moved."""
    spool.write("queue", "1\n")
    with pytest.raises(SpoolError) as caught:
        spool.queue.append([QueueEntry(2)])
    lock = spool.folder / "queue.lock"
    assert f"{lock} has been held for more than 0.2 s" == str(caught.value)
    assert f"see who holds it: fuser -v {lock}; meanwhile the hook writes to side files" == caught.value.hint
    assert [] == spool.take()
    assert "1\n" == (spool.folder / "queue").read_text()


@pytest.mark.usefixtures("lock_held_by_flock")
def test_a_stuck_lock_blocks_nothing_else(spool: Spool) -> None:
    """Files beside the queue are read all the same, and the stuck lock is reported."""
    spool.write("queue", "1\n")
    spool.write("queue.side.99.2", "2\n")
    assert [2] == spool.take()
    assert [True] == ["has been held" in str(error) for error in spool.complaints]


def test_a_claim_excludes_hooks(spool: Spool) -> None:
    """While a claim is under way, flock(1) does not get the lock; afterwards it does."""
    flock = ["flock", "--nonblock", str(spool.folder / "queue.lock"), "true"]
    with spool.queue._locked():
        assert 1 == subprocess.run(flock, check=False).returncode
    assert 0 == subprocess.run(flock, check=False).returncode


def test_a_side_file_that_another_process_took(spool: Spool) -> None:
    """A file deleted between claim and read has its entries in the ledger already, and the rest is read."""
    gone = spool.write("queue.claimed.1.1", "1\n")
    spool.write("queue.claimed.2.1", "2\n")
    files = spool.queue.claim()
    gone.unlink()
    assert [2] == [entry.job_id for entry in spool.queue.read(files)]
    assert spool.queue.last_write(files) is not None
    spool.queue.discard(files)
    assert spool.queue.last_write(files) is None


@given(garbage=st.lists(st.binary(max_size=200)), job_ids=st.lists(st.integers(1, LAST_JOB_ID)), order=st.randoms())
def test_garbage_between_lines(spool: Spool, garbage: list[bytes], job_ids: list[int], order: Random) -> None:
    """Garbage in a queue file costs none of the hook's lines."""
    lines = [*garbage, *(b"%d 1700000000 1700000060 -" % job_id for job_id in job_ids)]
    order.shuffle(lines)
    (spool.folder / "queue").write_bytes(b"".join(b"\n%b\n" % line for line in lines))
    taken = spool.take()
    for job_id in job_ids:
        taken.remove(job_id)
    assert len(taken) <= sum(line.count(b"\n") + 1 for line in garbage)


def test_a_line_without_end(spool: Spool) -> None:
    """Megabytes without a newline are read piece by piece, and reported as such."""
    complaints: Counter[type] = Counter()
    queue = Queue(spool.folder, complain=lambda error: complaints.update([type(error)]))
    files = [spool.write("queue", "x" * 10_000_000 + "\n7\n")]
    tracemalloc.start()
    try:
        assert [7] == [entry.job_id for entry in queue.read(files)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {UnreadableLine: math.ceil(10_000_001 / LONGEST_LINE)} == complaints
    assert peak < 100_000 + io.DEFAULT_BUFFER_SIZE  # 8 KiB, and from Python 3.14 on 128


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """The second run is refused at once, and the kernel knows who the first is."""
    with run_lock(tmp_path):
        assert os.getpid() == lock_holder(tmp_path)
        with pytest.raises(Busy), run_lock(tmp_path):
            pass
    assert lock_holder(tmp_path) is None
    with run_lock(tmp_path):
        pass


def test_a_lock_removed_while_it_is_taken_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would exclude nobody, so another lock is taken."""
    take = fcntl.flock

    def remove_first(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", take)
        (tmp_path / "x.lock").unlink()
        take(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    lock = tmp_path / "x.lock"
    with locked(lock, 1, Busy("not free")), pytest.raises(Busy, match="held"), locked(lock, 0, Busy("held")):
        pass
    with locked(tmp_path / "x.lock", 0, Busy("held")):
        pass


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """A user who can write to the spool must not get root to open a file."""
    (tmp_path / "x.lock").symlink_to(tmp_path / "elsewhere")
    lock = tmp_path / "x.lock"
    with pytest.raises(SpoolError, match="Too many levels of symbolic links"), locked(lock, 0, Busy("held")):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_spool_is_created(tmp_path: Path) -> None:
    """It is created with its parent folders, and closed to other users."""
    spool = tmp_path / "var" / "spool"
    check_spool(spool)
    assert 0o750 == spool.stat().st_mode & 0o777


def test_a_spool_that_everyone_can_write_to(tmp_path: Path) -> None:
    """Anybody could forge the hook's lines, so such a spool is refused, with the way to fix it."""
    tmp_path.chmod(0o757)
    with pytest.raises(SpoolError) as caught:
        check_spool(tmp_path)
    assert f"chmod 750 {tmp_path}" == caught.value.hint


def test_a_spool_that_cannot_be_created(tmp_path: Path) -> None:
    """The error has the system's own message."""
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError) as caught:
        check_spool(tmp_path / "file" / "spool")
    assert f"cannot use {tmp_path}/file/spool: Not a directory" == str(caught.value)
    mend = "check that the spool's disk is mounted, writable and not full, and belongs to the Slurm user"
    assert mend == caught.value.hint


def test_a_spool_that_is_not_a_folder(tmp_path: Path) -> None:
    """A file instead of the spool folder is reported."""
    (tmp_path / "spool").touch()
    with pytest.raises(SpoolError, match="is not a folder"):
        check_spool(tmp_path / "spool")
