"""What proves that slurmctld calls the hook, and what proves that it never will."""

from __future__ import annotations

import os
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Callable, Mapping, Sequence

import pytest

from agent.check.daemons import is_running
from agent.check.finding import NotWell
from agent.check.hook_calls import (
    Calls,
    Controller,
    check_calls,
    read_calls,
    read_journal,
    submit_test_job,
    wait_for_call,
)
from agent.check.shell_commands import RESTART, RESTART_HINT
from agent.errors import SlurmUnreachable
from agent.localtime import local_text
from agent.slurm.process import Output

#: From slurmctld 22.05 and 24.11, with their times.
STARTED = "[2026-11-28T05:23:56.001] slurmctld version 22.05.8 started on cluster lab(0)\n"
REFUSED = (
    "[2026-11-28T05:23:56.012] error: jobcomp/script: failed to stat /opt/x/jobcomp.sh: No such file or directory\n"
)
NO_EPILOG = "[2026-11-28T05:23:56.012] error: Invalid EpilogSlurmctld(`/opt/x/jobcomp.sh`): No such file or directory\n"


def no_journal(_: Sequence[str]) -> Output:
    raise SlurmUnreachable("no journalctl")


class Site:
    """A spool, the script that slurm.conf names, and slurmctld's log. All of it is a minute old."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.script, self.log = folder / "spool", folder / "bin" / "jobcomp.sh", folder / "slurmctld.log"
        self.spool.mkdir()
        self.script.parent.mkdir()
        self.script.touch()
        self.now = float(int(time.time()) + 60)
        self.here = True
        self.ended = 0
        self.asked: list[float] = []

    def settings(self, boot: float) -> Mapping[str, str]:
        return {"BOOT_TIME": f"{boot:.0f}", "SlurmctldLogFile": str(self.log)}

    def check(self, boot: float, journal: str = "", **settings: str) -> str:
        """:param boot: when slurmctld started, in seconds before now."""
        controller = Controller({**self.settings(self.now - boot), **settings}, self.here, journal)
        return check_calls(controller, self.script, self.spool, self._count, lambda: self.now)

    def fault(self, boot: float) -> NotWell:
        with pytest.raises(NotWell) as caught:
            self.check(boot)
        return caught.value

    def call(self, seconds_ago: float) -> None:
        queue = self.spool / "queue"
        queue.write_text("\n7 - - -\n")
        os.utime(queue, (self.now - seconds_ago,) * 2)

    def at(self, seconds_ago: float) -> str:
        return local_text(int(self.now - seconds_ago)).replace("T", " ")

    def _count(self, since: float) -> int:
        self.asked.append(since)
        return self.ended


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_call_since_the_start_is_proof(site: Site) -> None:
    """An actual call is proof, whatever the log and the times say."""
    site.log.write_text(STARTED + REFUSED)
    site.call(10)
    assert site.check(100_000).startswith("last called by slurmctld at ")
    assert [] == site.asked


def test_a_call_before_the_start_proves_nothing(site: Site) -> None:
    """slurmctld has looked for the script again since that call."""
    site.call(1000)
    site.log.write_text(STARTED + REFUSED)
    expected = (
        f"slurmctld did not find the hook when it started at {site.at(500)}, so it never calls it: {REFUSED.strip()}"
    )
    fault = site.fault(500)
    assert (expected, RESTART_HINT, RESTART) == (str(fault), fault.hint, fault.run)


@pytest.mark.parametrize("line", [REFUSED, NO_EPILOG, "error: jobcomp/script: /x is not executable\n"])
def test_only_the_latest_start_in_the_log_counts(site: Site, line: str) -> None:
    """The latest start counts, whether it succeeded or failed."""
    site.log.write_text(STARTED + line + STARTED)
    assert site.check(500).startswith("no job has ended since slurmctld started")
    site.log.write_text(STARTED + STARTED + line)
    assert line.strip() in str(site.fault(500))


def test_a_script_younger_than_slurmctld(site: Site) -> None:
    """Without a log the times decide: the script was installed, or became executable, too late."""
    fault = site.fault(600)
    assert str(fault).startswith(f"slurmctld started at {site.at(600)}, before the hook was last changed (")
    assert (RESTART_HINT, RESTART) == (fault.hint, fault.run)


def test_the_log_of_the_start_takes_precedence_over_the_times(site: Site) -> None:
    """An upgrade makes the script younger than slurmctld, which calls it all the same."""
    site.log.write_text(STARTED)
    assert site.check(600).startswith("no job has ended")


def test_jobs_that_ended_without_a_call(site: Site) -> None:
    """If no reason is known, the missing calls themselves are reported."""
    site.log.write_text(STARTED)
    site.ended = 3
    fault = site.fault(50)
    expected = f"3 jobs ended since slurmctld started at {site.at(50)}, but it called the hook for none"
    assert expected == str(fault)
    assert f"search slurmctld's log ({site.log}) for jobcomp and EpilogSlurmctld; then {RESTART_HINT}" == fault.hint
    assert [int(site.now - 50)] == [int(since) for since in site.asked]


def test_before_the_first_job(site: Site) -> None:
    """Right after a restart nothing can be known, and that is not a fault."""
    expected = f"no job has ended since slurmctld started at {site.at(50)}; `check --test-job` tries a call"
    assert expected == site.check(50)


def test_a_slurmctld_on_another_host(site: Site) -> None:
    """This host's script and log are not those that slurmctld uses."""
    site.here = False
    assert "not called yet: slurmctld runs on another host" == site.check(600)


