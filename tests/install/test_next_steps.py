"""The next steps of install.sh fit the host: wiring that breaks nothing, a failed setup, timers and cron."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from pathlib import Path

import pytest

from agent.check.shell_commands import RESTART_HINT
from agent.check.wiring import check_wiring
from agent.slurm.slurm_conf import read_slurm_conf
from tests.install.installation import NAME, Installation

HOOK = f"/opt/{NAME}/bin/jobcomp.sh"
RESTART = f"R{RESTART_HINT[1:]}.\n    sudo systemctl restart slurmctld\n"


class Controller:
    """A slurm.conf, and a scontrol that prints what slurmctld has read."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation, self.conf = installation, folder / "slurm.conf"
        self._tool = installation.root.with_name(f"{installation.root.name}-tools") / "scontrol"
        self.own = folder / "own.sh"
        self.own.write_text("#!/bin/sh\n")
        self.own.chmod(0o755)

    def write(self, text: str, *, version: str = "22.05.8", read: bool = True) -> None:
        """:param read: whether slurmctld has read it, too."""
        self.conf.write_text(text.replace("{own}", str(self.own)))
        shown = {"SLURM_CONF": str(self.conf), "SLURM_VERSION": version, "JobCompType": "jobcomp/none"}
        if read:
            shown.update({setting.key: setting.value for setting in read_slurm_conf(self.conf).settings})
        self.settings = shown
        printed = "".join(f"{key:<23} = {value}\n" for key, value in shown.items())
        self._tool.write_text(f"#!/bin/sh\ncat <<EOF\n{printed}EOF\n")

    def install(self) -> str:
        return self.installation.run("--dry-run", SLURM_CONF=str(self.conf))

    def advice(self) -> str:
        """The finding of check at the same step."""
        from agent.check.finding import NotWell  # noqa: PLC0415

        try:
            return check_wiring(self.settings, read_slurm_conf(self.conf), HOOK, f"/opt/{NAME}/call-both.sh").line
        except NotWell as error:
            return error.hint


@pytest.fixture
def controller(installation: Installation, tmp_path: Path) -> Controller:
    return Controller(installation, tmp_path)


@pytest.mark.parametrize(
    ("conf", "version", "lines"),
    [
        ("", "22.05.8", ["JobCompType=jobcomp/script", f"JobCompLoc={HOOK}"]),
        (
            "JobCompType=jobcomp/none\nEpilogSlurmctld={own}\n",
            "22.05.8",
            ["JobCompType=jobcomp/script", f"JobCompLoc={HOOK}"],
        ),
        ("JobCompType=jobcomp/kafka\n", "22.05.8", [f"EpilogSlurmctld={HOOK}"]),
        ("JobCompType=jobcomp/kafka\nEpilogSlurmctld={own}\n", "24.05.0", [f"EpilogSlurmctld={HOOK}"]),
        ("JobCompType=jobcomp/kafka\nEpilogSlurmctld={own}\n", "26.05.5", [f"EpilogSlurmctld={HOOK}"]),
        ("JobCompType=jobcomp/kafka\nEpilogSlurmctld={own}\n", "23.11.10", ["EpilogSlurmctld={both}"]),
        ("JobCompType=jobcomp/script\nJobCompLoc={own}\n", "24.05.0", ["JobCompLoc={both}"]),
        ("JobCompType=jobcomp/script\nJobCompLoc=/none/x.sh\n", "24.05.0", [f"JobCompLoc={HOOK}"]),
    ],
)
def test_the_lines_are_those_of_check(controller: Controller, conf: str, version: str, lines: list[str]) -> None:
    """Each also fits the lines already in slurm.conf."""
    controller.write(conf, version=version)
    said, advice = controller.install(), controller.advice()
    both = f"{controller.conf.parent}/call-both.sh"
    for line in lines:
        assert f"    {line.replace('{both}', both)}\n" in said
        assert line.replace("{both}", f"/opt/{NAME}/call-both.sh").partition("=")[0] in advice
    assert ("call-both.sh" in advice) == ("{both}" in lines[0])
    assert RESTART in said
    assert "distribute it to all of them" in said


