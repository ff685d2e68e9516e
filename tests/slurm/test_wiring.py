"""`check` on a real slurmctld: it relies on calls, not on the configuration, and its remedies wire the hook."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from agent.check.shell_commands import RESTART, RESTART_HINT
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter
from tests.support.slurm import HOOK, Slurm, SlurmError
from tests.support.waiting import wait_for

#: From here on slurmctld does not start without a script that slurm.conf names. Seen on 24.11; 22.05 keeps running.
NEEDS_SCRIPTS = (24, 11)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def dashboard() -> Iterator[ReceivingDashboard]:
    with ReceivingDashboard() as dashboard:
        yield dashboard


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    with Slurm(nodes=1) as slurm:
        yield slurm


class Controller:
    """A slurmctld whose slurm.conf can be changed, and the findings of check."""

    def __init__(self, slurm: Slurm, dashboard: ReceivingDashboard) -> None:
        self.slurm = slurm
        self.exporter = Exporter(slurm.folder, slurm.env, api_url=dashboard.url, spool_dir=str(slurm.spool))
        self.calls = slurm.folder / "calls"
        self.own = self.script("own.sh", f"echo called >>{self.calls}")

    def script(self, name: str, text: str) -> Path:
        path = self.slurm.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def hook(self) -> Path:
        """A hook for this spool, as install.sh would make it."""
        return self.script("jobcomp.sh", f"export SLURM_USAGE_HISTORY_SPOOL={self.slurm.spool}\nexec {HOOK}")

    def add(self, *lines: str) -> None:
        with self.slurm.layout.slurm_conf.open("a") as conf:
            conf.write("".join(f"{line}\n" for line in lines))

    def restart(self) -> None:
        self.slurm.daemons.stop("slurmctld")
        self.slurm.start("slurmctld")

    def carry_out(self, line: str) -> None:
        """A remedy as printed, for a slurmctld without systemd."""
        assert RESTART in line
        change = line.replace(RESTART, "true").replace("/opt/slurm-usage-history-exporter/bin", str(HOOK.parent))
        subprocess.run(["/bin/sh", "-ec", change], check=True)
        self.restart()

    def check(self, *options: str) -> dict[str, dict[str, Any]]:
        argv = self.exporter.argv("check", "--json", *options)
        answer = json.loads(subprocess.run(argv, env=self.slurm.env, capture_output=True, check=False).stdout)
        return {finding["name"]: finding for finding in answer["checks"]}

    def run_job(self) -> None:
        self.slurm.sbatch("--wait")

    def was_called(self) -> bool:
        """Whether a job is queued; then the queue is emptied."""
        queue = self.slurm.spool / "queue"
        if not queue.exists():
            return False
        queue.unlink()
        return True


@pytest.fixture
def controller(slurm: Slurm, dashboard: ReceivingDashboard) -> Controller:
    return Controller(slurm, dashboard)


@pytest.mark.parametrize("wiring", ["JobCompType=jobcomp/script\nJobCompLoc={}", "EpilogSlurmctld={}"])
def test_a_slurmctld_that_started_before_the_script_existed(controller: Controller, wiring: str) -> None:
    """slurmctld never calls the hook, though slurm.conf looks right: check finds it before and after the first job."""
    path = controller.slurm.folder / "jobcomp.sh"
    controller.add(*wiring.format(path).splitlines())
    log = controller.slurm.folder / "its.log"
    controller.add(f"SlurmctldLogFile={log}")
    if controller.slurm.version >= NEEDS_SCRIPTS:
        with pytest.raises(SlurmError):
            controller.restart()
        assert re.search("fatal: [Ff]ailed to initialize (jobcomp|prep) plugin", log.read_text())
        controller.hook()
        controller.slurm.start("slurmctld")
        return
    controller.restart()
    controller.hook()
    controller.run_job()
    assert not controller.was_called()
    known = controller.check()["hook calls"]
    assert (False, RESTART_HINT, RESTART) == (known["ok"], known["mend"], known["run"])
    assert "slurmctld did not find the hook when it started" in known["text"]
    log.write_text("")  # rotated away
    known = controller.check()["hook calls"]["text"]  # the script's time and slurmctld's start may be the same second
    assert re.search("before the hook was last changed|no job has ended since slurmctld started", known)
    controller.restart()
    assert controller.check()["hook calls"]["text"].startswith("no job has ended since slurmctld started")
    controller.run_job()
    wait_for((controller.slurm.spool / "queue").exists, "a call")
    assert controller.check()["hook calls"]["text"].startswith("last called by slurmctld at ")


def test_jobs_that_end_without_a_call(controller: Controller) -> None:
    """A hook that writes nowhere is found by the jobs themselves after a minute."""
    hook = controller.script(
        "jobcomp.sh", "# SLURM_USAGE_HISTORY_SPOOL: broken by hand\nSLURM_USAGE_HISTORY_SPOOL=/none"
    )
    controller.add("JobCompType=jobcomp/script", f"JobCompLoc={hook}")
    controller.restart()
    controller.run_job()
    wait_for(lambda: controller.check()["hook calls"]["ok"] is False, "the verdict", limit_seconds=100, pause_seconds=5)
    assert "1 job ended since slurmctld started" in controller.check()["hook calls"]["text"]


def test_lines_that_slurmctld_has_not_read(controller: Controller) -> None:
    """The lines were added to slurm.conf after slurmctld's last start."""
    controller.add("JobCompType=jobcomp/script", f"JobCompLoc={controller.hook()}")
    known = controller.check()["slurm.conf"]
    assert known["text"].endswith(f"names {controller.hook()}, but slurmctld has not read that line yet")
    controller.carry_out(known["run"])
    controller.run_job()
    wait_for(controller.was_called, "a call")


