"""A folder's filesystem, and whether the services' sandbox allows writing to it. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mounts")


class Mount(NamedTuple):
    """A mounted filesystem."""

    kind: str
    options: tuple[str, ...]


def mount_of(path: Path, mounts: str) -> Mount:
    """A path's filesystem.

    :param mounts: the text of :data:`MOUNTS`.

    >>> mount_of(Path("/var/spool"), "a / ext4 rw 0 0\\nb /var nfs4 rw,nolock 0 0\\nc /va xfs rw 0 0")
    Mount(kind='nfs4', options=('rw', 'nolock'))
    """
    depth, found = 0, Mount("unknown", ())
    for line in mounts.splitlines():
        _, point, kind, options, *_ = line.split()
        place = Path(point.replace("\\040", " "))
        if (place == path or place in path.parents) and len(place.parts) >= depth:
            depth, found = len(place.parts), Mount(kind, tuple(options.split(",")))
    return found


def sandbox_allows(sandbox: str, folder: Path) -> bool:
    """Whether the services may write to a folder.

    :param sandbox: the flush service's ReadWritePaths, empty if it has none.

    >>> sandbox_allows("/var/spool/x -/srv", Path("/srv/metrics")), sandbox_allows("/var/spool/x", Path("/srv"))
    (True, False)
    """
    allowed = [Path(place.lstrip("-+")) for place in sandbox.split()]
    return not allowed or any(place == folder or place in folder.parents for place in allowed)
