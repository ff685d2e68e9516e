"""A booted machine with a real Slurm under its own units, for tests of what an installation does there."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support import keeper
from tests.support.daemons import Daemons
from tests.support.dashboard import ReceivingDashboard
from tests.support.slurm_conf import HURRY, JUST_PROCESSES
from tests.support.waiting import wait_for

SCRIPT = Path(__file__).with_name("machine.sh")
CLONE_NEWNET = 0x40000000  # linux/sched.h

SLURM_CONF = f"""\
ClusterName=booted
SlurmctldHost=controller(127.0.0.1)
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
{JUST_PROCESSES}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters={HURRY}
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
PrivateData=jobs,usage,users
SlurmdParameters=config_overrides
NodeName=controller NodeAddr=127.0.0.1 CPUs=64 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES OverSubscribe=FORCE:4
"""
SLURMDBD_CONF = """\
DbdHost=controller
DbdAddr=127.0.0.1
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageUser=slurm
StorageLoc=slurm_acct_db
PrivateData=jobs,usage,users
"""
DATABASE = "create database slurm_acct_db; create user slurm@localhost; grant all on slurm_acct_db.* to slurm@localhost"


def why_not_here() -> str:
    """Why this machine cannot boot another; empty if it can."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    missing = [name for name in ("debootstrap", "systemd-nspawn", "nsenter", "ip") if not shutil.which(name)]
    return f"missing: {', '.join(missing)}" if missing else ""


def build_base(suite: str) -> Path:
    """The folder that holds a Debian with systemd and Slurm, built if missing."""
    environment = {**os.environ, "SUITE": suite}
    build = subprocess.run([str(SCRIPT), "build"], check=True, capture_output=True, text=True, env=environment)
    return Path(build.stdout.strip())


class Machine:
    """Boots a machine, and powers it off at the end of its ``with``.

    :param wheels: a folder that it sees as /wheels.
    :param suite: the Debian that it runs.
    """

    def __init__(self, wheels: Path, suite: str = "bookworm") -> None:
        reason = why_not_here()
        if reason:
            pytest.fail(reason)
        build_base(suite)
        self._suite = suite
        self._wheels = wheels

    def __enter__(self) -> Machine:
        self._folder = Path(tempfile.mkdtemp(prefix="machine-"))
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "SUITE": self._suite}
        self._daemons = Daemons(self._folder, environment)
        self._daemons.start("machine", [str(SCRIPT), "boot", str(self._folder), str(self._wheels)])
        try:
            self.wait_for_boot()
            self._start_slurm()
        except BaseException:
            print(self._daemons.log("machine")[-4000:])
            self._daemons.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._daemons.close()

    def run(self, *argv: str, expect: int | None = 0, stdin: str = "", **environ: str) -> str:
        """Runs a command as root inside and returns what it printed, on either stream.

        :param expect: its exit code; None for any.
        """
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        changes = [f"{name}={value}" for name, value in environ.items()]
        done = subprocess.run(
            [*self.door(), *clean, *changes, *argv],
            check=False,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=300,
        )
        assert expect in {None, done.returncode}, f"{argv}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def outside(self, *argv: str, expect: int | None = 0) -> str:
        """Runs a command of this host with access to the machine's files, below :attr:`root`, and its network."""
        enter = ["nsenter", "--target", str(self._daemons.pid("machine")), "--mount", "--net"]
        done = subprocess.run(
            [*enter, *argv], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
        )
        assert expect in {None, done.returncode}, f"{argv}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    @property
    def root(self) -> Path:
        """The machine's root folder, for :meth:`outside` alone."""
        return self._folder / "root"

    def door(self) -> list[str]:
        """The prefix of a command that runs inside; valid until the next reboot."""
        inside = ["nsenter", "--target", str(self._first_process()), "--mount", "--uts", "--ipc", "--pid"]
        return [*inside, "--net", "--root", "--wd"]

    def succeeds(self, command: str) -> bool:
        """Whether a line of shell exits 0."""
        return self.run("sh", "-c", f"{{ {command}; }} >/dev/null 2>&1 && echo yes", expect=None) == "yes\n"

    def write(self, path: str, text: str) -> None:
        """Writes a file inside, making its folder."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "-", path, stdin=text)

    def reboot(self) -> None:
        """Restarts the whole machine, and waits until its Slurm works."""
        before = self._first_process()
        self.run("systemctl", "--no-block", "reboot")
        wait_for(lambda: self._first_process(required=False) not in {None, before}, "the reboot", limit_seconds=120)
        self.wait_for_boot()
        self.wait_for_slurm()

    def wait_for_boot(self) -> None:
        wait_for(lambda: self._first_process(required=False), "the machine's first process")
        is_up = ("systemctl", "is-active", "multi-user.target")
        wait_for(lambda: self.run(*is_up, expect=None) == "active\n", "multi-user.target", limit_seconds=120)

    def wait_for_slurm(self) -> None:
        wait_for(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T", expect=None), "an idle node", limit_seconds=120)

    def run_job(self) -> str:
        """Runs a job to its end and returns its ID."""
        return self.run("sbatch", "--parsable", "--wait", "--output=/dev/null", "--wrap=true").strip()

    def serve(self, make: Callable[[], Any]) -> Any:
        """Calls a function whose sockets are the machine's: 127.0.0.1 there, and nowhere else."""
        made: list[Any] = []

        def inside() -> None:
            with open(f"/proc/{self._daemons.pid('machine')}/ns/net") as network:  # noqa: PTH123  # a number is needed
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = threading.Thread(target=inside)  # namespaces belong to threads, and sockets stay where they were made
        thread.start()
        thread.join()
        return made[0]

    def dashboard(self, **options: Any) -> ReceivingDashboard:
        """A dashboard that only the machine can reach."""
        dashboard: ReceivingDashboard = self.serve(lambda: ReceivingDashboard(**options))
        return dashboard

    def _first_process(self, *, required: bool = True) -> int | None:
        """The host's number of the machine's process 1."""
        for pid in keeper.descendants(self._daemons.pid("machine")):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:  # it ended meanwhile
                continue
            numbers = status.partition("NSpid:")[2].splitlines()[0].split()
            if len(numbers) > 1 and numbers[-1] == "1" and "Name:\tsystemd\n" in status:
                return pid
        assert not required, "the machine does not run:\n" + self._daemons.log("machine")[-4000:]
        return None

    def _start_slurm(self) -> None:
        self.run("mariadb", "-e", DATABASE)
        self.run("install", "-o", "slurm", "-m", "600", "/dev/null", "/etc/slurm/slurmdbd.conf")
        self.write("/etc/slurm/slurmdbd.conf", SLURMDBD_CONF)
        self.write("/etc/slurm/slurm.conf", SLURM_CONF)
        self.write("/etc/slurm/cgroup.conf", "")
        # At its very first start, slurmctld gives up without a slurmdbd.
        self.run("systemctl", "start", "slurmdbd")
        wait_for(lambda: self.succeeds("sacctmgr list cluster"), "slurmdbd")
        self.run("systemctl", "start", "slurmctld", "slurmd")
        self.wait_for_slurm()
