"""Whether slurmctld really calls the hook, which its configuration alone does not show.

slurmctld looks for JobCompLoc and EpilogSlurmctld only when it starts. It never calls a script that was missing then,
even if the script appears later (seen on 22.05). So the proof is a call. Before the first one, the evidence is
slurmctld's log, its start time and the hook's change time.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple

from agent.check.finding import NotWell
from agent.check.shell_commands import RESTART, RESTART_HINT
from agent.check.timers import parse_timestamp
from agent.errors import SlurmUnreachable
from agent.localtime import DAY_SECONDS, local_text
from agent.logger import Logger
from agent.regular_file import open_regular
from agent.slurm.process import RunCommand
from agent.slurm.slurm import Slurm
from agent.spool.ledger import view_ledger
from agent.spool.queue import Queue
from agent.spool.spool import LEDGER_NAME
from agent.wording import count, moment, span

#: A job that ended a moment ago may still be in slurmctld's list of calls to make.
SETTLED_SECONDS = 60
#: How much of slurmctld's log is read, from its end.
LOG_BYTES = 8 << 20
#: What slurmctld logs when it does not find a script, on 20.11 to 26.05.
_REFUSED = re.compile(
    r"jobcomp/script: (failed to stat|.* isn't a regular file|.* is not executable)|Invalid EpilogSlurmctld"
)
_STARTED = re.compile(r"slurmctld version \S+ started")
CALL_POLL_SECONDS = 0.5
#: A test job may have to wait for a node.
TEST_JOB_SECONDS = 120.0


logger = Logger(__name__)


class Calls(NamedTuple):
    """The hook's calls that the spool records."""

    calls: int
    last: float | None  # epoch seconds


def read_calls(spool: Path) -> Calls:
    """The calls in the ledger, and those still in the queue.

    :raises SpoolError: if the spool cannot be read.
    """
    ledger = view_ledger(spool / LEDGER_NAME)
    try:
        booked = ledger.history.calls().values()
    finally:
        ledger.close()
    queue = Queue(spool, complain=lambda error: None)
    moments = [last for _, last in booked]
    for file in queue.files():
        written, calls = queue.last_write([file]), queue.calls
        deque(queue.read([file]), maxlen=0)  # reading counts the calls; an admin's lines do not count
        if written is not None and queue.calls > calls:
            moments.append(written)
    return Calls(sum(number for number, _ in booked) + queue.calls, max(moments, default=None))


class Controller(NamedTuple):
    """The slurmctld that should call the hook, and what it logged."""

    settings: Mapping[str, str]
    here: bool  # whether it runs on this host
    journal: str = ""  # see read_journal

    @property
    def boot(self) -> float | None:
        """When it started, in epoch seconds; None if it does not report that."""
        text = self.settings.get("BOOT_TIME", "")
        try:
            return float(text) if text.isdigit() else time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
        except ValueError:
            return None

    @property
    def log(self) -> str:
        """Its SlurmctldLogFile, empty if it has none."""
        name = self.settings.get("SlurmctldLogFile", "")
        return name if name.startswith("/") else ""

    def refusal(self) -> str | None:
        """What slurmctld logged about the script at its last start: empty if nothing, None if that cannot be known.

        A missing line in the journal proves nothing: on a Debian 12 the journal lacked some of slurmctld's lines.
        """
        verdict = None
        for line in _tail(Path(self.log)) if self.log else self.journal.splitlines():
            if _REFUSED.search(line):
                verdict = line.strip()
            elif _STARTED.search(line):
                verdict = "" if self.log else None
        return verdict


def read_journal(run: RunCommand) -> str:
    """What slurmctld logged to the journal in its first minute; empty if this user may not read it.

    The Slurm user often may not, so root reads it before becoming that user.
    """
    try:
        shown = run(["systemctl", "show", "slurmctld.service", "--property=InvocationID,ExecMainStartTimestamp"]).text
        unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        started = parse_timestamp(unit.get("ExecMainStartTimestamp", ""))
        if not unit.get("InvocationID") or started is None:
            return ""
        invocation, until = f"_SYSTEMD_INVOCATION_ID={unit['InvocationID']}", f"--until=@{started + 60:.0f}"
        return run(["journalctl", invocation, until, "--output=cat", "--no-pager"]).text
    except SlurmUnreachable:  # no systemd, or no answer from it
        return ""


