"""One row of sacct becomes a :class:`agent.jobs.run.Run`. Pure: text in, values out.

What the values look like in which version of Slurm was seen on 20.11 to 26.05.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Sequence

from agent.errors import UnreadableRow
from agent.jobs.run import UNKNOWN, Run

#: What sacct is asked for: in every version since 17.02, and nothing that a user writes.
FIELDS = (
    "JobID",
    "JobIDRaw",
    "Cluster",
    "User",
    "UID",
    "Account",
    "Partition",
    "State",
    "QOS",
    "Submit",
    "Start",
    "End",
    "ElapsedRaw",
    "AllocCPUS",
    "AllocNodes",
    "AllocTRES",
    "NodeList",
)
#: Asked for where this version has it: how often the job had been requeued when the run began.
OPTIONAL_FIELD = "Restarts"

_JOB_ID_SIGNS = "0123456789_+[]-,%.:"
#: Eleven digits of seconds reach to the year 5138.
LONGEST_NUMBER = 11
MOST = 1e30

_NO_TIME = frozenset({"", "0", "None", "Unknown"})
#: ``(unknown)`` stands for what is NULL in the job table (20.11 and 22.05).
_NO_NODES = frozenset({"", "None assigned", "(null)", "(unknown)"})
#: For an id that slurmdbd knows no QOS of. Names that admins give are lower case.
_NO_QOS = frozenset({"", "Unknown"})
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}


class Tres(NamedTuple):
    """What a run was allocated, of what the dashboard counts."""

    gpus: int
    memory_mb: float


def parse_row(values: Sequence[str], row: bytes = b"") -> Run:
    """Makes a Run of the values of :data:`FIELDS`, with or without :data:`OPTIONAL_FIELD` behind them.

    :param row: all of them as they were printed, to recognize the row by.
    :raises UnreadableRow: where a value is not what sacct prints for its field.
    """
    try:
        (
            job_id,
            raw_id,
            cluster,
            user,
            uid,
            account,
            partition,
            state,
            qos,
            submit,
            start,
            end,
            elapsed,
            cpus,
            nodes,
            tres,
            node_list,
            *restarts,
        ) = values
        allocated = parse_tres(tres)
        fields = (  # in the order of Run's: to name them takes a quarter of the time for a row
            _parse_job_id(job_id),
            _parse_whole(raw_id),
            parse_name(cluster),
            # Up to 23.02 the User of a uid that no longer resolves is empty.
            parse_name(user or uid or UNKNOWN),
            parse_name(uid),
            parse_name(account or UNKNOWN),
            parse_name(partition or UNKNOWN),
            parse_state(state),
            None if qos in _NO_QOS else parse_name(qos),
            _parse_time(submit) or 0,
            _parse_time(start),
            _parse_time(end),
            _parse_whole(elapsed or "0"),
            parse_count(cpus),
            parse_count(nodes),
            allocated.gpus,
            allocated.memory_mb,
            None if node_list in _NO_NODES else _show(node_list),
            int(restarts[0] or 0) if restarts else None,
            row,
        )
        return Run._make(fields)
    except ValueError as error:
        missing = len(FIELDS) - len(values)
        what = f"{missing} of its {len(FIELDS)} fields are missing" if missing > 0 else error
        raise UnreadableRow(f"unreadable row of sacct: {what}", subject=list(values)) from error


@lru_cache(maxsize=4096)
def parse_name(text: str) -> str:
    """A name, of which one copy is held, as it repeats in thousands of rows.

    An account may be anything that a user has typed; what would move a cursor or end a line is written out.

    >>> parse_name("physics"), parse_name("a\\x1b[2Jb")
    ('physics', 'a\\\\x1b[2Jb')
    """
    return _show(text)


def _show(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _parse_job_id(text: str) -> str:
    """``123``, ``123_4``, ``123+1`` or ``123_[5-9,11%2]``, which may be cut: ``123_[1,3,...]``."""
    if text.strip(_JOB_ID_SIGNS) or not text[:1].isdigit():
        raise ValueError(f"{text[:20]!a} is no JobID")
    return text


@lru_cache(maxsize=1024)
def parse_state(text: str) -> str:
    """The bare word of sacct's State.

    >>> parse_state("CANCELLED by 1000")
    'CANCELLED'
    """
    words = text.split()
    if not words:
        raise ValueError("empty State")
    return _show(words[0]).rstrip("+")


@lru_cache(maxsize=4096)
def parse_count(text: str) -> int:
    """A number as Slurm prints it, with a unit of 1,024 and a fraction where there is one; 0 for none.

    >>> parse_count("64"), parse_count("1K"), parse_count("1.50K")
    (64, 1024, 1536)
    """
    return round(_parse_quantity(text, unit=1)) if text else 0


@lru_cache(maxsize=4096)
def parse_tres(text: str) -> Tres:
    """The GPUs and the memory in an AllocTRES such as ``billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=4000M``.

    Keys are compared whole: ``gres/gpumem`` is no GPU. The generic ``gres/gpu`` counts every type; where a site
    tracks only types, they are added up. A value that is no quantity (``NONE``) counts nothing.
    """
    generic: int | None = None
    typed = 0
    memory_mb = 0.0
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key not in {"mem", "gres/gpu"} and not key.startswith("gres/gpu:"):
            continue
        if not value[:1].isdigit():
            continue
        if key == "mem":
            memory_mb = _parse_quantity(value, unit=_UNITS["M"]) / _UNITS["M"]
        elif key == "gres/gpu":
            generic = parse_count(value)
        else:
            typed += parse_count(value)
    return Tres(typed if generic is None else generic, memory_mb)


def _parse_whole(text: str) -> int:
    """Digits alone, and no more of them than an ID or an instant has; int() would take signs and underscores, too."""
    if text.isdigit() and text.isascii() and len(text) <= LONGEST_NUMBER:
        return int(text)
    raise ValueError(f"{text[:20]!r} is no number")


def _parse_quantity(text: str, *, unit: int) -> float:
    """A number with an optional K, M, G, T or P; ``unit`` is what a bare number counts in."""
    factor = _UNITS.get(text[-1:].upper())
    quantity = float(text) * unit if factor is None else float(text[:-1]) * factor
    if not 0 <= quantity < MOST:  # false for what is no number, too
        raise ValueError(f"{text[:20]!r} is no quantity")
    return quantity


def _parse_time(text: str) -> int | None:
    return None if text in _NO_TIME else _parse_whole(text)
