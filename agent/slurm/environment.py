"""The clean environment of a child process. Pure."""

from __future__ import annotations

from typing import Mapping

#: The variables that a child inherits. Any other one, set by a shell or a unit, could change what Slurm prints.
INHERITED = ("LD_LIBRARY_PATH", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_SOCKET")
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/opt/slurm/bin"


def make_environment(environ: Mapping[str, str], **changes: str) -> dict[str, str]:
    """The environment of a child: a PATH, UTF-8, what Slurm needs to find its controller, and ``changes``."""
    inherited = {name: environ[name] for name in INHERITED if name in environ}
    path = environ.get("PATH") or DEFAULT_PATH
    return {"PATH": path, "LC_ALL": "C.UTF-8", **inherited, **changes}
