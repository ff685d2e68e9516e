"""Slurm's own report of usage, and the same computed from a dashboard's records."""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterable, Mapping, Sequence

from tests.support.slurm import Slurm

HOUR, DAY = 3600, 86_400


def read_sreport(slurm: Slurm, first: int, end: int, gpus: list[str]) -> Counter[tuple[str, str, str]]:
    """(account, user, cpu or gpu) → seconds, after slurmdbd has added up the hours once more.

    sreport shows no hours before the cluster's registration, so the registration is moved back.
    """
    kinds = [f"{kind}_{span}" for kind in ("assoc_usage", "usage") for span in ("hour", "day", "month")]
    slurm.sql("".join(f"truncate table {slurm.cluster}_{kind}_table;" for kind in kinds))
    slurm.sql(f"update {slurm.cluster}_event_table set time_start = {first - DAY} where node_name = ''")
    slurm.sacctmgr("rollup", f"uts{first}", f"uts{end}")
    report = ("cluster", "AccountUtilizationByUser", f"start=uts{first}", f"end=uts{end}")
    columns = "format=Accounts,Login,TRESName,Used"
    text = slurm.run("sreport", "-n", "-P", "-t", "Seconds", "-T", ",".join(["cpu", *gpus]), *report, columns)
    usage: Counter[tuple[str, str, str]] = Counter()
    for account, user, tres, seconds in (line.split("|") for line in text.splitlines()):
        if user:  # without one, it is the account's sum
            usage[account, user, "cpu" if tres == "cpu" else "gpu"] += int(seconds)
    return +usage


def usage_shown(records: Iterable[Mapping[str, Any]], accounts: Sequence[str]) -> Counter[tuple[str, str, str]]:
    """The same from the dashboard's records: sreport includes only those of real accounts."""
    usage: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        if record["Account"] in accounts:
            usage[record["Account"], record["User"], "cpu"] += round(record["CPUHours"] * HOUR)
            usage[record["Account"], record["User"], "gpu"] += round(record["GPUHours"] * HOUR)
    return +usage
