"""Ties a spool to one host and one instance: two that share a spool would take each other's jobs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agent.errors import SpoolError
from agent.wording import span

MARK = "host"
#: Another host may use the spool once its owner has not run for this long: flush runs every five minutes.
LEFT_SECONDS = 900.0
_LONGEST_NAME = 4096


def claim_for_host(spool: Path, host: str, now: float, instance: str = "") -> None:
    """Marks a spool as used by this host, and by one instance on it.

    A mark that can't be written, for example on a full disk, is not an error here: whatever writes next reports it.

    :param now: epoch seconds.
    :param instance: empty for the host's default instance.
    :raises SpoolError: if another host has used it recently, or another instance ever has.
    """
    mark = spool / MARK
    name = f"{host}@{instance}" if instance else host
    owner = read_mark(mark)
    if owner and owner[0] != name:
        _check_owner(mark, owner, host, now)
    with suppress(OSError):
        if not owner or owner[0] != name:
            mark.unlink(missing_ok=True)  # a link would lead elsewhere, a FIFO would block
            mark.write_text(f"{name}\n", encoding="utf-8")
        os.utime(mark, (now, now))


def _check_owner(mark: Path, owner: tuple[str, float], host: str, now: float) -> None:
    """Another host may take over an unused spool. Another instance may not: some run only once a day."""
    other, _, instance = owner[0].partition("@")
    if other == host:
        raise SpoolError(
            f"the spool {mark.parent} belongs to {f'the instance {instance}' if instance else 'the host itself'}",
            hint="remove spool_dir and SLURM_USAGE_HISTORY_SPOOL, so that each instance uses its own spool; "
            f"to hand this one over, remove {mark}",
        )
    if abs(now - owner[1]) < LEFT_SECONDS:
        raise SpoolError(
            f"the spool {mark.parent} is shared with {other}, which used it {span(abs(now - owner[1]))} ago",
            hint="each host needs its own spool on a local disk: SLURM_USAGE_HISTORY_SPOOL=DIR ./install.sh; "
            f"if {other} is this host under an earlier name, remove {mark}",
        )


def read_mark(mark: Path) -> tuple[str, float] | None:
    """The host that has marked the spool, and when it last ran there, in epoch seconds; None if there is no mark."""
    with suppress(OSError), open(mark, "rb", buffering=0, opener=_open_at_once) as file:
        host = (file.read(_LONGEST_NAME) or b"").decode("utf-8", "replace").strip()
        return (host, os.fstat(file.fileno()).st_mtime) if host else None
    return None


def _open_at_once(path: str, flags: int) -> int:
    """Opens a file, but follows no link and waits for no writer of a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