def _tail(path: Path, size: int = LOG_BYTES) -> Iterator[str]:
    try:
        with open_regular(path) as file:
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
    """Whether slurmctld has called the hook since it started; if not, whether it can.

    :param script: the script in slurm.conf.
    :param count_ended: counts the jobs that ran and ended since a moment, in epoch seconds.
    """
    now, boot, seen = clock(), controller.boot, read_calls(spool)
    if seen.last is not None and (boot is None or seen.last >= boot):
        return f"last called by slurmctld at {moment(seen.last, now)}"
    if boot is None or not controller.here:
        return "not called yet: slurmctld runs on another host"
    started = local_text(int(boot)).replace("T", " ")
    refusal = controller.refusal()
    if refusal:
        raise NotWell(
            f"slurmctld did not find the hook when it started at {started}, so it never calls it: {refusal[-200:]}",
            hint=RESTART_HINT,
            run=RESTART,
        )
    appeared = _appeared(script)
    if refusal is None and appeared is not None and int(appeared) > boot:
        raise NotWell(
            f"slurmctld started at {started}, before the hook was last changed"
            f" ({local_text(int(appeared)).replace('T', ' ')}); it looks for the hook only at its start, and has not"
            " called it yet",
            hint=RESTART_HINT,
            run=RESTART,
        )
    ended = count_ended(max(boot, now - DAY_SECONDS))
    if ended:
        log = controller.log or "journalctl -u slurmctld"
        raise NotWell(
            f"{count(ended, 'job')} ended since slurmctld started at {started}, but it called the hook for none",
            hint=f"search slurmctld's log ({log}) for jobcomp and EpilogSlurmctld; then {RESTART_HINT}",
            run=RESTART,
        )
    return f"no job has ended since slurmctld started at {started}; `check --test-job` tries a call"


def _appeared(script: Path) -> float | None:
    """When a script last changed; its ctime also changes with each move, chmod and chown."""
    try:
        return script.stat().st_ctime
    except OSError:
        return None


def count_ended_jobs(slurm: Slurm, since: float, until: float) -> int:
    """How many jobs ran and ended between two moments. EpilogSlurmctld is not called for jobs that never ran."""
    if until <= since:
        return 0
    runs = slurm.sacct.ask_window(int(since), int(until)).answer()
    return sum(1 for run in runs if run.start is not None and run.node_list is not None)


def submit_test_job(run: RunCommand, sacct: str, *, started: bool) -> str:
    """Submits a job that makes slurmctld call the hook: cancelled before it starts if that is enough, otherwise run.

    :param sacct: as configured; the other commands are expected in its folder.
    :param started: whether the job has to run, as for EpilogSlurmctld.
    :returns: its JobID.
    :raises NotWell: if Slurm rejects it.
    """

    def call(command: str, *arguments: str) -> str:
        output = run([str(Path(sacct).with_name(command)) if "/" in sacct else command, *arguments])
        if output.returncode:
            raise NotWell(
                f"the test job failed: {command}: {output.stderr.strip()[:300]}",
                hint="run `check --wait` and submit any job yourself meanwhile",
            )
        return output.text

    options = ["--parsable", "--job-name=usage-history-test", "--output=/dev/null", "--chdir=/", "--export=NONE"]
    hold = [] if started else ["--hold"]
    job = call("sbatch", *options, "--ntasks=1", "--time=1", *hold, "--wrap=true").partition(";")[0].strip()
    if not started:
        call("scancel", job)
    return job


def wait_for_call(
    spool: Path,
    seconds: float | None,
    submit: Callable[[], str] | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Waits for slurmctld to call the hook; empty if it did not and perhaps had no reason to.

    :param seconds: how long to wait; None for as long as a test job may take.
    :param submit: submits a test job and returns its JobID.
    :raises NotWell: if a test job could not be submitted, or was not followed by a call.
    """
    limit = seconds or TEST_JOB_SECONDS
    before = read_calls(spool)
    job = submit() if submit else ""
    began = clock()
    logger.info("waiting up to %s for slurmctld to call the hook", span(limit))
    while clock() - began < limit:
        if read_calls(spool).calls > before.calls:
            return (
                f"slurmctld called it {span(clock() - began)} after"
                f" {f'test job {job} was submitted' if job else 'the wait began'}"
            )
        sleep(CALL_POLL_SECONDS)
    if job:
        raise NotWell(
            f"slurmctld did not call the hook for test job {job} within {span(limit)}",
            hint=f"check with squeue that the job has ended; search slurmctld's log for jobcomp; then {RESTART_HINT}",
            run=RESTART,
        )
    return ""