def test_both_are_called_by_what_it_prints(controller: Controller) -> None:
    """The two lines of shell make a wrapper of the installed one, with both paths filled in."""
    controller.write("JobCompType=jobcomp/script\nJobCompLoc={own}\n")
    said = controller.installation.run(SLURM_CONF=str(controller.conf))
    lines = [line.strip() for line in said.splitlines() if "call-both.sh" in line and line.startswith("    ")][:2]
    script = " && ".join(lines).replace("sudo ", "").replace(f"/opt/{NAME}", str(controller.installation.program))
    subprocess.run(["/bin/sh", "-ec", script], check=True, stdout=subprocess.DEVNULL)
    text = (controller.conf.parent / "call-both.sh").read_text()
    assert f"\nsite_script={controller.own}\nhook={HOOK}\n" in text
    controller.write(f"JobCompType=jobcomp/script\nJobCompLoc={controller.conf.parent}/call-both.sh\n")
    assert "names the hook already" in controller.install()


def test_a_hook_that_slurmctld_did_not_find(controller: Controller) -> None:
    """slurm.conf was edited and slurmctld restarted before the installation; an upgrade does not mention it."""
    controller.write(f"JobCompType=jobcomp/script\nJobCompLoc={HOOK}\n")
    first = controller.installation.run(SLURM_CONF=str(controller.conf))
    assert f"when slurmctld looked for it, it was not installed yet.\n{RESTART}" in first
    before = controller.installation.hook.stat()
    second = controller.installation.run(SLURM_CONF=str(controller.conf))
    assert "slurm.conf names the hook already.\n" in second
    assert "restart slurmctld" not in second
    assert before.st_ctime_ns == controller.installation.hook.stat().st_ctime_ns


def test_lines_that_slurmctld_has_not_read(controller: Controller) -> None:
    """They are not repeated."""
    controller.write(f"JobCompType=jobcomp/script\nJobCompLoc={HOOK}\n", read=False)
    said = controller.install()
    assert f"names the hook already, but slurmctld has not read that line yet.\n{RESTART}" in said


def test_a_failed_setup_reports_what_is_installed_and_how_to_continue(controller: Controller) -> None:
    """Nothing listens there. The wiring is still printed, the timers stay off, and the exit code shows the failure."""
    controller.write("")
    options = ("--enable", "--api-url", "http://127.0.0.1:9", "--deploy-key", "-")
    said = controller.installation.run(*options, expect=1, stdin="one-time", SLURM_CONF=str(controller.conf))
    assert "NOT SET UP: the program, its hook and its units are installed, but there is no API key." in said
    assert f"{NAME} setup --api-url http://127.0.0.1:9 --deploy-key -\n" in said
    assert f"    JobCompLoc={HOOK}\n" in said
    assert f"systemctl enable --now {NAME}.timer {NAME}-flush.timer" in said
    assert "one-time" not in said
    assert [] == list(controller.installation.units.glob("*.wants"))


def test_ctrl_c_at_the_prompt_for_the_key(controller: Controller) -> None:
    """At a terminal, as an admin does who has to look for the key first: the installed files are still listed."""
    controller.write("")
    installation = controller.installation
    options = ["--api-url", "http://127.0.0.1:9", "--deploy-key", "-"]
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover  # the child becomes install.sh
        os.environ.update(installation.environment(SLURM_CONF=str(controller.conf), DESTDIR=str(installation.root)))
        os.execv(str(installation.sources / "install.sh"), ["install.sh", *options])
    said = b""
    # It is open already, and reading it fails if install.sh has ended.
    with open(terminal, "r+b", buffering=0) as screen, contextlib.suppress(OSError):  # noqa: PTH123
        for block in iter(lambda: screen.read(4096), b""):
            said += block
            if said.endswith(b"deploy key: "):
                screen.write(b"\x03")
    _, status = os.waitpid(pid, 0)
    assert 1 == os.WEXITSTATUS(status), said.decode()
    assert "NOT SET UP: the program, its hook and its units are installed" in said.decode()
    assert f"    JobCompLoc={HOOK}" in said.decode()