@pytest.mark.parametrize(
    "lines",
    [
        ["JobCompType=jobcomp/none"],
        ["JobCompType=jobcomp/script", "JobCompLoc={own}"],
        ["JobCompType=jobcomp/filetxt", "JobCompLoc={folder}/records"],
        ["JobCompType=jobcomp/filetxt", "JobCompLoc={folder}/records", "EpilogSlurmctld={own}"],
        ["JobCompType=jobcomp/script", "JobCompLoc={folder}/bin/jobcomp.sh"],
    ],
    ids=["nothing", "own-script", "plugin", "plugin-and-epilog", "no-such-script"],
)
def test_a_remedy_wires_the_hook_and_breaks_nothing(controller: Controller, lines: list[str]) -> None:
    """Once the remedy is run as printed, slurmctld calls the hook, and the script that it called before."""
    folder, own = controller.slurm.folder, controller.own
    lines = [line.format(own=own, folder=folder) for line in lines]
    if controller.slurm.version >= NEEDS_SCRIPTS and "/bin/" in lines[-1]:
        pytest.skip("this slurmctld does not start")
    controller.add(*lines)
    controller.restart()
    known = controller.check()
    (fault,) = [known[name] for name in ("slurm.conf", "hook") if known.get(name, {}).get("ok") is False]
    controller.carry_out(fault["run"])
    assert controller.check()["slurm.conf"]["ok"]
    # The hook of the checkout writes to the system's spool: this one gets the lab's.
    conf = controller.slurm.layout.slurm_conf
    conf.write_text(conf.read_text().replace(f"={HOOK}", f"={controller.hook()}"))
    both = folder / "call-both.sh"
    if both.exists():
        both.write_text(both.read_text().replace(f"hook={HOOK}", f"hook={controller.hook()}"))
    controller.restart()
    controller.run_job()
    wait_for(controller.was_called, "a call of the hook")
    if any(str(own) in line for line in lines):
        wait_for(controller.calls.exists, "a call of the site's own script")
    if any("records" in line for line in lines):
        assert (folder / "records").read_text()


@pytest.mark.parametrize("wiring", ["JobCompType=jobcomp/script\nJobCompLoc={}", "EpilogSlurmctld={}"])
def test_a_test_job_causes_a_call(controller: Controller, wiring: str) -> None:
    """The test job is held and cancelled, or run, whichever makes this slurmctld call; a missing call is reported."""
    controller.add(*wiring.format(controller.hook()).splitlines())
    controller.restart()
    text = controller.check("--test-job")["hook calls"]["text"]
    assert "slurmctld called it " in text
    assert " after test job " in text
    assert controller.was_called()
    assert "slurmctld" in controller.check("--wait", "1")["hook calls"]["text"]
