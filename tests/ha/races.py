"""Two hosts that send at the same time, to a dashboard that rewrites a year's file without a lock."""

from __future__ import annotations

import time

from tests.ha.load import Submitting
from tests.ha.sites import Exporter, Pair
from tests.ha.truth import Comparison, compare
from tests.support.waiting import wait_for

_PLAIN = r"""
while [ ! -e "$STOP" ]; do sbatch --uid=65534 -o /dev/null --chdir=/tmp --wrap true; sleep "$PAUSE"; done
"""


def add_old_jobs(pair: Pair, number: int, *, hours_ago: float = 3) -> None:
    """Puts finished jobs of some hours ago into the accounting, for a reconcile to have something to do."""
    end = int(time.time() - hours_ago * 3600)
    pair.sql(
        f"insert into {pair.cluster}_job_table (job_db_inx, mod_time, account, cpus_req, job_name, id_assoc, id_job,"
        " id_qos, id_resv, id_wckey, id_user, id_group, state_reason_prev, het_job_id, het_job_offset, `partition`,"
        " priority, state, time_submit, time_eligible, time_start, time_end, nodelist, node_inx, nodes_alloc,"
        " tres_alloc, tres_req)"
        f" select 10000000 + seq, {end}, 'acct', 1, 'old', 0, 5000000 + seq, 1, 0, 0, 65534, 65534, 0, 0, 4294967294,"
        f" 'main', 1, 3, {end} - 60 - seq % 600, {end} - 60 - seq % 600, {end} - 60 - seq % 600, {end} - seq % 600,"
        f" 'n1', '0', 1, '1=1,2=100,4=1', '1=1' from seq_1_to_{number}"
    )


def race(
    pair: Pair, *, seconds: float, rewrite_seconds: float, flush_seconds: float, pause_seconds: float
) -> Comparison:
    """Jobs for some seconds; flush on ctl1, which is in control, all the while; one long reconcile on ctl2.

    :param pause_seconds: between two jobs.
    :returns: what is wrong when both have done, of what ended since the beginning.
    """
    began = time.time()
    pair.board.rewrite_seconds = rewrite_seconds
    flushing = pair.exporters["ctl1"]
    flushing.flush_every(flush_seconds)
    with Submitting(pair.nodes, _PLAIN, pause_seconds=pause_seconds):
        deadline = time.monotonic() + seconds
        pair.exporters["ctl2"].run("reconcile")
        time.sleep(max(deadline - time.monotonic(), 0))
    time.sleep(2 * flush_seconds + 2 * rewrite_seconds)
    flushing.stop()
    pair.board.rewrite_seconds = 0.0
    wait_for(lambda: _is_done(flushing), "the last jobs", limit_seconds=60, pause_seconds=1)
    return compare(pair, pair.cluster, since=began)


def _is_done(exporter: Exporter) -> bool:
    """Flushes once more: a flush sends only what has not been delivered yet, and so hides nothing that was erased."""
    exporter.run("flush")
    backlog = exporter.status()["backlog"]
    return int(backlog["queued"] + backlog["waiting"] - backlog["half_written"]) == 0
