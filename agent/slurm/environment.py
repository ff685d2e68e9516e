"""The clean environment of a child process, and the slurm.conf that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

#: The variables that a child inherits. Any other one, set by a shell or a unit, could change what Slurm prints.
INHERITED = ("LD_LIBRARY_PATH", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_SOCKET")
#: Where Slurm's packages expect slurm.conf.
USUAL_PLACES = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/opt/slurm/etc/slurm.conf")
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/opt/slurm/bin"


def make_environment(environ: Mapping[str, str], **changes: str) -> dict[str, str]:
    """The environment of a child: a PATH, UTF-8, what Slurm needs to find its controller, and ``changes``."""
    inherited = {name: environ[name] for name in INHERITED if name in environ}
    path = environ.get("PATH") or DEFAULT_PATH
    return {"PATH": path, "LC_ALL": "C.UTF-8", **inherited, **changes}


def find_slurm_conf(environ: Mapping[str, str]) -> Path | None:
    """The file that Slurm's commands read on this host; None if they fetch it from slurmctld instead."""
    places = [environ["SLURM_CONF"]] if environ.get("SLURM_CONF") else USUAL_PLACES
    return next((Path(place) for place in places if Path(place).is_file()), None)
