"""Whether slurmctld really calls the hook, which its configuration does not tell.

slurmctld looks for JobCompLoc and EpilogSlurmctld when it starts, and never calls a script that was not there then,
even when it is there later (seen on 22.05). So what counts is a call; before the first one, slurmctld's log and the
times at which it and the hook came to be.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import deque
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple

from agent.check.finding import NotWell
from agent.check.timers import parse_timestamp
from agent.check.wiring import RESTART, RESTART_HINT
from agent.errors import SlurmUnreachable
from agent.localtime import DAY_SECONDS, local_text
from agent.slurm.process import RunCommand
from agent.slurm.slurm import Slurm
from agent.spool.ledger import view_ledger
from agent.spool.queue import Queue
from agent.spool.spool import LEDGER_NAME
from agent.wording import count, moment, span

#: A job that ended a moment ago may still be in slurmctld's list of calls to make.
SETTLED_SECONDS = 60
#: As much of slurmctld's log is read, from its end.
LOG_BYTES = 8 << 20
#: Of what slurmctld says when it does not find a script, on 20.11 to 26.05.
_REFUSED = re.compile(
    r"jobcomp/script: (failed to stat|.* isn't a regular file|.* is not executable)|Invalid EpilogSlurmctld"
)
_STARTED = re.compile(r"slurmctld version \S+ started")
CALL_POLL_SECONDS = 0.5
#: A test job may have to wait for a node.
TEST_JOB_SECONDS = 120.0


logger = logging.getLogger(__name__)


class Calls(NamedTuple):
    """What the spool tells of calls."""

    calls: int
    last: float | None  # epoch seconds


def read_calls(spool: Path) -> Calls:
    """The calls on the books, and those that lie in the queue still.

    :raises SpoolError: where the spool can't be read.
    """
    ledger = view_ledger(spool / LEDGER_NAME)
    try:
        booked = ledger.journal.calls().values()
    finally:
        ledger.close()
    queue = Queue(spool, complain=lambda error: None)
    moments = [last for _, last in booked]
    for file in queue.files():
        written, calls = queue.last_write([file]), queue.calls
        deque(queue.read([file]), maxlen=0)  # an admin's lines are no calls
        if written is not None and queue.calls > calls:
            moments.append(written)
    return Calls(sum(number for number, _ in booked) + queue.calls, max(moments, default=None))


def boot_time(settings: Mapping[str, str]) -> float | None:
    """When slurmctld started, in epoch seconds; None where it does not tell."""
    text = settings.get("BOOT_TIME", "")
    try:
        return float(text) if text.isdigit() else time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def is_here(processes: Path = Path("/proc")) -> bool:
    """Whether a slurmctld runs on this host."""
    for name in processes.glob("[0-9]*/comm"):
        try:
            if name.read_text(encoding="ascii", errors="replace").strip() == "slurmctld":
                return True
        except OSError:  # it ended meanwhile
            continue
    return False


class Controller(NamedTuple):
    """The slurmctld that ought to call, and what it said."""

    settings: Mapping[str, str]
    here: bool  # whether it runs on this host
    journal: str = ""  # see read_journal

    @property
    def boot(self) -> float | None:
        """When it started."""
        return boot_time(self.settings)

    @property
    def log(self) -> str:
        """Its SlurmctldLogFile, empty where it has none."""
        name = self.settings.get("SlurmctldLogFile", "")
        return name if name.startswith("/") else ""

    def refusal(self) -> str | None:
        """What slurmctld said of the script at its last start: empty for nothing, None where that can't be known.

        The journal of a Debian 12 lacked some of its lines: what is not there may have been said all the same.
        """
        verdict = None
        for line in _tail(Path(self.log)) if self.log else self.journal.splitlines():
            if _REFUSED.search(line):
                verdict = line.strip()
            elif _STARTED.search(line):
                verdict = "" if self.log else None
        return verdict


def read_journal(run: RunCommand) -> str:
    """What slurmctld said to the journal in the first minute of its life; empty where this user may not read that.

    Slurm's user often may not: root reads it before becoming that user.
    """
    try:
        shown = run(["systemctl", "show", "slurmctld.service", "--property=InvocationID,ExecMainStartTimestamp"]).text
        unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        started = parse_timestamp(unit.get("ExecMainStartTimestamp", ""))
        if not unit.get("InvocationID") or started is None:
            return ""
        invocation, until = f"_SYSTEMD_INVOCATION_ID={unit['InvocationID']}", f"--until=@{started + 60:.0f}"
        return run(["journalctl", invocation, until, "--output=cat", "--no-pager"]).text
    except SlurmUnreachable:  # no systemd, or it does not answer
        return ""


def _tail(path: Path, size: int = LOG_BYTES) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
            for line in file:
                yield line.decode("utf-8", "replace")
    except OSError:
        return


def check_calls(
    controller: Controller,
    script: Path,
    spool: Path,
    count_ended: Callable[[float], int],
    clock: Callable[[], float] = time.time,
) -> str:
    """Whether slurmctld has called since it started; if not, whether it can.

    :param script: what slurm.conf names.
    :param count_ended: how many jobs ran and ended since a moment, in epoch seconds.
    """
    now, boot, seen = clock(), controller.boot, read_calls(spool)
    if seen.last is not None and (boot is None or seen.last >= boot):
        return f"slurmctld called it last at {moment(seen.last, now)}"
    if boot is None or not controller.here:
        return "not called yet: slurmctld runs on another host"
    started = local_text(int(boot)).replace("T", " ")
    refusal = controller.refusal()
    if refusal:
        raise NotWell(
            f"slurmctld did not find the hook when it started, {started}, and so never calls it: {refusal[-200:]}",
            hint=RESTART_HINT,
            run=RESTART,
        )
    appeared = _appeared(script)
    if refusal is None and appeared is not None and int(appeared) > boot:
        raise NotWell(
            f"slurmctld started at {started}, before the hook was there as it is now"
            f" ({local_text(int(appeared)).replace('T', ' ')}): it looks for it only then, and has not called it yet",
            hint=RESTART_HINT,
            run=RESTART,
        )
    ended = count_ended(max(boot, now - DAY_SECONDS))
    if ended:
        log = controller.log or "journalctl -u slurmctld"
        raise NotWell(
            f"{count(ended, 'job')} ended since slurmctld started, {started}, and it called the hook for none of them",
            hint=f"look for jobcomp and EpilogSlurmctld in slurmctld's log ({log}); then {RESTART_HINT}",
            run=RESTART,
        )
    return f"no job has ended since slurmctld started, {started}; `check --test-job` shows that it is called"


def _appeared(script: Path) -> float | None:
    """When a script came to be what it is: its own time changes with each move, chmod and chown."""
    try:
        return script.stat().st_ctime
    except OSError:
        return None


def count_ended_jobs(slurm: Slurm, since: float, until: float) -> int:
    """How many jobs have run and ended between two moments: for the others EpilogSlurmctld is not called."""
    if until <= since:
        return 0
    runs = slurm.sacct.ask_window(int(since), int(until)).answer()
    return sum(1 for run in runs if run.start is not None and run.node_list is not None)


class SampleJob:
    """A job that makes slurmctld call the hook: cancelled before it starts where that is enough, else run.

    :param sacct: as configured; the other commands lie where it lies.
    :param started: whether it has to run: EpilogSlurmctld is not called for a job that never started.
    """

    def __init__(self, run: RunCommand, sacct: str, *, started: bool) -> None:
        self._run, self._started = run, started
        self._folder = Path(sacct).parent if "/" in sacct else None

    def submit(self) -> str:
        """Submits it and returns its JobID.

        :raises NotWell: where Slurm does not take it.
        """
        options = ["--parsable", "--job-name=usage-history-test", "--output=/dev/null", "--chdir=/", "--export=NONE"]
        hold = [] if self._started else ["--hold"]
        job = self._call("sbatch", *options, "--ntasks=1", "--time=1", *hold, "--wrap=true").partition(";")[0].strip()
        if not self._started:
            self._call("scancel", job)
        return job

    def _call(self, command: str, *arguments: str) -> str:
        output = self._run([str(self._folder / command) if self._folder else command, *arguments])
        if output.returncode:
            raise NotWell(
                f"no test job: {command} says {output.stderr.strip()[:300]}",
                hint="run any job of a user's own, while `check --wait` waits for it",
            )
        return output.text


def wait_for_call(
    spool: Path,
    seconds: float | None,
    job: SampleJob | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Waits until slurmctld calls the hook; empty where it did not and, for all one knows, had no reason to.

    :param seconds: how long; None for as long as a test job may take.
    :raises NotWell: where a test job ended without a call, or could not be submitted.
    """
    limit = seconds or TEST_JOB_SECONDS
    before = read_calls(spool)
    number = job.submit() if job else ""
    began = clock()
    logger.info("waiting for slurmctld to call the hook, %s at most", span(limit))
    while clock() - began < limit:
        if read_calls(spool).calls > before.calls:
            return (
                f"slurmctld called it, {span(clock() - began)} after {f'test job {number}' if number else 'this began'}"
            )
        sleep(CALL_POLL_SECONDS)
    if number:
        raise NotWell(
            f"slurmctld did not call the hook for test job {number} within {span(limit)}",
            hint=f"see that squeue shows it no more and look for jobcomp in slurmctld's log; then {RESTART_HINT}",
            run=RESTART,
        )
    return ""
