"""The hook, run as slurmctld runs it, and the lock that it shares with the agent."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import pytest

from agent.errors import Busy
from agent.jobs.queue_entry import QueueEntry
from agent.spool.lock import QUEUE_LOCK, locked
from agent.spool.queue import Queue

HOOK = Path(__file__).parents[2] / "hooks" / "jobcomp.sh"
JOBCOMP = {"JOBID": "7", "SUBMIT": "100", "END": "160", "ARRAYJOBID": "0", "ARRAYTASKID": "4294967294"}
EPILOG = {"SLURM_JOB_ID": "7"}
#: The hook waits one second for syslog, and a loaded machine is slow.
BOUND_SECONDS = 10


def call_hook(spool: Path, **variables: str) -> int:
    """Runs the hook for a job and returns its exit code."""
    env = {"PATH": "/usr/bin:/bin", "SLURM_USAGE_HISTORY_SPOOL": str(spool), **variables}
    return subprocess.run(["/bin/sh", str(HOOK)], check=False, env=env, timeout=BOUND_SECONDS).returncode


def open_queue(spool: Path) -> Queue:
    complaints: list[Exception] = []
    return Queue(spool, complain=complaints.append)


def claimed(spool: Path) -> list[QueueEntry]:
    """What a flush would find."""
    queue = open_queue(spool)
    return list(queue.read(queue.claim()))


@pytest.mark.parametrize(
    ("variables", "entry"),
    [
        (JOBCOMP, QueueEntry(7, 100, 160)),
        ({**JOBCOMP, "ARRAYJOBID": "5", "ARRAYTASKID": "2"}, QueueEntry(7, 100, 160)),
        ({**JOBCOMP, "ARRAYJOBID": "7", "ARRAYTASKID": "3"}, QueueEntry(7, 100, 160, 3)),
        ({**JOBCOMP, "ARRAYJOBID": "7"}, QueueEntry(7, 100, 160)),
        (EPILOG, QueueEntry(7)),
        ({**EPILOG, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, QueueEntry(7, None, None, 3)),
        ({**EPILOG, "SLURM_JOB_END_TIME": "160"}, QueueEntry(7, None, 160)),
    ],
    ids=["plain", "task", "last task", "whole array", "epilog", "epilog's last task", "epilog of 23.11"],
)
def test_queues_the_values_of_slurm(tmp_path: Path, variables: dict[str, str], entry: QueueEntry) -> None:
    """JobID and hints come from jobcomp's variables or EpilogSlurmctld's; the array counts for its last task alone."""
    assert call_hook(tmp_path, **variables) == 0
    assert claimed(tmp_path) == [entry]


@pytest.mark.parametrize("job", ["", "12x", "-1", "1 2", "1\n2", "$(touch pwned)", "`id`", "１２"])
def test_queues_only_numbers(tmp_path: Path, job: str) -> None:
    """Without a JobID of digits no line is written, and the exit status is still 0."""
    assert call_hook(tmp_path, **{**JOBCOMP, "JOBID": job}) == 0
    assert list(tmp_path.iterdir()) == []


def test_only_digits_are_written(tmp_path: Path) -> None:
    """A hint that is not a number is unknown, and text from the user is ignored."""
    hostile = "1\n99 1 1 -\n$(touch pwned)|;'\""
    assert (
        call_hook(tmp_path, **{**JOBCOMP, "SUBMIT": hostile, "END": "", "JOBNAME": hostile, "WORK_DIR": hostile}) == 0
    )
    assert claimed(tmp_path) == [QueueEntry(7)]


def a_file(spool: Path) -> None:
    spool.rmdir()
    spool.touch()


def a_dangling_link_as_lock(spool: Path) -> None:
    (spool / "queue.lock").symlink_to(spool / "nowhere" / "file")


def a_fifo_as_queue(spool: Path) -> None:
    os.mkfifo(spool / "queue")


def a_folder_that_takes_no_file(spool: Path) -> None:
    spool.rmdir()
    spool.symlink_to("/proc/self/fd")


def test_a_line_after_a_truncated_one(tmp_path: Path) -> None:
    """The rest of a line that a full disk cut off is not joined with the next one."""
    (tmp_path / "queue").write_text("4711 1700")
    assert call_hook(tmp_path, **JOBCOMP) == 0
    assert claimed(tmp_path) == [QueueEntry(4711, 1700), QueueEntry(7, 100, 160)]


@pytest.mark.parametrize(
    "spoil", [Path.rmdir, a_file, a_dangling_link_as_lock, a_fifo_as_queue, a_folder_that_takes_no_file]
)
def test_exits_0_in_bounded_time_whatever_the_spool_is(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A missing, unusable or malicious spool never fails or delays slurmctld."""
    spool = tmp_path / "spool"
    spool.mkdir()
    spoil(spool)
    assert call_hook(spool, **JOBCOMP) == 0


def test_follows_no_link_in_place_of_the_queue(tmp_path: Path) -> None:
    """A link that was planted as the queue leads the hook nowhere, and the line is kept beside it."""
    spool, victim = tmp_path / "spool", tmp_path / "victim"
    spool.mkdir()
    (spool / "queue").symlink_to(victim)
    assert call_hook(spool, **JOBCOMP) == 0
    assert not victim.exists()
    assert claimed(spool) == [QueueEntry(7, 100, 160)]


def test_keeps_its_line_while_python_holds_the_lock(tmp_path: Path) -> None:
    """The hook writes beside the queue at once."""
    with locked(tmp_path / QUEUE_LOCK, 0, Busy("")):
        assert call_hook(tmp_path, **JOBCOMP) == 0
        assert not (tmp_path / "queue").exists()
    assert claimed(tmp_path) == [QueueEntry(7, 100, 160)]


def test_python_waits_while_a_hook_holds_the_lock(tmp_path: Path) -> None:
    """A claim takes the queue only after the hook has released it."""
    call_hook(tmp_path, **JOBCOMP)
    holder = subprocess.Popen(
        ["flock", tmp_path / "queue.lock", "sh", "-c", "echo held; read -r line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    holder.stdout.readline()
    claim = threading.Thread(target=open_queue(tmp_path).claim)
    claim.start()
    claim.join(0.5)
    waited = claim.is_alive() and (tmp_path / "queue").exists()
    holder.communicate("continue\n")
    claim.join(BOUND_SECONDS)
    assert (waited, claim.is_alive(), (tmp_path / "queue").exists()) == (True, False, False)


def test_many_hooks_and_flushes_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    """Of lines from many hooks at once, with the queue claimed in between again and again, each is read once."""
    found: list[int] = []
    queue = open_queue(tmp_path)
    jobs = range(1, 201)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call_hook, tmp_path, **{**JOBCOMP, "JOBID": str(job)}) for job in jobs]
        while not all(call.done() for call in calls):
            files = queue.claim()
            found += [entry.job_id for entry in queue.read(files)]
            queue.discard(files)
            time.sleep(0.01)
    found += [entry.job_id for entry in queue.read(queue.claim())]
    assert [call.result() for call in calls] == [0] * len(jobs)
    assert sorted(found) == list(jobs)
