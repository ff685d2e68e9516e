"""What the dashboard must contain, computed from slurmdbd's job table with plain SQL, without code of the exporter."""

from __future__ import annotations

import pwd
import time
from typing import Any, Callable, Dict, Iterable, Iterator, NamedTuple, Protocol

NO_TASK = "4294967294"  # NO_VAL
#: The states of a row that has ended: not PENDING, RUNNING or SUSPENDED.
STATES = {
    "3": "COMPLETED",
    "4": "CANCELLED",
    "5": "FAILED",
    "6": "TIMEOUT",
    "7": "NODE_FAIL",
    "8": "PREEMPTED",
    "9": "BOOT_FAIL",
    "10": "DEADLINE",
    "11": "OUT_OF_MEMORY",
}
#: A job with such a row continues. If no newer row appears for a day, slurmctld has lost the job, as in these labs.
GOES_ON = {"1024": "REQUEUED", "8192": "RESIZING"}
REVOKED = str(0x80000)  # ran on another cluster
DAY = 86_400
#: Runs that ended this long before the job's newest one do not count.
REACH_SECONDS = 365 * DAY
CPU, MEMORY_MB, NODE = "1", "2", "4"  # the TRES with ids that are the same everywhere

#: An account may contain anything, even newlines; slurmdbd reads it as UTF-8, regardless of the table's character set.
COLUMNS = (
    "id_job, job_name, state, time_submit, time_start, time_end, time_suspended, tres_alloc, nodelist, id_array_job,"
    " id_array_task, array_task_str, array_max_tasks, het_job_id, het_job_offset,"
    " hex(convert(account using utf8mb4)) account, id_user, id_assoc, `partition`, id_qos"
)

Row = Dict[str, str]
Tres = Dict[str, int]


class Database(Protocol):
    """The part of a lab's Slurm that this module uses."""

    cluster: str

    def sql(self, statements: str) -> list[Row]:
        """Runs SQL on slurmdbd's database."""


class Names(NamedTuple):
    """The names of IDs."""

    qos: dict[str, str]
    gpu: dict[str, str]  # TRES id → gpu or gpu:a100
    user: dict[str, str]  # by association, which outlives the user


def expected_records(database: Database) -> dict[str, dict[str, Any]]:
    """JobID → record, for every job whose newest row has ended."""
    return {record["JobID"]: record for record in _records(database)}


def expected_stored(
    database: Database, *, is_shown: Callable[[int, int], bool] = lambda id_job, job_name: True
) -> dict[tuple[str, int, str], dict[str, Any]]:
    """What the dashboard stores: for each JobID and each year of Submit, the newest job's record.

    :param is_shown: leaves jobs out, by raw ID and name, where names are numbers.
    """
    records = _records(database, lambda row: is_shown(int(row["id_job"]), int(row["job_name"])))
    return {(database.cluster, int(record["Submit"][:4]), record["JobID"]): record for record in records}


def _records(database: Database, is_shown: Callable[[Row], bool] = lambda row: True) -> Iterator[dict[str, Any]]:
    """In the order of their newest Submit. A job is its raw ID and its name: an ID may have had another owner.

    A job whose name a killed slurmctld never reported has slurmdbd's placeholder, and counts as a job of its own.
    """
    rows_of: dict[tuple[str, str], list[Row]] = {}
    table = f"{database.cluster}_job_table"
    for row in database.sql(f"select {COLUMNS} from {table} where deleted = 0 order by time_submit"):
        name = row["time_submit"] if row["job_name"] == "allocation" else row["job_name"]
        rows_of.setdefault((row["id_job"], name), []).append(row)
    qos = {row["id"]: row["name"] for row in database.sql("select id, name from qos_table")}
    gpus = {row["id"]: row["name"] for row in database.sql("select id, name from tres_table where type = 'gres'")}
    members = database.sql(f"select id_assoc, user from {database.cluster}_assoc_table where user != ''")
    names = Names(qos, gpus, {row["id_assoc"]: row["user"] for row in members})
    for rows in sorted(rows_of.values(), key=lambda rows: (int(rows[-1]["time_submit"]), int(rows[-1]["time_end"]))):
        here = _rows_here(rows)
        if here and is_shown(here[-1]):
            yield _make_record(here, database.cluster, names)


def _rows_here(rows: list[Row]) -> list[Row]:
    """The rows that count for a job that is over; none if it continues, or never ran on this cluster."""
    newest = rows[-1]
    first_end = int(newest["time_end"]) - REACH_SECONDS
    counted = [row for row in rows if int(row["time_end"]) >= first_end]
    if newest["state"] == REVOKED:
        return counted[:-1] if any(map(_elapsed, counted[:-1])) else []
    is_lost = newest["state"] in GOES_ON and int(newest["time_end"]) < time.time() - DAY
    return counted if newest["state"] in STATES or is_lost else []


