"""The configuration files of a lab's Slurm, as text."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple, Sequence

CPUS_A_NODE = 64
GPU_FILES = {"a100": 4, "h100": 2}  # on the first node
#: Lines for slurm.conf that make jobs plain processes: no cgroups, no MPI, no mail; lost nodes come back.
JUST_PROCESSES = """\
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2"""
#: By default Slurm waits three seconds before it starts a job, and half a minute before it looks again.
HURRY = "batch_sched_delay=0,sched_interval=1,sched_min_interval=10000,bf_interval=1"


class Layout(NamedTuple):
    """The paths of a lab's files, and the ports of its daemons."""

    folder: Path
    cluster: str
    first_port: int
    node_count: int

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge.sock"

    @property
    def mysql_socket(self) -> Path:
        return self.folder / "mysql.sock"

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def nodes(self) -> list[str]:
        return [f"n{number + 1}" for number in range(self.node_count)]

    @property
    def dbd_port(self) -> int:
        return self.first_port + 1

    def slurmd_port(self, node: str) -> int:
        return self.first_port + 2 + self.nodes.index(node)


def own_address() -> str:
    """What this machine's name resolves to: with NoInAddrAny Slurm listens there and nowhere else.

    That is a loopback address nearly everywhere (127.0.1.1 on Debian), and a container's own one in a container.
    """
    return socket.gethostbyname(socket.gethostname())


def make_slurmdbd_conf(layout: Layout) -> str:
    """slurmdbd.conf, which must be beside slurm.conf and readable only by slurmdbd's user."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
CommunicationParameters=NoInAddrAny
DbdHost={socket.gethostname()}
DbdAddr={own_address()}
DbdPort={layout.dbd_port}
SlurmUser=root
PidFile={layout.folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def make_slurm_conf(layout: Layout, *, jobcomp: Path | None, epilog: Path | None, extra: Sequence[str]) -> str:
    """slurm.conf, with the given hooks wired, and the lines of *extra* at its end."""
    wiring = [f"JobCompType=jobcomp/script\nJobCompLoc={jobcomp}"] if jobcomp else []
    wiring += [f"EpilogSlurmctld={epilog}"] if epilog else []
    return "\n".join([_controller(layout), *wiring, _nodes(layout), *extra, ""])


def make_gres_conf(layout: Layout) -> str:
    """gres.conf: the first node's GPUs, typed, on the device nodes that :func:`gpu_devices` names."""
    lines = ["AutoDetect=off"]
    for kind, count in GPU_FILES.items():
        files = f"{layout.folder}/dev/{kind}-[0-{count - 1}]"
        lines.append(f"NodeName={layout.nodes[0]} Name=gpu Type={kind} File={files}")
    return "\n".join([*lines, ""])


def make_cgroup_conf(version: tuple[int, int]) -> str:
    """cgroup.conf: a slurmd without cgroups still requires them, unless configured otherwise."""
    if version >= (23, 0):
        return "CgroupPlugin=disabled\n"
    # Does not know this setting; the old plugin checks nothing until it is used.
    return "CgroupPlugin=cgroup/v1\n" if version >= (22, 5) else ""


def gpu_devices(layout: Layout) -> list[Path]:
    """The device nodes that act as GPUs."""
    return [layout.folder / "dev" / f"{kind}-{number}" for kind, count in GPU_FILES.items() for number in range(count)]


def _controller(layout: Layout) -> str:
    # munge's socket must be named once for each use.
    types = ",".join(f"gres/gpu:{kind}" for kind in GPU_FILES)
    return f"""\
ClusterName={layout.cluster}
SlurmctldHost={socket.gethostname()}({own_address()})
SlurmctldPort={layout.first_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket},cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={layout.folder}/state
SlurmdSpoolDir={layout.folder}/spool-%n
SlurmctldPidFile={layout.folder}/slurmctld.pid
SlurmdPidFile={layout.folder}/slurmd-%n.pid
{JUST_PROCESSES}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=10
SchedulerType=sched/backfill
SchedulerParameters={HURRY}
MaxArraySize=10001
MinJobAge=300
KillWait=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={own_address()}
AccountingStoragePort={layout.dbd_port}
AccountingStoragePass={layout.munge_socket}
AccountingStorageTRES=gres/gpu,{types}
GresTypes=gpu
SlurmdParameters=config_overrides"""


def _nodes(layout: Layout) -> str:
    gres = "Gres=" + ",".join(f"gpu:{kind}:{count}" for kind, count in GPU_FILES.items())
    lines = [
        f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr={own_address()}"
        f" Port={layout.slurmd_port(node)} CPUs={CPUS_A_NODE} RealMemory=64000 State=UNKNOWN"
        f" {gres if node == layout.nodes[0] else ''}"
        for node in layout.nodes
    ]
    return "\n".join([*lines, "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=FORCE:4"])
