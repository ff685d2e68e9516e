"""Records the error messages of a real sacct: for odd lines in slurm.conf, and for slurmdbds that it cannot reach.

In a throwaway system::

    OUT=$PWD/tests/data tests/support/chroots.sh run SUITE sh -c 'cd /src && python3 -m tests.data.complaints /out'

README.md describes the files.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

from agent.slurm.environment import make_environment
from agent.slurm.row import FIELDS
from agent.slurm.sacct_argv import make_sacct_argv, make_window_selection
from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

#: Lines at the end of slurm.conf that Slurm complains of, or might.
ODD_LINES = {
    "cpus": "NodeName=zz CPUs=7 Sockets=2 CoresPerSocket=2 ThreadsPerCore=1",
    "backup_controller": "BackupController=elsewhere",
    "control_machine": "ControlMachine=elsewhere",
    "debug_level": "SlurmctldDebug=99",
    "array_size": "MaxArraySize=99999999",
    "tree_width": "TreeWidth=0",
    "unknown_key": "NoSuchKey=1",
    "key_twice": "MailProg=/bin/true\nMailProg=/bin/false",
    "obsolete": "FastSchedule=1\nCheckpointType=checkpoint/none\nCacheGroups=0\nCryptoType=crypto/munge",
    "debug_flags": "DebugFlags=NoSuchFlag",
    "loud": "DebugFlags=Protocol",
    "nodes_unknown": "PartitionName=other Nodes=nowhere[1-9]",
    "node_twice": "NodeName=n1 CPUs=2",
    "address": "NodeName=yy NodeAddr=nowhere.invalid CPUs=1",
    "launch": "LaunchParameters=nonsense\nSchedulerParameters=nonsense\nSelectTypeParameters=CR_Core",
    "store_flags": "AccountingStoreFlags=nonsense",
    "enforce": "AccountingStorageEnforce=nonsense",
    "memory_twice": "DefMemPerCPU=10\nDefMemPerNode=10",
    "timeouts": "MessageTimeout=9999\nSlurmctldTimeout=1\nUnkillableStepTimeout=1",
    "storage_keys": "AccountingStorageUser=root\nAccountingStorageLoc=nowhere\nJobCompUser=x",
    "external": "AccountingStorageExternalHost=nowhere.invalid",
    "tmpfs": "TmpFS=relative\nSlurmdSpoolDir=relative",
    "gres": "GresTypes=gpu,gpu,nonsense",
    "plugin": "PriorityType=priority/nonsense\nTopologyPlugin=topology/nonsense",
    "auth_alt": "AuthAltTypes=auth/jwt,auth/nonsense",
    "cli_filter": "CliFilterPlugins=nonsense",
    "not_ascii": "# \xe9\xff nothing\nNodeSet=\xe9 Nodes=n1",
    "prolog_flags": "PrologFlags=nonsense",
    "switch": "SwitchType=switch/nonsense\nSwitchParameters=nonsense",
    "communication": "CommunicationParameters=nonsense,NoInAddrAny",
    "federation": "FederationParameters=fed_display",
    "power": "SuspendTime=60\nSuspendProgram=/nowhere\nResumeProgram=/nowhere\nPowerParameters=nonsense",
    "priority": "PriorityFlags=nonsense\nPriorityWeightTRES=nonsense=5",
    "tres": "AccountingStorageTRES=gres/nonsense,nonsense/x",
}


@contextmanager
def serving(address: str, port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server on a port that is not slurmdbd."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(16)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    with connection:
                        serve(connection)
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=accept, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def close_at_once(connection: socket.socket) -> None:
    """A proxy whose backend is down."""


def speak_http(connection: socket.socket) -> None:
    """A web server."""
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def greet(connection: socket.socket) -> None:
    """A server that speaks first, such as SSH or MySQL."""
    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    time.sleep(0.2)


SERVERS = {"closes": close_at_once, "http": speak_http, "greets": greet}
OTHER_ADDRESS = "127.0.0.9"
#: First slurmdbds that cannot be reached.
UNREACHABLE = {"unresolved": "nowhere.invalid", "refused": OTHER_ADDRESS, "no_route": "203.0.113.9"}


class Witness:
    """Asks sacct with changed copies of slurm.conf."""

    def __init__(self, slurm: Slurm) -> None:
        self.slurm = slurm
        self.reported: list[dict[str, Any]] = []
        self._conf = slurm.layout.slurm_conf.read_text()
        self._now = int(time.time()) + 10

    def ask(self, name: str, *, lines: str = "", host: str = "", backup: bool = False, cluster: str = "") -> None:
        """Records what sacct prints with such a slurm.conf: for jobs, for no jobs, and without a query."""
        conf = self._conf
        good = next(line for line in conf.splitlines() if line.startswith("AccountingStorageHost="))
        if host:
            backups = good.replace("Host=", "BackupHost=") if backup else ""
            conf = conf.replace(good, f"AccountingStorageHost={host}\n{backups}")
        if cluster:
            conf = conf.replace(f"ClusterName={self.slurm.cluster}", f"ClusterName={cluster}")
        path = self.slurm.folder / "odd.conf"
        path.write_bytes(f"{conf}\n{lines}\n".encode("latin-1"))
        path.chmod(0o644)
        env = make_environment({**self.slurm.env, "SLURM_CONF": str(path)}, SLURM_TIME_FORMAT="%s")
        self.reported.append(
            {
                "name": name,
                "lines": lines,
                "host": host,
                "backup": backup,
                "help": self._call(env, "sacct", "--helpformat"),
                "jobs": self._call(env, *self._argv(1, self._now)),
                "no_jobs": self._call(env, *self._argv(1, 2)),
                "sacctmgr": self._call(
                    env, "sacctmgr", "--noheader", "--parsable2", "show", "cluster", "format=Cluster"
                ),
            }
        )
        reported = self.reported[-1]
        shown = [
            (key, reported[key]["returncode"], reported[key]["lines"], reported[key]["stderr"][:2]) for key in KEPT
        ]
        print(name, *shown, sep="\n   ", file=sys.stderr, flush=True)

    @staticmethod
    def _argv(start: int, end: int) -> list[str]:
        return make_sacct_argv("sacct", FIELDS, *make_window_selection(start, end), separator="|")

    def _call(self, env: dict[str, str], *argv: str) -> dict[str, Any]:
        done = subprocess.run(argv, capture_output=True, check=False, env=env, timeout=60)
        stderr = done.stderr.decode("utf-8", "replace").replace(str(self.slurm.folder), "/lab").splitlines()
        return {"returncode": done.returncode, "lines": done.stdout.count(b"\n"), "stderr": stderr}


KEPT = ("help", "jobs", "no_jobs", "sacctmgr")


def listen(folder: Path) -> None:
    """Records everything."""
    with Slurm(nodes=1) as slurm:
        jobs = [slurm.sbatch(command="true") for _ in range(3)]
        slurm.wait_until_idle()
        wait_for(lambda: slurm.run("sacct", "-n", "-X", "-j", ",".join(map(str, jobs))).count("\n") == 3, "its rows")
        witness = Witness(slurm)
        witness.ask("nothing_odd")
        for name, lines in ODD_LINES.items():
            witness.ask(f"conf_{name}", lines=lines)
        for name, host in UNREACHABLE.items():
            witness.ask(f"first_{name}", host=host, backup=True)
            witness.ask(f"only_{name}", host=host)
        for name, serve in SERVERS.items():
            with serving(OTHER_ADDRESS, slurm.layout.dbd_port, serve):
                witness.ask(f"first_{name}", host=OTHER_ADDRESS, backup=True)
                witness.ask(f"only_{name}", host=OTHER_ADDRESS)
        witness.ask("cluster_unknown", cluster="gamma")
        slurm.daemons.kill("mariadbd")
        witness.ask("no_mariadb")
        version = slurm.run("sacct", "-V").split()[1]
    target = folder / "sacct" / version
    target.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(reported) for reported in witness.reported)
    (target / "complaints.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    listen(Path(sys.argv[1]))
