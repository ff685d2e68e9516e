"""NFS 4.2 between hosts: the kernel's server on one, mounts on others, each a client of its own.

Needs a kernel with ``nfs`` and ``nfsd``, and Debian's nfs-kernel-server. A network namespace has an NFS server and a
client of its own, so locks are the server's, as between real hosts.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.ha.hosts import Host
from tests.support.slurm import PATH

#: Seconds after which a server releases the locks of a dead client. Linux's default is 90.
LEASE_SECONDS = 15


def why_not_here() -> str:
    """Why this machine cannot use NFS; empty if it can."""
    known = Path("/proc/filesystems").read_text().split()
    missing = [name for name in ("nfs4", "nfsd") if name not in known]
    if missing:
        return f"the kernel has no {' and no '.join(missing)} (modprobe nfsv4 nfsd)"
    return "" if shutil.which("rpc.mountd", path=PATH) else "not installed: nfs-kernel-server"


def serve(host: Host, folder: Path) -> None:
    """Exports a folder to all hosts."""
    host.run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    for name in ("nfsv4leasetime", "nfsv4gracetime"):
        host.run("sh", "-c", f"echo {LEASE_SECONDS} >/proc/fs/nfsd/{name}")
    host.run("exportfs", "-i", "-o", "rw,no_root_squash,no_subtree_check,fsid=1", f"*:{folder}")
    host.run("rpc.mountd", "--no-nfs-version", "3", "--no-udp")
    start(host)


def start(server: Host) -> None:
    """The server answers."""
    server.run("rpc.nfsd", "--no-nfs-version", "3", "--nfs-version", "4.2", "4")


def stop(server: Host) -> None:
    """Stops the server, so that it answers no request."""
    server.run("rpc.nfsd", "0")


def mount(host: Host, server: Host, folder: Path) -> None:
    """Mounts the server's folder on a host, at the same path."""
    host.run("mount", "-t", "nfs4", "-o", "vers=4.2", f"{server.name}:{folder}", str(folder))


def unmount(host: Host, folder: Path) -> None:
    """Unmounts the folder on a host, whether or not the server answers."""
    host.attempt("umount", "--force", "--lazy", str(folder))