def _make_record(rows: list[Row], cluster: str, names: Names) -> dict[str, Any]:
    newest = rows[-1]
    ran = _has_started(newest)
    tres = _parse_tres(newest) if ran else {}
    end = int(newest["time_end"])
    start = int(newest["time_start"]) if ran else end
    submit = int(newest["time_submit"]) or start
    return {
        "JobID": _job_id(newest),
        "User": names.user.get(newest["id_assoc"]) or _user(newest["id_user"]),
        "Account": "unknown" if newest["account"] in ("", "NULL") else _legible(bytes.fromhex(newest["account"])),
        "Partition": "unknown" if newest["partition"] in ("", "NULL") else newest["partition"],
        "State": {**STATES, **GOES_ON}[newest["state"]],
        "QOS": names.qos.get(newest["id_qos"]),
        "NodeList": unfold_nodes(newest["nodelist"]) if _has_nodes(newest) else "",
        "Submit": _local(submit),
        "Start": _local(start),
        "End": _local(end),
        "CPUHours": sum(_elapsed(row) * _parse_tres(row).get(CPU, 0) for row in rows) / 3600,
        "GPUHours": sum(_elapsed(row) * _gpus(_parse_tres(row), names.gpu) for row in rows) / 3600,
        "AllocCPUS": tres.get(CPU, 0),
        "AllocGPUS": _gpus(tres, names.gpu),
        "AllocNodes": tres.get(NODE, 0),
        "AllocMemoryMB": float(tres.get(MEMORY_MB, 0)),
        "WaitingTimeHours": (start - submit) / 3600 if start > submit else 0.0,
        "ElapsedHours": _elapsed(newest) / 3600,
        "Cluster": cluster,
    }


def _legible(name: bytes) -> str:
    """A name as UTF-8, with control characters escaped: ``a\\nb``."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in name.decode(errors="replace"))


def unfold_nodes(folded: str) -> str:
    """n[1-2,5] → n1,n2,n5: a lab's nodes have one letter and a number."""
    prefix, _, numbers = folded.rstrip("]").partition("[")
    spans = (span.split("-") for span in numbers.split(",") if span)
    names = [f"{prefix}{number}" for span in spans for number in range(int(span[0]), int(span[-1]) + 1)]
    return ",".join(names) if names else folded


def _has_started(row: Row) -> bool:
    """Whether a job started: one cancelled while pending has no start, or one equal to its end, and no node."""
    return row["time_start"] != "0" and (_has_nodes(row) or row["time_start"] != row["time_end"])


def _has_nodes(row: Row) -> bool:
    """Whether the row has a node list; that of a job that ran may be lost."""
    return row["nodelist"] not in ("", "None assigned", "NULL", "(null)")


def _elapsed(row: Row) -> int:
    """Seconds, as sacct's ElapsedRaw: without suspension."""
    if not _has_started(row):
        return 0
    return int(row["time_end"]) - int(row["time_start"]) - int(row["time_suspended"])


def _job_id(row: Row) -> str:
    """The JobID in sacct's form: 12, 12_3, 12+1 or 12_[1,3-5%2]."""
    if row["array_task_str"] not in ("", "NULL"):
        tasks = _fold(bit for bit, is_set in enumerate(bin(int(row["array_task_str"], 16))[:1:-1]) if is_set == "1")
        limit = f"%{row['array_max_tasks']}" if row["array_max_tasks"] != "0" else ""
        return f"{row['id_array_job']}_[{tasks}{limit}]"
    if row["id_array_task"] != NO_TASK:
        return f"{row['id_array_job']}_{row['id_array_task']}"
    if row["het_job_id"] != "0":
        return f"{row['het_job_id']}+{row['het_job_offset']}"
    return row["id_job"]


def _fold(numbers: Iterable[int]) -> str:
    """1, 3, 4, 5 → ``1,3-5``. (Slurm writes evenly spaced numbers differently.)"""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ",".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)


def _user(uid: str) -> str:
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return uid


def _parse_tres(row: Row) -> Tres:
    pairs = (item.split("=") for item in row["tres_alloc"].split(",") if "=" in item)
    return {number: int(count) for number, count in pairs}


def _gpus(tres: Tres, names: dict[str, str]) -> int:
    """The GPUs: gres/gpu counts all types; if it is not tracked, the types are added up."""
    by_name = {names[number]: count for number, count in tres.items() if number in names}
    typed = sum(count for name, count in by_name.items() if name.startswith("gpu:"))
    return by_name.get("gpu", typed)


def _local(epoch_seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(epoch_seconds))