def test_a_slurmctld_without_a_log_file(site: Site) -> None:
    """The journal is read instead; if it can't be read, the times decide."""
    with pytest.raises(NotWell, match="did not find the hook"):
        site.check(600, STARTED + REFUSED, SlurmctldLogFile="(null)")
    for journal in ("", STARTED):  # which was seen to lack lines
        with pytest.raises(NotWell, match="before the hook was last changed"):
            site.check(600, journal, SlurmctldLogFile="(null)")


def test_the_journal_of_slurmctlds_first_minute() -> None:
    """Only lines of this start count, however long ago it was and however much was logged since."""
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> Output:
        asked.append(argv)
        unit = b"InvocationID=0a1b\nExecMainStartTimestamp=Sat 2026-11-28 06:17:11 UTC\n"
        return Output(0, BytesIO(unit if argv[0] == "systemctl" else STARTED.encode()), "")

    assert STARTED == read_journal(run)
    started = time.mktime((2026, 11, 28, 6, 17, 11, 0, 0, -1))
    assert ["journalctl", "_SYSTEMD_INVOCATION_ID=0a1b", f"--until=@{started + 60:.0f}"] == asked[1][:3]


def test_no_journal() -> None:
    """Without systemd, or without a slurmctld on this host, there is nothing to read."""
    assert "" == read_journal(no_journal)
    assert "" == read_journal(lambda _: Output(0, BytesIO(b"InvocationID=\nExecMainStartTimestamp=n/a\n"), ""))


def test_a_long_log_is_read_from_its_end(site: Site) -> None:
    """Only the last few of many gigabytes are read; a start before them is unknown."""
    site.log.write_bytes(REFUSED.encode() + b"x" * (9 << 20) + b"\n")
    assert "before the hook was last changed" in str(site.fault(600))


def test_a_slurmctld_whose_start_is_unknown(site: Site) -> None:
    """Any call counts as proof in that case."""
    site.call(10_000)
    assert site.check(600, BOOT_TIME="").startswith("last called by slurmctld at ")


@pytest.mark.parametrize("text", ["1795843436", "2026-11-28T05:23:56"])
def test_when_slurmctld_started(text: str) -> None:
    """In epoch seconds or in the cluster's local time, as SLURM_TIME_FORMAT has it."""
    local = time.mktime((2026, 11, 28, 5, 23, 56, 0, 0, -1))
    assert (float(text) if text.isdigit() else local) == Controller({"BOOT_TIME": text}, here=True).boot
    assert None is Controller({"BOOT_TIME": "N/A"}, here=True).boot


