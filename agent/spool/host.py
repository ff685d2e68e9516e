"""Whose host's the spool is: two hosts that work on one spool take each other's jobs and ruin each other's ledger."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agent.errors import SpoolError
from agent.wording import span

MARK = "host"
#: A host that has not run for so long has left the spool to another: flush runs every five minutes.
LEFT_SECONDS = 900.0


def claim_for_host(spool: Path, host: str, now: float) -> None:
    """Marks a spool as this host's.

    What can't be written, as where the disk is full, is left to whatever needs the spool next.

    :param now: epoch seconds.
    :raises SpoolError: where another host has worked on it lately.
    """
    mark = spool / MARK
    owner = read_mark(mark)
    if owner and owner[0] != host and abs(now - owner[1]) < LEFT_SECONDS:
        raise SpoolError(
            f"the spool {spool} is shared with {owner[0]}, which has used it {span(abs(now - owner[1]))} ago",
            hint="each host needs a spool on a disk of its own: SLURM_USAGE_HISTORY_SPOOL=DIR ./install.sh; "
            f"if {owner[0]} is this host under an earlier name, remove {mark}",
        )
    with suppress(OSError):
        if not owner or owner[0] != host:
            mark.unlink() if mark.is_symlink() else None
            mark.write_text(f"{host}\n", encoding="utf-8")
        os.utime(mark, (now, now))


def read_mark(mark: Path) -> tuple[str, float] | None:
    """The host that has marked the spool, and when it has last run there, in epoch seconds; None where none has."""
    try:
        host = mark.read_text(encoding="utf-8", errors="replace").strip()
        return (host, mark.stat().st_mtime) if host else None
    except OSError:
        return None
