"""A pair of controllers, and a federation: Slurm, exporters and a dashboard on separate hosts."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

from tests.ha import nfs, spread
from tests.ha.board import open_board
from tests.ha.hosts import Host, HostError, Lan
from tests.support.dashboard import API_KEY
from tests.support.exporter import ROOT
from tests.support.waiting import wait_for

SPOOL = "/var/spool/slurm-usage-history-exporter"
UP = re.compile(r"\((?:primary|backup\d*)\) at (\S+) is UP")


class Exporter:
    """The exporter on a host, with the paths of an installation, but run from the checkout.

    :param settings: keys of its configuration, except the dashboard's.
    """

    def __init__(self, host: Host, api_url: str, **settings: Any) -> None:
        self.host = host
        self.settings = {"api_url": api_url, "api_key": API_KEY, "allow_http": True, **settings}
        self.config = host.disk / "config.json"
        self.config.touch(mode=0o600)
        self.configure()
        host.run("mkdir", "-p", "-m", "750", SPOOL)
        self.codes: list[int] = []  # how its runs ended
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(self, **settings: Any) -> None:
        """Changes keys of its configuration; None removes one."""
        self.settings.update(settings)
        known = {name: value for name, value in self.settings.items() if value is not None}
        self.config.write_text(json.dumps(known))

    def run(self, *arguments: str, expect: int = 0, limit_seconds: float = 600) -> str:
        """Runs a command to its end and returns its output."""
        code, said = self.attempt(*arguments, limit_seconds=limit_seconds)
        assert code == expect, f"{self.host.name}: {arguments}: exit {code}\n{said}"
        return said

    def attempt(self, *arguments: str, limit_seconds: float = 600) -> tuple[int, str]:
        """Runs a command, and returns its exit code and output."""
        done = self.host.attempt(*self._argv(*arguments), folder=str(ROOT), limit_seconds=limit_seconds)
        with (self.host.disk / "log" / "exporter.log").open("a") as log:
            log.write(f"--- {time.strftime('%T')} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.returncode, done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """The output of ``status --json``."""
        done = self.host.attempt(*self._argv("status", "--json"), folder=str(ROOT))
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def waiting(self) -> list[tuple[int, int | None, int | None, str]]:
        """The jobs in its ledger that wait: raw ID, Submit and End by the hook (epoch seconds), and why."""
        path = self.host.disk / "spool" / Path(SPOOL).name / "ledger.db"
        with closing(sqlite3.connect(path, timeout=60)) as ledger:
            return ledger.execute("SELECT job_id, submit, ended, reason FROM waiting").fetchall()

    def run_later(self, seconds: float, *arguments: str) -> str:
        """Runs a command whose clock is ahead."""
        argv = self._argv(*arguments)
        later = (*argv[:2], "-m", "tests.support.other_clock", str(seconds), *argv[4:])
        done = self.host.attempt(*later, folder=str(ROOT))
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def flush_every(self, seconds: float) -> None:
        """Flushes like a timer, until :meth:`stop`, and across power losses."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._flush_on, args=(seconds,))
        self._thread.start()

    def stop(self) -> None:
        """Stops flushing."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _flush_on(self, seconds: float) -> None:
        while not self._stop.is_set():
            try:
                code, _ = self.attempt("flush")
                self.codes.append(code)
            except (FileNotFoundError, HostError):  # the host is off
                self.codes.append(-1)
            self._stop.wait(seconds)

    def _argv(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-B", "-m", "agent", "--config", str(self.config), *arguments)


class Site:
    """Hosts with munge on each, and ``dbd`` among them: MariaDB, slurmdbd and the dashboard. Use it in a ``with``."""

    def __init__(self) -> None:
        self.exporters: dict[str, Exporter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        self.lan = self._stack.enter_context(Lan())
        self._key = self.lan.folder / "munge.key"
        self._key.write_bytes(os.urandom(64))
        self._key.chmod(0o400)
        try:
            self.set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for exporter in self.exporters.values():
            exporter.stop()
        self._stack.close()

    def set_up(self) -> None:
        """Starts everything."""
        raise NotImplementedError

    def add_host(self, name: str, number: int, conf: str = "slurm") -> Host:
        """Boots a host whose commands use the slurm.conf in the folder ``conf``."""
        env = {"SLURM_CONF": str(self.lan.folder / conf / "slurm.conf")}
        host = self.lan.add(name, number, env)
        spread.start_munged(host, self._key)
        return host

    def boot(self, host: Host) -> None:
        """Powers a host on again."""
        host.boot()
        spread.start_munged(host, self._key)

    def start_accounting(self, clusters: Sequence[str]) -> None:
        """Starts MariaDB and slurmdbd, and adds users with an account."""
        self.dbd = self.lan.hosts["dbd"]
        spread.start_mariadb(self.dbd)
        spread.start_slurmdbd(self.dbd)
        names = ",".join(clusters)
        self.dbd.run("sacctmgr", "-i", "add", "cluster", names)
        self.dbd.run("sacctmgr", "-i", "add", "account", "acct", "Description=a", "Organization=o", f"Cluster={names}")
        self.dbd.run(
            "sacctmgr", "-i", "add", "user", ",".join(("root", *spread.USERS)), "Account=acct", f"Cluster={names}"
        )
        self.board = open_board(self.dbd)
        self._stack.enter_context(self.board)

    def add_exporter(self, host: Host, **settings: Any) -> Exporter:
        """Installs an exporter on a host, before slurmctld starts: otherwise slurmctld never calls the hook."""
        self.exporters[host.name] = Exporter(host, self.board.url, **settings)
        return self.exporters[host.name]

    def sql(self, statement: str) -> list[list[str]]:
        """Rows of slurmdbd's database."""
        printed = self.dbd.run("mariadb", "-N", "-B", "slurm_acct_db", "-e", statement)
        return [line.split("\t") for line in printed.splitlines()]

    @property
    def slurm_version(self) -> tuple[int, int]:
        """Slurm's version, such as (22, 5)."""
        year, month = next(iter(self.lan.hosts.values())).run("slurmctld", "-V").split()[1].split(".")[:2]
        return int(year), int(month)