def test_the_calls_in_the_spool(site: Site) -> None:
    """Calls in the queue count before a flush has taken them over."""
    assert Calls(0, None) == read_calls(site.spool)
    site.call(30)
    seen = read_calls(site.spool)
    assert (1, int(site.now - 30)) == (seen.calls, int(seen.last or 0))


class Clock:
    """A clock that advances only by sleeping; something may happen meanwhile."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now, self._meanwhile = 0.0, meanwhile

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._meanwhile()


class Sbatch:
    """Slurm's commands for a test job, which is job 7."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.called: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str]) -> Output:
        self.called.append(argv)
        if self.refuses:
            return Output(1, BytesIO(), "sbatch: error: Batch job submission failed: Invalid account\n")
        return Output(0, BytesIO(b"7;lab\n" if "sbatch" in argv[0] else b""), "")


def test_waiting_for_a_call(site: Site) -> None:
    """The wait ends with the first call, or at the time limit, which proves nothing."""
    clock = Clock(lambda: site.call(0))
    assert "slurmctld called it 0.5 s after the wait began" == wait_for_call(site.spool, 50, None, clock, clock.sleep)
    clock = Clock()
    assert "" == wait_for_call(site.spool, 50, None, clock, clock.sleep)
    assert 50 == clock.now


def test_a_test_job_for_jobcomp_never_starts(site: Site) -> None:
    """The job is held and cancelled: that makes slurmctld call the hook, and uses no node."""
    clock, sbatch = Clock(lambda: site.call(0)), Sbatch()
    submit = partial(submit_test_job, sbatch, "/opt/slurm/bin/sacct", started=False)
    assert "slurmctld called it 0.5 s after test job 7 was submitted" == wait_for_call(
        site.spool, None, submit, clock, clock.sleep
    )
    submitted, cancelled = sbatch.called
    assert ("/opt/slurm/bin/sbatch", True) == (submitted[0], "--hold" in submitted)
    assert ["/opt/slurm/bin/scancel", "7"] == cancelled


def test_a_test_job_for_epilogslurmctld_runs(site: Site) -> None:
    """slurmctld does not call EpilogSlurmctld for a job that never started."""
    clock, sbatch = Clock(lambda: site.call(0)), Sbatch()
    wait_for_call(site.spool, None, partial(submit_test_job, sbatch, "sacct", started=True), clock, clock.sleep)
    assert [("sbatch", False)] == [(argv[0], "--hold" in argv) for argv in sbatch.called]


def test_a_test_job_without_a_call(site: Site) -> None:
    """It proves that slurmctld does not call the hook."""
    clock = Clock()
    with pytest.raises(NotWell) as caught:
        wait_for_call(site.spool, None, partial(submit_test_job, Sbatch(), "sacct", started=True), clock, clock.sleep)
    expected = (
        "slurmctld did not call the hook for test job 7 within 2 min",
        f"check with squeue that the job has ended; search slurmctld's log for jobcomp; then {RESTART_HINT}",
        RESTART,
    )
    assert expected == (str(caught.value), caught.value.hint, caught.value.run)


def test_a_test_job_that_slurm_refuses(site: Site) -> None:
    """The Slurm user may have no account: any other job is enough."""
    with pytest.raises(NotWell) as caught:
        wait_for_call(site.spool, None, partial(submit_test_job, Sbatch(refuses=True), "sacct", started=True))
    said = "the test job failed: sbatch: sbatch: error: Batch job submission failed: Invalid account"
    assert (said, "run `check --wait` and submit any job yourself meanwhile") == (
        str(caught.value),
        caught.value.hint,
    )


def test_whether_slurmctld_is_here(tmp_path: Path) -> None:
    """It is recognized by the names of the processes."""
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "comm").write_text("slurmctld\n")
    assert is_running({"slurmctld"}, tmp_path)
    (tmp_path / "12" / "comm").write_text("slurmctld_x\n")
    assert not is_running({"slurmctld"}, tmp_path)
