"""Jobs in a federation, and what ran on which cluster according to Slurm."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import NamedTuple

from tests.ha.load import FEDERATION, Submitting
from tests.ha.sites import Federation, wait_until
from tests.ha.truth import Comparison, compare, overdue


class ClusterResult(NamedTuple):
    """One cluster of the federation."""

    comparison: Comparison
    revoked: int
    hours_told: float  # CPU-hours on the dashboard
    hours_run: float  # by the job table: all runs of jobs that ended here

    @property
    def hours_missing(self) -> float:
        return self.hours_run - self.hours_told


def federate(site: Federation, seconds: float, *, rest_seconds: float = 120) -> dict[str, ClusterResult]:
    """Runs jobs on both clusters for some time, flushing every five seconds, and waits until all have ended.

    :param rest_seconds: how long to wait for jobs; a requeued one may start again only after two minutes.
    """
    with ExitStack() as stack:
        for name in site.clusters:
            site.exporters[name].flush_every(5)
            stack.enter_context(Submitting(site.lan.hosts[name], FEDERATION, pause_seconds=0.3))
        time.sleep(seconds)
    wait_until("no jobs", lambda: not _alive(site), limit_seconds=rest_seconds)
    for exporter in site.exporters.values():
        exporter.stop()
    wait_until("delivery", lambda: all(_is_delivered(site, name) for name in site.clusters), limit_seconds=90)
    return {name: _result(site, name) for name in site.clusters}


def _is_delivered(site: Federation, name: str) -> bool:
    """Flushes once more: slurmctld may still call the hook, or report to slurmdbd, when no job is left."""
    site.exporters[name].run("flush")
    return not overdue(site, name, [name]) and not compare(site, name).lost


def _alive(site: Federation) -> str:
    return "".join(site.lan.hosts[name].attempt("squeue", "-h", "--local").stdout for name in site.clusters)


def _result(site: Federation, name: str) -> ClusterResult:
    revoked = "state & 524288"
    rows = site.sql(
        f"select count(*) from {name}_job_table where {revoked} union all select ifnull(sum((time_end - time_start)"
        f" * substring_index(substring_index(tres_alloc, '1=', -1), ',', 1)), 0) from {name}_job_table"
        f" where not {revoked} and time_end and time_start and nodelist != 'None assigned'"
        f" and id_job not in (select id_job from {name}_job_table where not time_end or not {revoked} and state < 3)"
    )
    reported = sum(record["CPUHours"] for key, record in site.board.stored.items() if key[0] == name)
    return ClusterResult(compare(site, name), int(rows[0][0]), reported, float(rows[1][0]) / 3600)
