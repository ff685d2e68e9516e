"""Parses one row of sacct into a :class:`agent.jobs.run.Run`. Pure.

The formats of the values were seen on 20.11 to 26.05.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Sequence

from agent.errors import UnreadableRow
from agent.jobs.run import UNKNOWN, Run

#: The fields requested from sacct: those that every version since 17.02 has, and none that a user writes freely.
FIELDS = (
    *("JobID", "JobIDRaw", "Cluster", "User", "UID", "Account", "Partition", "State", "QOS"),
    *("Submit", "Start", "End", "ElapsedRaw", "AllocCPUS", "AllocNodes", "AllocTRES", "NodeList"),
)
#: Where a row has its raw ID and its End.
RAW_ID, END = FIELDS.index("JobIDRaw"), FIELDS.index("End")
#: Requested if this version has it: how often the job had been requeued when the run started.
OPTIONAL_FIELD = "Restarts"

_JOB_ID_SIGNS = "0123456789_+[]-,%.:"
#: Eleven digits of seconds last until the year 5138.
LONGEST_NUMBER = 11
MOST = 1e30

_NO_TIME = frozenset({"", "0", "None", "Unknown"})
#: ``(unknown)`` is what 20.11 and 22.05 print for NULL in the job table.
_NO_NODES = frozenset({"", "None assigned", "(null)", "(unknown)"})
#: ``Unknown`` means that slurmdbd has no QOS of that ID. Real names are in lower case.
_NO_QOS = frozenset({"", "Unknown"})
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}


class Tres(NamedTuple):
    """The allocated TRES that the dashboard counts."""

    gpus: int
    memory_mb: float


def parse_row(values: Sequence[str], row: bytes = b"") -> Run:
    """Makes a Run from the values of :data:`FIELDS`, followed by :data:`OPTIONAL_FIELD` or not.

    :param row: the row as it was printed, to recognize it by later.
    :raises UnreadableRow: if a value is not in the format that sacct prints for its field.
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
        fields = (  # in the order of Run's fields: naming them costs a quarter of the time
            _parse_job_id(job_id),
            _parse_whole(raw_id),
            parse_name(cluster),
            # Up to 23.02 User is empty for a uid that no longer resolves.
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
        what = f"{missing} of {len(FIELDS)} fields missing" if missing > 0 else error
        raise UnreadableRow(f"unreadable row of sacct: {what}", subject=list(values)) from error


@lru_cache(maxsize=4096)
def parse_name(text: str) -> str:
    """A name with its control characters escaped: a user may have put anything into an account.

    One copy of each is kept, since names repeat in thousands of rows.

    >>> parse_name("physics"), parse_name("a\\x1b[2Jb")
    ('physics', 'a\\\\x1b[2Jb')
    """
    return _show(text)


def _show(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _parse_job_id(text: str) -> str:
    """Accepts ``123``, ``123_4``, ``123+1`` and ``123_[5-9,11%2]``, which may be truncated: ``123_[1,3,...]``."""
    if text.strip(_JOB_ID_SIGNS) or not text[:1].isdigit():
        raise ValueError(f"{text[:20]!a} is not a JobID")
    return text


@lru_cache(maxsize=1024)
def parse_state(text: str) -> str:
    """The first word of sacct's State.

    >>> parse_state("CANCELLED by 1000")
    'CANCELLED'
    """
    words = text.split()
    if not words:
        raise ValueError("empty State")
    return _show(words[0]).rstrip("+")


@lru_cache(maxsize=4096)
def parse_count(text: str) -> int:
    """A number as Slurm prints it, possibly with a fraction and a unit based on 1,024; 0 if empty.

    >>> parse_count("64"), parse_count("1K"), parse_count("1.50K")
    (64, 1024, 1536)
    """
    return round(_parse_quantity(text, unit=1)) if text else 0


@lru_cache(maxsize=4096)
def parse_tres(text: str) -> Tres:
    """The GPUs and the memory in an AllocTRES such as ``billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=4000M``.

    Keys are compared in full: ``gres/gpumem`` is not a GPU. The generic ``gres/gpu`` covers every type; if a site
    tracks types only, they are added up. A value that is not a quantity (``NONE``) counts as 0.
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
    """Accepts digits only, at most as many as an ID or a time has. int() would also accept signs and underscores."""
    if text.isdigit() and text.isascii() and len(text) <= LONGEST_NUMBER:
        return int(text)
    raise ValueError(f"{text[:20]!r} is not a number")


def _parse_quantity(text: str, *, unit: int) -> float:
    """A number with an optional K, M, G, T or P; a bare number is multiplied by ``unit``."""
    factor = _UNITS.get(text[-1:].upper())
    quantity = float(text) * unit if factor is None else float(text[:-1]) * factor
    if not 0 <= quantity < MOST:  # also false for NaN
        raise ValueError(f"{text[:20]!r} is not a quantity")
    return quantity


def _parse_time(text: str) -> int | None:
    return None if text in _NO_TIME else _parse_whole(text)
