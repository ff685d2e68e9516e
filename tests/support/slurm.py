"""A real Slurm on this machine, in a folder of its own: munge, MariaDB, slurmdbd, slurmctld and several slurmd.

``with Slurm(jobcomp=True) as slurm:`` starts one in a few seconds; any number may run side by side.
However the block ends, every process is ended and the folder removed (:mod:`tests.support.keeper`).
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Sequence

from . import slurm_conf
from .daemons import Daemons
from .ports import claim_ports
from .waiting import wait_for

HOOK = Path(__file__).parents[2] / "hooks" / "jobcomp.sh"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMES = "time_submit, time_eligible, time_start, time_end"
NEEDED = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacct")


class SlurmError(RuntimeError):
    """A command of the lab's Slurm failed."""


def why_not_here() -> str:
    """Why this machine cannot run a lab; empty if it can."""
    missing = [name for name in NEEDED if not shutil.which(name, path=PATH)]
    if missing:
        return f"not installed: {', '.join(missing)} (tests/support/provision.sh installs them)"
    if os.geteuid() != 0:
        return "the daemons of a lab need root"
    try:
        slurm_conf.own_address()
    except OSError:
        return f"the name of this machine has no address: put 127.0.1.1 {socket.gethostname()} into /etc/hosts"
    return ""


def munged_options(layout: slurm_conf.Layout) -> list[str]:
    """Options of munged that keep everything in the lab's folder."""
    files = {
        "socket": layout.munge_socket,
        "key-file": layout.folder / "munge.key",
        "pid-file": layout.folder / "munged.pid",
        "seed-file": layout.folder / "munge.seed",
        "log-file": layout.folder / "munge.log",
    }
    return [f"--{option}={file}" for option, file in files.items()]


def mariadb_options(layout: slurm_conf.Layout) -> list[str]:
    """Options of a small MariaDB that syncs nothing: a lab's accounting need not survive a power loss."""
    return [
        "--no-defaults",
        "--user=root",
        f"--datadir={layout.folder}/db",
        f"--socket={layout.mysql_socket}",
        # Another server that starts removes every temporary table it finds in /tmp: a query loses its rows, and sacct
        # then answers with nothing, exit 0.
        f"--tmpdir={layout.folder}",
        "--innodb-flush-method=nosync",
        "--innodb-log-file-size=16M",
        "--innodb-lock-wait-timeout=900",  # slurmdbd warns about lower values
    ]


