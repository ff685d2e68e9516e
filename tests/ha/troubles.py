"""A spool that hangs, a burst, a lost StateSaveLocation, an older database: each on a real Slurm, with figures."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Iterator, NamedTuple

from tests.ha import spread
from tests.ha.hosts import Host, HostError
from tests.ha.sites import SPOOL, Pair, wait_until
from tests.ha.truth import compare, read_rows
from tests.support.exporter import ROOT
from tests.support.waiting import wait_for

PLAIN = ("--parsable", "--uid=65534", "-o", "/dev/null", "--chdir=/tmp")


@contextmanager
def frozen(host: Host, folder: str = SPOOL) -> Iterator[None]:
    """Makes any access to the folder hang while the block runs."""
    freezer = subprocess.Popen(
        host.argv(sys.executable, "-B", str(ROOT / "tests" / "ha" / "frozen.py"), folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert freezer.stdout
    assert freezer.stdout.readline().strip() == "frozen"
    try:
        yield
    finally:
        freezer.communicate()


def run_jobs(pair: Pair, number: int, *, limit_seconds: float = 120) -> float:
    """Runs an array to its end; returns the seconds that it took."""
    began = time.monotonic()
    pair.nodes.run("sbatch", *PLAIN, f"--array=1-{number}", "--wrap", "true")
    wait_for(lambda: not pair.nodes.run("squeue", "-h"), "the end of all jobs", limit_seconds=limit_seconds)
    return time.monotonic() - began


def queued(host: Host) -> int:
    """The number of lines that the hook has written."""
    return int(host.run("sh", "-c", f"cat {SPOOL}/queue* 2>/dev/null | grep -c . || true"))


def stop_slurmctld(pair: Pair, *, limit_seconds: float) -> float | None:
    """Stops ctl1's slurmctld; returns the seconds that it took, or None if it did not stop."""
    began = time.monotonic()
    pair.ctl1.run("sh", "-c", f"kill $(cat {spread.SLURMCTLD_PID})")
    ended = wait_until("its end", lambda: not pair.is_running(pair.ctl1), limit_seconds=limit_seconds)
    return time.monotonic() - began if ended else None


class Freeze(NamedTuple):
    """The effects of a spool that hangs."""

    jobs: int
    seconds: float  # until all had ended, according to slurmctld
    stopping: float | None  # seconds while frozen; None if it did not stop
    thawed: float | None  # and once the spool answered again
    queued: int  # jobs that the hook wrote in total
    sdiag: str  # what sdiag reported about the pending calls


def freeze(pair: Pair, number: int, *, patience_seconds: float) -> Freeze:
    """Ends jobs while the spool hangs, and asks slurmctld to stop meanwhile."""
    before = queued(pair.ctl1)
    with frozen(pair.ctl1):
        seconds = run_jobs(pair, number)
        known = "DBD Agent queue size: 0"  # slurmdbd has all of them, and the hook has been called for none
        wait_for(lambda: known in agent_queues(pair.ctl1), "an idle slurmctld", pause_seconds=0.5)
        sdiag = agent_queues(pair.ctl1)
        stopping = stop_slurmctld(pair, limit_seconds=patience_seconds)
        began = time.monotonic()
    thawed = wait_until("its end", lambda: not pair.is_running(pair.ctl1), limit_seconds=60)
    after = time.monotonic() - began
    found = Freeze(number, seconds, stopping, after if thawed else None, queued(pair.ctl1) - before, sdiag)
    spread.start_slurmctld(pair.ctl1)
    pair.wait_for_control(pair.ctl1)
    return found


def agent_queues(host: Host) -> str:
    """Every queue size that sdiag prints; during a burst, slurmctld may not answer in time."""
    try:
        printed = host.run("sdiag")
    except HostError:
        return "no answer"
    return ", ".join(" ".join(line.split()) for line in printed.splitlines() if "queue size" in line)


class Moment(NamedTuple):
    """The progress of a burst."""

    seconds: float
    ended: int  # according to slurmdbd
    called: int  # according to the hook
    delivered: int


def burst(pair: Pair, number: int, *, every_seconds: float, limit_seconds: float) -> Iterator[Moment]:
    """Runs an array with all tasks at once, and flushes every few seconds until the dashboard has all of them."""
    before = len(pair.board.stored)
    flushing = pair.exporters["ctl1"]
    calls_before = flushing.status()["hook"]["calls"]
    began = time.time()
    flushing.flush_every(5)
    try:
        pair.nodes.run("sbatch", *PLAIN, f"--array=1-{number}", "--wrap", "true")
        while time.time() - began < limit_seconds:
            time.sleep(every_seconds)
            ended = int(pair.sql(f"select count(*) from {pair.cluster}_job_table where time_end >= {int(began)}")[0][0])
            delivered = len(pair.board.stored) - before  # before the calls are counted: no job comes before its call
            called = flushing.status()["hook"]["calls"] - calls_before
            moment = Moment(time.time() - began, ended, called, delivered)
            yield moment
            if moment.delivered >= number:
                return
    finally:
        flushing.stop()


def wipe_state(pair: Pair, *, first_job_id: int = 1) -> None:
    """Deletes slurmctld's StateSaveLocation: JobIDs start at FirstJobId again."""
    stop_slurmctld(pair, limit_seconds=60)
    with (pair.lan.folder / "slurm" / "slurm.conf").open("a") as conf:
        conf.write(f"FirstJobId={first_job_id}\n")
    pair.ctl1.run("sh", "-c", f"rm -rf {pair.state}/*")
    spread.start_slurmctld(pair.ctl1)
    pair.wait_for_control(pair.ctl1)
    wait_for(lambda: "idle" in pair.nodes.run("sinfo", "-h", "-o", "%T"), "idle nodes")


def dump(pair: Pair) -> str:
    """Saves slurmdbd's database, and returns where."""
    path = str(pair.lan.folder / "yesterday.sql")
    pair.dbd.run("sh", "-c", f"mariadb-dump slurm_acct_db > {path}")
    return path


def restore(pair: Pair, path: str) -> None:
    """Restores an older database of slurmdbd, as after the loss of a disk."""
    pair.dbd.run("sh", "-c", "kill $(cat /run/slurm/slurmdbd.pid)")
    wait_for(lambda: pair.dbd.attempt("pgrep", "-x", "slurmdbd").returncode != 0, "the end of slurmdbd")
    pair.dbd.run(
        "sh",
        "-c",
        f"mariadb -e 'drop database slurm_acct_db; create database slurm_acct_db' && mariadb slurm_acct_db < {path}",
    )
    spread.start_slurmdbd(pair.dbd)


def deliver_all(pair: Pair) -> None:
    """Flushes until no job waits, except for half-written records."""
    exporter = pair.exporters["ctl1"]

    def is_done() -> bool:
        exporter.run("flush")
        backlog = exporter.status()["backlog"]
        return int(backlog["queued"] + backlog["waiting"] - backlog["half_written"]) == 0

    wait_for(is_done, "everything delivered", limit_seconds=120, pause_seconds=0.5)


def count_lost(pair: Pair) -> tuple[int, int]:
    """The JobIDs of all ended rows, and how many of them the dashboard lacks."""
    found = compare(pair, pair.cluster)
    ids = {row.job_id for row in read_rows(pair, pair.cluster) if row.end}
    return len(ids), len(found.lost) + len(found.lost_half)
