"""The command line of sacct: which rows it selects, by ID or by the time they ended. Pure."""

from __future__ import annotations

import re
from typing import Sequence

#: With these states and both bounds, sacct returns exactly the rows that ended between them, both bounds included,
#: even those cancelled while held. Every version knows these names; a single unknown one would fail the whole call.
ALL_ENDS = "BF,CA,CD,DL,F,NF,OOM,PR,TO,RQ,RS"
#: The states of rows whose job continues, or may continue, in a newer one.
GOING_ON = "RQ,RS,PR,NF"
#: MariaDB looks up this many IDs one by one. Above its eq_range_index_dive_limit of 200 it reads all rows that ended
#: since the start time: with five million of them, that takes 5 s instead of 0.2 s.
IDS_PER_CALL = 190
#: ``uts`` with a smaller number fails the whole call (seen on 20.11 to 26.05).
EARLIEST_SECONDS = 1_000_000
_ASKED = re.compile(r"[0-9]+(_[0-9]+)?", re.ASCII)


def make_sacct_argv(
    sacct: str, fields: Sequence[str], *selection: str, separator: str, cluster: str | None = None
) -> list[str]:
    """The command line for the jobs of all users: every run, without steps.

    :param cluster: Slurm's name of the cluster, None for the one in this host's slurm.conf.
    """
    return [
        sacct,
        "--allusers",
        f"--clusters={cluster}" if cluster else "--local",  # not the other clusters of a federation
        "--duplicates",
        "--allocations",
        "--parsable2",
        f"--delimiter={separator}",
        "--noconvert",
        f"--format={','.join(fields)}",
        *selection,
    ]


def make_window_selection(start: int, end: int, states: str = ALL_ENDS) -> tuple[str, ...]:
    """Selects the rows that ended from ``start`` to ``end``, both inclusive, in epoch seconds."""
    return f"--state={states}", f"--starttime={_uts(start)}", f"--endtime={_uts(end)}"


def make_ids_selection(asked: Sequence[str], since: int) -> tuple[str, ...]:
    """Selects jobs by ID, back to ``since`` (epoch seconds).

    :param asked: raw JobIDs, or ARRAYJOBID_TASK. An invalid one would fail the whole call; an empty list would select
        everything of today.
    """
    wrong = [text for text in asked if not _ASKED.fullmatch(text)]
    if wrong or not asked:
        raise ValueError(f"no valid JobIDs to ask for: {wrong!r}")
    return f"--starttime={_uts(since)}", f"--jobs={','.join(asked)}"


def _uts(epoch_seconds: int) -> str:
    return f"uts{max(epoch_seconds, EARLIEST_SECONDS)}"