class Pair(Site):
    """A cluster ``ha`` with a primary controller ``ctl1``, a backup ``ctl2``, and four slurmd on ``nodes``.

    :param extra: more lines for slurm.conf.
    :param settings: of both exporters.
    :param backup: whether there is a second controller.
    :param on_nfs: whether StateSaveLocation is on an NFS server, which is ``dbd``.
    """

    cluster = "ha"

    def __init__(
        self, *, extra: Sequence[str] = (), backup: bool = True, on_nfs: bool = False, **settings: Any
    ) -> None:
        super().__init__()
        self._extra = extra
        self._settings = settings
        self._backup = backup
        self._on_nfs = on_nfs
        self.kills: list[float] = []  # when a slurmctld was killed, in epoch seconds

    def set_up(self) -> None:
        (self.lan.folder / "slurm").mkdir()
        self.state = self.lan.folder / "state"
        self.state.mkdir(mode=0o700)
        numbers = {"dbd": 10, "nodes": 20, "ctl1": 1, **({"ctl2": 2} if self._backup else {})}
        hosts = {name: self.add_host(name, number) for name, number in numbers.items()}
        self.nodes, self.ctl1 = hosts["nodes"], hosts["ctl1"]
        self.controllers = [host for name, host in hosts.items() if name.startswith("ctl")]
        if self._on_nfs:
            nfs.serve(hosts["dbd"], self.state)
            for host in self.controllers:
                nfs.mount(host, hosts["dbd"], self.state)
        names = [f"n{number}" for number in range(1, 5)]
        conf = spread.make_slurm_conf(
            self.cluster, self.controllers, names, self.nodes, state=self.state, extra=self._extra
        )
        spread.write_conf(self.lan.folder / "slurm", conf, self.slurm_version)
        self.start_accounting([self.cluster])
        for host in self.controllers:
            self.add_exporter(host, **self._settings)
            spread.start_slurmctld(host)
            if host is self.ctl1:
                self.wait_for_control(host)
                self._save_state()
        spread.start_slurmds(self.nodes, names)
        wait_for(lambda: set(self.nodes.run("sinfo", "-h", "-o", "%T").split()) == {"idle"}, "idle nodes")
        if self._backup:
            self.ctl2 = hosts["ctl2"]
            wait_for(lambda: len(self.up()) == 2, "both controllers up")

    def boot(self, host: Host) -> None:
        super().boot(host)
        if self._on_nfs:
            nfs.mount(host, self.dbd, self.state)

    def __exit__(self, *problem: object) -> None:
        if self._on_nfs:  # hosts whose server has ended before them would never end
            for host in self.controllers:
                self.kill_slurmctld(host)
                nfs.unmount(host, self.state)
        super().__exit__(*problem)

    def _save_state(self) -> None:
        """Restarts the primary, which saves assoc_usage: without it, a backup of 26.05 refuses to take over."""
        self.ctl1.kill(spread.SLURMCTLD_PID, signal.SIGTERM)
        wait_for(lambda: not self.is_running(self.ctl1), "the end of slurmctld")
        spread.start_slurmctld(self.ctl1)
        self.wait_for_control(self.ctl1)

    def up(self) -> list[str]:
        """The controllers whose slurmctld answers, the one in control first."""
        return UP.findall(self.nodes.attempt("scontrol", "ping", limit_seconds=20).stdout)

    def wait_for_control(self, host: Host, *, limit_seconds: float = 90) -> None:
        """Waits until the slurmctld that answers is that host's."""

        def in_control() -> bool:
            lines = re.findall("Running as primary|background mode|slurmctld version", host.log("slurmctld.log"))
            return (
                lines[-1:] == ["Running as primary"]
                and self.up()[:1] == [host.name]
                and self.nodes.attempt("squeue", "-h", limit_seconds=5).returncode == 0
            )

        wait_for(in_control, f"{host.name} in control", limit_seconds=limit_seconds, pause_seconds=0.3)

    def kill_slurmctld(self, host: Host) -> None:
        """Kills it; what it has not reported yet is lost: calls of the hook, and messages to slurmdbd."""
        host.kill(spread.SLURMCTLD_PID)
        self.kills.append(time.time())

    def is_running(self, host: Host) -> bool:
        """Whether a slurmctld runs on a host."""
        return host.attempt("sh", "-c", f"kill -0 $(cat {spread.SLURMCTLD_PID})").returncode == 0