class Slurm:
    """One cluster.

    :param jobcomp: whether the hook is wired by JobCompType=jobcomp/script.
    :param epilog: whether the hook is wired by EpilogSlurmctld.
    :param hook: the script to wire; it runs with SLURM_USAGE_HISTORY_SPOOL set to :attr:`spool`.
    :param conf: more lines for slurm.conf.
    :param cluster: ClusterName.
    :param nodes: how many slurmd; the first one has the GPUs.

    The daemons are ``munged``, ``mariadbd``, ``slurmdbd``, ``slurmctld``, and ``n1`` and so on, a slurmd each.
    """

    def __init__(
        self,
        *,
        jobcomp: bool = False,
        epilog: bool = False,
        hook: Path = HOOK,
        conf: Sequence[str] = (),
        cluster: str = "lab",
        nodes: int = 3,
    ) -> None:
        self._jobcomp, self._epilog, self._hook, self._conf = jobcomp, epilog, hook, conf
        self.cluster = cluster
        self._node_count = nodes

    def __enter__(self) -> Slurm:
        self._claim, port = claim_ports(slurm_conf.own_address())
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-lab-"))
        self.spool = self.folder / "spool"
        self.layout = slurm_conf.Layout(self.folder, self.cluster, port, self._node_count)
        self.env = self._make_env()
        self.daemons = Daemons(self.folder, self.env)
        try:
            self._write_files()
            self._start_all()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self.daemons.close()
        self._claim.close()

    # Commands

    @property
    def version(self) -> tuple[int, int]:
        """Slurm's version, such as (22, 5)."""
        year, month = self.run("slurmctld", "-V").split()[1].split(".")[:2]
        return int(year), int(month)

    def run(self, *argv: str, stdin: str = "") -> str:
        """Runs a command in the lab's environment and returns what it printed.

        :raises SlurmError: if it does not exit 0.
        """
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            check=False,
            cwd=self.folder,
            encoding="utf-8",
            env=self.env,
            errors="replace",
            timeout=60,
        )
        if done.returncode:
            raise SlurmError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def sbatch(self, *options: str, command: str = "true") -> int:
        """Submits a batch job that runs the shell *command*, and returns its raw JobID."""
        usual = ("--parsable", "--output=/dev/null", "--chdir=/tmp")
        return int(self.run("sbatch", *usual, *options, f"--wrap={command}").partition(";")[0])

    def sacctmgr(self, *arguments: str) -> str:
        """Runs sacctmgr without confirmation."""
        return self.run("sacctmgr", "-i", *arguments)

    def sql(self, statements: str) -> list[dict[str, str]]:
        """Runs SQL on slurmdbd's database; each row is column name → text, as MariaDB prints it."""
        printed = self.run(*self._mariadb, "--batch", "slurm_acct_db", stdin=statements)
        header, *rows = [line.split("\t") for line in printed.split("\n") if line] or [[]]
        return [dict(zip(header, row)) for row in rows]

    # Jobs

    def states(self, job: int) -> list[str]:
        """The states that slurmctld reports for a job, or for each part of an array or het job."""
        shown = self.run("squeue", "-h", "-a", "-t", "all", "-j", str(job), "-o", "%T")
        return shown.split()

    def wait_for_state(self, job: int, *wanted: str, limit_seconds: float = 30) -> None:
        """Waits until every part of *job* is in one of the states *wanted*."""
        wait_for(
            lambda: set(self.states(job)) <= set(wanted),
            f"job {job} {' or '.join(wanted)}",
            limit_seconds=limit_seconds,
        )

    def wait_until_idle(self, *, limit_seconds: float = 240) -> None:
        """Waits until no job is pending or running, and slurmdbd has every end.

        :raises TimeoutError: with what is unfinished.
        """
        try:
            wait_for(lambda: not self.unfinished(), "the end of every job", limit_seconds=limit_seconds)
        except TimeoutError as error:
            raise TimeoutError("\n".join([str(error), *self.unfinished()])) from None

    def unfinished(self) -> list[str]:
        """Unfinished work of slurmctld or slurmdbd: jobs in squeue, messages to slurmdbd, or incomplete rows."""
        # A job that runs for seconds is written at its end first, and completed a little later - in 20.11 never,
        # where it was requeued or resized.
        incomplete = (
            f"select id_job, state, {TIMES}, tres_alloc from {self.cluster}_job_table"
            " where time_end = 0 or (time_eligible = 0 and tres_alloc != '' and state < 1024)"
        )
        jobs = self.run("squeue", "-h", "-a", "-o", "%i %T %r %N submitted %V").splitlines()
        return jobs or self._unsent() or [str(row) for row in self.sql(incomplete)]

    def _unsent(self) -> list[str]:
        """sdiag's line on the messages that slurmdbd has not confirmed yet, if there are any."""
        lines = self.run("sdiag").splitlines()
        return [line for line in lines if line.startswith("DBD Agent queue size:") and not line.endswith(" 0")]

    # Daemons

    def start(self, daemon: str) -> None:
        """Starts a daemon (again), and waits until it serves.

        :raises TimeoutError: with the end of its log.
        """
        self.daemons.start(daemon, self._command(daemon))
        try:
            wait_for(lambda: self._serves(daemon), f"{daemon} serves", pause_seconds=0.02)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.daemons.log(daemon)[-2000:]}") from None

    def _command(self, daemon: str) -> tuple[str, ...]:
        """The command line that runs *daemon* in the foreground."""
        if daemon == "munged":
            return (daemon, "--foreground", "--force", *munged_options(self.layout))
        if daemon == "mariadbd":
            return (daemon, *mariadb_options(self.layout), "--skip-networking")
        if daemon in self.layout.nodes:
            return ("slurmd", "-D", "-N", daemon)
        return (daemon, "-D")

    def _serves(self, daemon: str) -> bool:
        """Whether *daemon* answers its own kind of ping; for a slurmd, whether its port is open."""
        if not self.daemons.alive(daemon):
            raise SlurmError(f"{daemon} ended: {self.daemons.log(daemon)[-2000:]}")
        if daemon in self.layout.nodes:
            with socket.socket() as attempt:
                port = self.layout.slurmd_port(daemon)
                return attempt.connect_ex((slurm_conf.own_address(), port)) == 0
        pings = {
            "munged": ("munge", f"--socket={self.layout.munge_socket}", "--no-input"),
            "mariadbd": (*self._mariadb, "--execute", "select 1"),
            "slurmdbd": ("sacctmgr", "-n", "list", "cluster"),
            "slurmctld": ("scontrol", "ping"),
        }
        try:
            return "DOWN" not in self.run(*pings[daemon])
        except SlurmError:
            return False

    @property
    def _mariadb(self) -> tuple[str, ...]:
        return ("mariadb", "--no-defaults", f"--socket={self.layout.mysql_socket}")

    def _start_all(self) -> None:
        self.run("mariadb-install-db", *mariadb_options(self.layout), "--skip-test-db")
        self.start("munged")
        self.start("mariadbd")
        self.run(*self._mariadb, "--execute", "create database slurm_acct_db")
        for daemon in ("slurmdbd", "slurmctld", *self.layout.nodes):
            self.start(daemon)
        wait_for(lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, "idle nodes")

    def _make_env(self) -> dict[str, str]:
        """The environment of daemons and commands, without the caller's settings for Slurm and MariaDB."""
        zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
        return {
            **zone,
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "SLURM_CONF": str(self.layout.slurm_conf),
            "MYSQL_UNIX_PORT": str(self.layout.mysql_socket),  # how slurmdbd finds MariaDB
            "SLURM_USAGE_HISTORY_SPOOL": str(self.spool),
        }

    def _write_files(self) -> None:
        layout, folder = self.layout, self.folder
        wrapper = folder / "hook.sh"
        files = {
            "slurm.conf": slurm_conf.make_slurm_conf(
                layout,
                jobcomp=wrapper if self._jobcomp else None,
                epilog=wrapper if self._epilog else None,
                extra=self._conf,
            ),
            "slurmdbd.conf": slurm_conf.make_slurmdbd_conf(layout),
            "gres.conf": slurm_conf.make_gres_conf(layout),
            "cgroup.conf": slurm_conf.make_cgroup_conf(self.version),
            "hook.sh": f"#!/bin/sh\nexport SLURM_USAGE_HISTORY_SPOOL={self.spool}\nexec {self._hook}\n",
        }
        for name, text in files.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        folder.chmod(0o755)  # jobs can run as any user
        (folder / "munge.key").write_bytes(os.urandom(64))
        (folder / "munge.key").chmod(0o400)
        wrapper.chmod(0o700)
        for name in ("dev", "spool", "state"):
            (folder / name).mkdir(mode=0o700)
        for node in layout.nodes:
            (folder / f"spool-{node}").mkdir(mode=0o755)
        for device in slurm_conf.gpu_devices(layout):
            os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
