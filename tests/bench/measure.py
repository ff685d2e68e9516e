"""Runs commands and measures their time and memory; figures with their spread."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple, Sequence

POLL_SECONDS = 0.005
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024.0


class Outcome(NamedTuple):
    """The output and the cost of a finished command."""

    seconds: float  # wall-clock time
    own_cpu: float  # seconds of processor time, user and system, of the command itself
    children_cpu: float  # likewise, of its children
    stdout: str
    stderr: str


class Figure(NamedTuple):
    """One line of a table: what was measured in each round, and the goal."""

    what: str
    values: Sequence[float]
    unit: str
    goal: str = ""
    limit: float | None = None
    higher_is_better: bool = False
    remark: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None if there is no goal."""
        if self.limit is None:
            return None
        return self.median >= self.limit if self.higher_is_better else self.median <= self.limit


def run(argv: Sequence[str], env: Mapping[str, str], *, cwd: Path | None = None, ok: Sequence[int] = (0,)) -> Outcome:
    """Runs a command to its end, its output into files.

    :param ok: the exit codes that are not failures.
    :raises RuntimeError: if it exits otherwise.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - started
        own_cpu, children_cpu = _processor_time(process.pid)
        returncode = process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    if returncode not in ok:
        raise RuntimeError(f"{' '.join(argv)[:200]}: exit {returncode}: {texts[1][-2000:]}")
    return Outcome(seconds, own_cpu, children_cpu, *texts)


def _processor_time(pid: int) -> tuple[float, float]:
    """Processor seconds of a process that has just ended but was not waited for, and of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(ticks) / TICKS for ticks in fields[11:15])
    return user + system, children_user + children_system


def watch_memory(argv: Sequence[str], env: Mapping[str, str], *, cwd: Path | None = None) -> dict[str, float]:
    """Runs a command and returns the peak of resident memory in MiB, of itself and of its children by their names.

    The kernel's own high-water mark (VmHWM) is read again and again, so nothing but the last few milliseconds of a
    process can escape.
    """
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(argv, env=dict(env), cwd=cwd, stdout=subprocess.DEVNULL, stderr=err)
        peaks: dict[str, float] = {}
        while process.poll() is None:
            _note_peak(peaks, process.pid, "itself")
            for child in _descendants(process.pid):
                _note_peak(peaks, child)
            time.sleep(POLL_SECONDS)
        if process.returncode:
            err.seek(0)
            raise RuntimeError(f"exit {process.returncode}: {err.read()[-2000:].decode('utf-8', 'replace')}")
    return peaks


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Repeats some work while the block runs; yields a function that returns how often it was done.

    :raises Exception: at the end of the block, if the work has raised one.
    """
    done: list[object] = []
    failures: list[Exception] = []
    over = threading.Event()

    def repeat() -> None:
        try:
            while not over.is_set():
                done.append(work())
        except Exception as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield lambda: len(done)
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def expect(counted: int, wanted: int, what: str) -> None:
    """Fails a benchmark that has not done its work.

    :raises RuntimeError: if the counts differ.
    """
    if counted != wanted:
        raise RuntimeError(f"{counted:,} {what}, not {wanted:,}")


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The ratio of ours to theirs in each round."""
    return [one / other for one, other in zip(ours, theirs)]


def _note_peak(peaks: dict[str, float], pid: int, name: str | None = None) -> None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # the process has ended
        return
    fields = dict(line.split(":", 1) for line in status.splitlines())
    if "VmHWM" in fields:
        key = name or fields["Name"].strip()
        peaks[key] = max(peaks.get(key, 0.0), int(fields["VmHWM"].split()[0]) / MIB)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:  # the process has ended
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def load_average() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]
