"""slurmdbd's job table, filled with generated rows."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from tests.proof.histories import NO_TASK, Owner, Row
from tests.support.slurm import Slurm

INSERTED_AT_ONCE = 500
GONE_UID = 4_000_001
ACCOUNTS = ("physics", "astro")
UIDS = {"nobody": 65534, "games": 5}


class Gpus(NamedTuple):
    """TRES ids."""

    generic: str
    a100: str
    h100: str


def prepare_accounting(slurm: Slurm) -> None:
    """Accounts and users that jobs can belong to."""
    slurm.sacctmgr("add", "account", ",".join(ACCOUNTS), "Organization=lab", "Description=lab")
    slurm.sacctmgr("add", "user", ",".join(UIDS), f"account={','.join(ACCOUNTS)}")


def owners(slurm: Slurm) -> list[Owner]:
    """Users with an association, one of them unknown to the host, and a uid without one."""
    names = ",".join(f"'{name}'" for name in UIDS)
    members = slurm.sql(f"select id_assoc, acct, user from {slurm.cluster}_assoc_table where user in ({names})")
    known = [Owner(row["acct"].encode(), UIDS[row["user"]], int(row["id_assoc"])) for row in members]
    return [*known, known[0]._replace(id_user=GONE_UID), Owner(None, GONE_UID, 0)]


def gpu_ids(slurm: Slurm) -> Gpus:
    names = "'gpu', 'gpu:a100', 'gpu:h100'"
    rows = slurm.sql(f"select id from tres_table where type = 'gres' and name in ({names}) order by name")
    return Gpus(*(row["id"] for row in rows))


def fill(slurm: Slurm, rows: list[Row]) -> None:
    """Replaces all rows of the accounting, and their suspensions."""
    jobs, suspensions = f"{slurm.cluster}_job_table", f"{slurm.cluster}_suspend_table"
    fixed = {
        "cpus_req": 1,
        "id_resv": 0,
        "id_wckey": 0,
        "id_group": 0,
        "state_reason_prev": 0,
        "priority": 1,
        **({"track_steps": 0} if slurm.version < (21, 0) else {}),  # a column of 20.11 without a default
    }
    columns = [name for name in Row._fields if name != "restart_cnt" or has_restarts(slurm)]
    names = [f"`{name}`" for name in (*columns, *fixed, "mod_time", "time_eligible", "tres_req", "node_inx")]
    slurm.sql(f"truncate table {jobs}; truncate table {suspensions}")
    for start in range(0, len(rows), INSERTED_AT_ONCE):
        values = (_values(row, columns, fixed) for row in rows[start : start + INSERTED_AT_ONCE])
        # In UTF-8 columns MariaDB truncates text at an invalid byte, as it does for slurmdbd.
        slurm.sql(f"set sql_mode = ''; insert into {jobs} ({','.join(names)}) values {','.join(values)}")
    slurm.sql(
        f"insert into {suspensions} (job_db_inx, id_assoc, time_start, time_end)"
        f" select job_db_inx, id_assoc, time_start, time_start + time_suspended from {jobs} where time_suspended > 0"
    )


def has_restarts(slurm: Slurm) -> bool:
    """Whether slurmdbd counts requeues."""
    return bool(slurm.sql(f"show columns from {slurm.cluster}_job_table like 'restart_cnt'"))


def queue_line(row: Row) -> str:
    """The line that the hook writes for the end of this row."""
    task = row.id_array_task if row.id_array_job == row.id_job and row.id_array_task != NO_TASK else "-"
    return f"\n{row.id_job} {row.time_submit} {row.time_end} {task}\n"


def _values(row: Row, columns: Sequence[str], fixed: dict[str, int]) -> str:
    eligible = row.time_submit or row.time_start
    texts = [
        *(_quoted(getattr(row, name)) for name in columns),
        *map(str, fixed.values()),
        str(row.time_end or eligible),
        str(eligible),
        "'1=1'",
        "'0'",
    ]
    return f"({','.join(texts)})"


def _quoted(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return str(value) if isinstance(value, int) else f"'{value}'"
