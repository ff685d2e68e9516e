"""The hook under stress: killed at each system call, on a full disk, behind a stopped process, many at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

import pytest

from agent.jobs.queue_entry import QueueEntry
from agent.spool.queue import ABANDONED_SECONDS, Queue
from tests.support.disk import fill, make_read_only, small_disk
from tests.support.tools import need
from tests.support.waiting import wait_for

HOOK = Path(__file__).parents[2] / "hooks" / "jobcomp.sh"
#: The hook waits one second for syslog, and a loaded machine is slow.
BOUND_SECONDS = 10
#: How many lines the hooks write in all, and how many hooks run at any time.
CROWD_LINES = int(os.environ.get("CROWD_LINES", "2000"))
CROWD = 8


class Hook:
    """Calls of the hook for one spool.

    :param script: the hook, or a test's variant of it.
    """

    def __init__(self, spool: Path, script: Path = HOOK) -> None:
        self.spool = spool
        self._script = script

    def start(self, job_id: int, *before: str) -> subprocess.Popen[bytes]:
        """Starts it for a job, optionally with a command that wraps the shell."""
        env = {
            "JOBID": str(job_id),
            "SUBMIT": "1700000000",
            "END": "1700000060",
            "SLURM_USAGE_HISTORY_SPOOL": str(self.spool),
        }
        return subprocess.Popen([*before, "/bin/sh", str(self._script)], env=env)

    def call(self, job_id: int, *before: str) -> int:
        """Runs it to its end, and returns its exit status."""
        return self.start(job_id, *before).wait(BOUND_SECONDS)

    def taken(self, *, later: float = 0.0) -> list[QueueEntry]:
        """What the next flush finds, or one a few seconds later."""
        complaints: list[Exception] = []
        queue = Queue(self.spool, complain=complaints.append, clock=lambda: time.time() + later)
        files = queue.claim()
        entries = sorted(queue.read(files))
        queue.discard(files)
        assert complaints == []
        return entries


def entry(job_id: int) -> QueueEntry:
    """What a complete line of the hook is read as."""
    return QueueEntry(job_id, 1_700_000_000, 1_700_000_060)


@contextmanager
def locked(spool: Path) -> Iterator[int]:
    """Holds the lock as a hook does; yields the holder's process ID."""
    argv = ["flock", str(spool / "queue.lock"), "sh", "-c", "echo held; read -r line"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder.pid
        finally:
            os.kill(holder.pid, signal.SIGCONT)
            holder.communicate("\n")


def nothing(spool: Path) -> None:
    """The line goes into the queue."""


def no_lock_to_be_had(spool: Path) -> None:
    """The line goes into a file of its own."""
    (spool / "queue.lock").mkdir()


def system_calls(hook: Hook, log: Path) -> list[tuple[str, int]]:
    """Each system call of the hook and its children: its name, and its ordinal among that name's in the process."""
    assert hook.call(1, "strace", "-f", "-o", str(log)) == 0
    hook.taken()
    started = re.findall(r"^([0-9]+) +([a-z0-9_]+)\(", log.read_text(), re.MULTILINE)
    times = Counter(started)
    most = {name: max(count for (_, other), count in times.items() if other == name) for _, name in started}
    return [(name, number) for name, count in most.items() for number in range(1, count + 1)]


@pytest.mark.parametrize("hinder", [nothing, no_lock_to_be_had])
def test_killed_at_every_system_call(tmp_path: Path, hinder: Callable[[Path], None]) -> None:
    """The line is complete or absent, the lock is free again, and the next hook's line is intact."""
    need("strace")
    spool = tmp_path / "spool"
    spool.mkdir()
    hinder(spool)
    hook = Hook(spool)
    killed = 0
    for name, number in system_calls(hook, tmp_path / "strace.log"):
        kill = f"--inject={name}:signal=KILL:when={number}"
        status = hook.call(1, "strace", "-f", "-qq", "-o", "/dev/null", kill)
        killed += status != 0
        assert hook.call(2) == 0
        found = hook.taken(later=2 * ABANDONED_SECONDS)
        assert set(found) in ({entry(1), entry(2)}, {entry(2)})
        assert entry(1) in found or status != 0
    assert killed > 80


def test_a_removed_lock_does_not_count(tmp_path: Path) -> None:
    """A hook whose lock file is removed after it was opened writes beside the queue."""
    slow = tmp_path / "hook.sh"
    slow.write_text(HOOK.read_text().replace("flock -s -n 9", "sleep 1 && flock -s -n 9"))
    assert slow.read_text() != HOOK.read_text()
    spool = tmp_path / "spool"
    spool.mkdir()
    hook = Hook(spool, slow)
    call = hook.start(1)
    wait_for((spool / "queue.lock").exists, "the hook with the lock file open")
    (spool / "queue.lock").unlink()
    assert call.wait(BOUND_SECONDS) == 0
    assert not (spool / "queue").exists()
    assert hook.taken() == [entry(1)]


def test_hooks_that_overlap_all_the_time(tmp_path: Path) -> None:
    """Hooks share the lock without starving a flush: while one waits for the queue, they write beside it."""
    slow = tmp_path / "hook.sh"
    slow.write_text(HOOK.read_text().replace("&& still_there &&", "&& sleep 0.5 && still_there &&"))
    assert slow.read_text() != HOOK.read_text()
    spool = tmp_path / "spool"
    spool.mkdir()
    with crowd(spool, 80, slow):
        wait_for((spool / "queue").exists, "a first line")
        queue = Queue(spool, complain=lambda error: pytest.fail(str(error)), lock_wait=3)
        files = queue.claim()
        found = list(queue.read(files))
        queue.discard(files)
    assert "claimed" in files[0].name
    assert sorted([*found, *Hook(spool).taken()]) == [entry(job_id) for job_id in range(1, 81)]


def test_while_the_queue_is_claimed(tmp_path: Path) -> None:
    """The hook writes beside the queue instead of waiting; the next flush removes what a killed one left."""
    (tmp_path / "queue.claiming").touch()
    hook = Hook(tmp_path)
    assert hook.call(1) == 0
    assert not (tmp_path / "queue").exists()
    assert hook.taken() == [entry(1)]
    assert [path.name for path in tmp_path.iterdir()] == ["queue.lock"]


def test_a_stopped_process_holds_the_lock(tmp_path: Path) -> None:
    """Every hook returns in bounded time, and its line is kept beside the queue."""
    hook = Hook(tmp_path)
    with locked(tmp_path) as holder:
        os.kill(holder, signal.SIGSTOP)
        started = time.monotonic()
        calls = [hook.start(job_id) for job_id in range(1, 6)]
        assert [call.wait(BOUND_SECONDS) for call in calls] == [0] * 5
        assert time.monotonic() - started < BOUND_SECONDS
        assert hook.taken() == [entry(job_id) for job_id in range(1, 6)]


def test_a_full_disk(tmp_path: Path) -> None:
    """The hook still exits 0 at once, leaves no stray files, and works again once there is space."""
    with small_disk(tmp_path / "spool", 64) as spool:
        hook = Hook(spool)
        assert hook.call(1) == 0
        filler = fill(spool)
        assert [hook.call(job_id) for job_id in range(2, 102)] == [0] * 100
        assert sorted(path.name for path in spool.iterdir()) == ["filler", "queue", "queue.lock"]
        filler.unlink()
        assert hook.call(1000) == 0
        found = hook.taken()
    whole = [one for one in found if one.end is not None and one.end == entry(0).end]
    assert {entry(1), entry(1000)} <= set(whole)
    # The line at which the disk filled up may end anywhere, and is read as far as it goes.
    assert len(found) - len(whole) <= 1


def test_a_read_only_disk(tmp_path: Path) -> None:
    """The hook exits 0, and works again when the disk does."""
    with small_disk(tmp_path / "spool", 64) as spool:
        hook = Hook(spool)
        make_read_only(spool)
        assert hook.call(1) == 0
        make_read_only(spool, read_only=False)
        assert hook.call(2) == 0
        assert hook.taken() == [entry(2)]


def hook_with_logger(folder: Path, logger: str) -> Path:
    """The project's hook with a logger of the test's."""
    (folder / "logger").write_text(f"#!/bin/sh\n{logger}\n")
    (folder / "logger").chmod(0o755)
    text = HOOK.read_text().replace(" PATH=", f" PATH={folder}:", 1)
    assert text != HOOK.read_text()
    (folder / "hook.sh").write_text(text)
    return folder / "hook.sh"


def test_a_job_that_cannot_be_queued_is_reported(tmp_path: Path) -> None:
    """The message in syslog names the job and the file that it should have been written to."""
    said = tmp_path / "said"
    hook = Hook(tmp_path / "missing", hook_with_logger(tmp_path, f'echo "$@" >"{said}"'))
    assert hook.call(7) == 0
    assert f"job 7 could not be queued in {tmp_path / 'missing'}" in said.read_text()


def test_a_stuck_syslog(tmp_path: Path) -> None:
    """Neither the hook nor the logger that it started hangs forever."""
    pid = tmp_path / "pid"
    hook = Hook(tmp_path / "missing", hook_with_logger(tmp_path, f'echo $$ >"{pid}"; exec sleep 1000'))
    assert hook.call(7) == 0
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_every_shell_that_sh_may_be(tmp_path: Path, shell: str) -> None:
    """Debian's dash, EL's bash, Alpine's busybox: into the queue, and beside it if the lock file is missing."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    before = ["env", shell] if shell != "busybox" else ["env", "busybox", "sh"]
    hook = Hook(tmp_path)
    argv = [*before, str(HOOK)]
    env = {"JOBID": "1", "SUBMIT": "1700000000", "END": "1700000060", "SLURM_USAGE_HISTORY_SPOOL": str(tmp_path)}
    assert subprocess.run(argv, env={**env, "PATH": os.environ["PATH"]}, check=False).returncode == 0
    assert (tmp_path / "queue").exists()
    assert hook.taken() == [entry(1)]


@contextmanager
def crowd(spool: Path, lines: int, hook: Path = HOOK) -> Iterator[subprocess.Popen[str]]:
    """Runs that many hooks, several at a time; the block ends once all have exited."""
    shell = f"JOBID=$1 SUBMIT=1700000000 END=1700000060 exec sh {hook}"
    argv = ["xargs", "-P", str(CROWD), "-n", "1", "sh", "-c", shell, "sh"]
    env = {"PATH": os.environ["PATH"], "SLURM_USAGE_HISTORY_SPOOL": str(spool)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdin
        process.stdin.write("\n".join(map(str, range(1, lines + 1))))
        process.stdin.close()
        yield process
    assert process.returncode == 0


def test_many_hooks_and_claims_at_once(tmp_path: Path) -> None:
    """When many hooks write while the queue is claimed repeatedly, each line is read exactly once and complete."""
    hook = Hook(tmp_path)
    found: list[QueueEntry] = []
    with crowd(tmp_path, CROWD_LINES) as process:
        while process.poll() is None:
            found += hook.taken()
    found += hook.taken()
    assert sorted(found) == [entry(job_id) for job_id in range(1, CROWD_LINES + 1)]
