"""A Slurm with daemons on several hosts: their configuration files as text, and how they are started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Sequence

from tests.ha.hosts import Host
from tests.support import slurm_conf
from tests.support.exporter import ROOT
from tests.support.waiting import wait_for

HOOK = ROOT / "hooks" / "jobcomp.sh"
CPUS_A_NODE = 64
SLURMCTLD_PID = "/run/slurm/slurmctld.pid"
USERS = ("nobody", "daemon", "games")


def make_slurm_conf(
    cluster: str,
    controllers: Sequence[Host],
    nodes: Sequence[str],
    node_host: Host,
    *,
    state: Path,
    extra: Sequence[str],
) -> str:
    """slurm.conf of a cluster with any number of SlurmctldHosts; fail-overs are quick (SlurmctldTimeout)."""
    hosts = "\n".join(f"SlurmctldHost={host.name}({host.address})" for host in controllers)
    node_lines = "\n".join(
        f"NodeName={node} NodeHostname={node_host.name} NodeAddr={node_host.address} Port={7001 + number}"
        f" CPUs={CPUS_A_NODE} RealMemory=64000 State=UNKNOWN"
        for number, node in enumerate(nodes)
    )
    return f"""\
ClusterName={cluster}
{hosts}
AuthType=auth/munge
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={state}
SlurmdSpoolDir=/var/spool/slurmd-%n
SlurmctldPidFile={SLURMCTLD_PID}
SlurmdPidFile=/run/slurm/slurmd-%n.pid
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd-%n.log
{slurm_conf.JUST_PROCESSES}
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters={slurm_conf.HURRY},max_rpc_cnt=0
SlurmctldTimeout=10
SlurmdTimeout=60
MinJobAge=10
MaxJobCount=200000
MaxArraySize=100001
KillWait=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=dbd
JobCompType=jobcomp/script
JobCompLoc={HOOK}
SlurmdParameters=config_overrides
{os.linesep.join(extra)}
{node_lines}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost=dbd
SlurmUser=root
PidFile=/run/slurm/slurmdbd.pid
LogFile=/var/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def write_conf(folder: Path, slurm: str, version: tuple[int, int]) -> None:
    """Creates the folder of SLURM_CONF."""
    folder.mkdir(exist_ok=True)
    cgroup = slurm_conf.make_cgroup_conf(version)
    for name, text in {"slurm.conf": slurm, "slurmdbd.conf": SLURMDBD_CONF, "cgroup.conf": cgroup}.items():
        (folder / name).write_text(text)
    (folder / "slurmdbd.conf").chmod(0o600)


def start_munged(host: Host, key: Path) -> None:
    """Starts munged with the socket where Slurm expects it, in the host's own /run."""
    options = {"key-file": key, "pid-file": "/run/munge/munged.pid", "seed-file": "/run/munge/seed"}
    named = [f"--{name}={file}" for name, file in {**options, "log-file": "/var/log/munged.log"}.items()]
    host.run("munged", "--force", "--num-threads=4", *named)


def start_mariadb(host: Host) -> None:
    """Starts a MariaDB that syncs nothing: files on the host's disk, its socket where slurmdbd expects it."""
    # Hosts share /tmp and use the same process IDs: two servers would remove each other's temporary tables.
    options = ["--no-defaults", "--user=root", f"--datadir={host.disk}/db", f"--tmpdir={host.disk}/sqltmp"]
    options.append("--loose-innodb-buffer-pool-size-max=1G")  # by default terabytes, more than a small kernel can map
    (host.disk / "sqltmp").mkdir(exist_ok=True)
    host.run("mkdir", "-p", "/run/mysqld")
    if not (host.disk / "db").exists():
        host.run("mariadb-install-db", *options, "--skip-test-db")
    tuned = ["--innodb-flush-method=nosync", "--innodb-log-file-size=64M", "--innodb-lock-wait-timeout=900"]
    host.start(
        *("mariadbd", *options, "--socket=/run/mysqld/mysqld.sock", "--skip-networking"),
        *("--pid-file=/run/mysqld/mysqld.pid", *tuned),
        log="mariadb.log",
    )
    try:
        wait_for(lambda: host.attempt("mariadb-admin", "ping").returncode == 0, "MariaDB answers")
    except TimeoutError as error:
        raise TimeoutError(
            f"{error}\n{host.attempt('mariadb-admin', 'ping').stderr}{host.log('mariadb.log')}"
        ) from None
    host.run("mariadb", "-e", "create database if not exists slurm_acct_db")


def start_slurmdbd(host: Host) -> None:
    host.run("slurmdbd")
    wait_for(lambda: host.attempt("sacctmgr", "-n", "show", "cluster").returncode == 0, "slurmdbd answers")


def start_slurmds(host: Host, nodes: Sequence[str]) -> None:
    for node in nodes:
        host.run("mkdir", "-p", f"/var/spool/slurmd-{node}")
        host.run("slurmd", "-N", node)


def start_slurmctld(host: Host) -> None:
    """Starts it as primary, or as backup if slurm.conf names another host first."""
    host.run("slurmctld")
