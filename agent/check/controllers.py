"""What several controllers of one cluster need: a folder that they share, with locks that reach across hosts."""

from __future__ import annotations

import os
from pathlib import Path

from agent.check.finding import NotWell
from agent.check.host import own_name
from agent.check.mounts import mount_of, sandbox_allows
from agent.config import NAME
from agent.slurm.controllers import Controllers
from agent.spool.shared_folder import SharedFolder

#: Mount options of NFS and Lustre with which a lock is one host's alone, or can't be had.
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=posix", "localflock", "noflock"})


def check_controllers(found: Controllers, sandbox: str, mounts: str) -> str:
    """Whether the controllers can take turns at the dashboard, which has no lock of its own.

    :param sandbox: the flush service's ReadWritePaths, empty where it has none.
    :param mounts: as /proc/self/mounts has them.
    """
    folder = Path(found.common_folder)
    names = " and ".join(host.partition("(")[0] for host in found.hosts)
    try:
        there = SharedFolder(folder).ask(folder.is_dir)
    except OSError as error:
        raise NotWell(
            f"can't look into {folder}, by which {names} take turns: {error.strerror}",
            hint="see that slurm.conf's StateSaveLocation answers; until then each run sends without a turn",
        ) from error
    if not there:
        raise NotWell(
            f"there is no folder {folder}, by which {names} take turns",
            hint=f"run install.sh again, or mkdir -m 700 {folder} and chown {own_name()} {folder}",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotWell(
            f"{own_name()} can't write to {folder}, by which {names} take turns", hint=f"chown {own_name()} {folder}"
        )
    if not sandbox_allows(sandbox, folder):
        raise NotWell(
            f"the services' sandbox keeps them from {folder}, by which {names} take turns",
            hint=f"systemctl edit {NAME}.service {NAME}-flush.service: [Service], ReadWritePaths=-{folder}",
        )
    local = sorted(_LOCAL_LOCKS & set(mount_of(folder.resolve(), mounts).options))
    if local:
        raise NotWell(
            f"{folder} is mounted with {local[0]}: a lock there does not reach the other controllers",
            hint=f"mount it without {local[0]}; until then let the daily timer run on one controller alone",
        )
    return f"{names} take turns by {folder}"