class Federation(Site):
    """Two clusters of one slurmdbd, ``alpha`` and ``beta``, each with a controller of that name and a nodes' host."""

    clusters = ("alpha", "beta")

    def set_up(self) -> None:
        for name in ("slurm", *map(_conf_of, self.clusters)):
            (self.lan.folder / name).mkdir()
        self.add_host("dbd", 10)
        controllers = {
            "alpha": self.add_host("alpha", 1, _conf_of("alpha")),
            "beta": self.add_host("beta", 2, _conf_of("beta")),
        }
        node_hosts = {
            "alpha": self.add_host("na", 21, _conf_of("alpha")),
            "beta": self.add_host("nb", 22, _conf_of("beta")),
        }
        version = self.slurm_version
        for cluster in self.clusters:
            state = self.lan.folder / f"state-{cluster}"
            state.mkdir(mode=0o700)
            names = self.node_names(cluster)
            conf = spread.make_slurm_conf(
                cluster, [controllers[cluster]], names, node_hosts[cluster], state=state, extra=()
            )
            spread.write_conf(self.lan.folder / _conf_of(cluster), conf, version)
            if cluster == "alpha":  # sacctmgr on slurmdbd's host needs the slurm.conf of any cluster
                spread.write_conf(self.lan.folder / "slurm", conf, version)
        self.start_accounting(self.clusters)
        for host in controllers.values():
            self.add_exporter(host)
            spread.start_slurmctld(host)
            wait_for(partial(_answers, host), f"{host.name} answers")
        # Only now does slurmdbd know both clusters' addresses.
        self.dbd.run("sacctmgr", "-i", "add", "federation", "fed", f"clusters={','.join(self.clusters)}")
        for cluster, host in node_hosts.items():
            spread.start_slurmds(host, self.node_names(cluster))
        for cluster, host in controllers.items():
            other = next(name for name in self.clusters if name != cluster)
            wait_for(partial(_is_idle, host), f"idle nodes of {cluster}")
            wait_for(partial(_is_federated, host, other), f"{cluster} and {other} in a federation")

    @staticmethod
    def node_names(cluster: str) -> list[str]:
        return [f"{cluster[0]}{number}" for number in (1, 2)]


def _conf_of(cluster: str) -> str:
    return f"conf-{cluster}"


def _answers(host: Host) -> bool:
    return "UP" in host.attempt("scontrol", "ping").stdout


def _is_idle(host: Host) -> bool:
    return set(host.attempt("sinfo", "-h", "--local", "-o", "%T").stdout.split()) == {"idle"}


def _is_federated(host: Host, other: str) -> bool:
    return other in host.attempt("scontrol", "show", "federation").stdout


def wait_until(what: str, condition: Callable[[], bool], *, limit_seconds: float) -> bool:
    """Waits for something that may not happen; returns whether it did."""
    try:
        wait_for(condition, what, limit_seconds=limit_seconds, pause_seconds=0.5)
    except TimeoutError:
        return False
    return True


def columns(rows: Iterable[Sequence[object]]) -> str:
    """Rows as a Markdown table; the first is its head."""
    head, *body = [[str(cell) for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines)
