"""What several controllers of a cluster need: a shared folder with locks that work across hosts."""

from __future__ import annotations

import os
from pathlib import Path

from agent.check.finding import NotWell
from agent.check.host import own_name
from agent.check.mounts import mount_of, sandbox_allows
from agent.config import NAME
from agent.slurm.controller_hosts import Controllers
from agent.spool.shared_folder import SharedFolder

#: Mount options of NFS and Lustre that make locks local to a host, or impossible.
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=posix", "localflock", "noflock"})


def check_controllers(found: Controllers, sandbox: str, mounts: str) -> str:
    """Whether the controllers can take turns to submit; the dashboard has no lock of its own.

    :param sandbox: the flush service's ReadWritePaths, empty if it has none.
    :param mounts: the text of /proc/self/mounts.
    """
    folder = Path(found.common_folder)
    names = " and ".join(host.partition("(")[0] for host in found.hosts)
    try:
        there = SharedFolder(folder).ask(folder.is_dir)
    except OSError as error:
        raise NotWell(
            f"cannot look into {folder}, which {names} need to take turns: {error.strerror}",
            hint="check that StateSaveLocation in slurm.conf is accessible; until then each run sends without a turn",
        ) from error
    if not there:
        raise NotWell(
            f"{folder}, which {names} need to take turns, does not exist",
            hint=f"run install.sh again, or mkdir -m 700 {folder} and chown {own_name()} {folder}",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotWell(
            f"{own_name()} cannot write to {folder}, which {names} need to take turns",
            hint=f"chown {own_name()} {folder}",
        )
    if not sandbox_allows(sandbox, folder):
        raise NotWell(
            f"the services' sandbox blocks {folder}, which {names} need to take turns",
            hint=f"systemctl edit {NAME}.service {NAME}-flush.service: [Service], ReadWritePaths=-{folder}",
        )
    local = sorted(_LOCAL_LOCKS & set(mount_of(folder.resolve(), mounts).options))
    if local:
        raise NotWell(
            f"{folder} is mounted with {local[0]}: a lock there does not block the other controllers",
            hint=f"mount it without {local[0]}; until then run the daily timer on one controller only",
        )
    return f"{names} take turns, using {folder}"
