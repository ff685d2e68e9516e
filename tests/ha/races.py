"""Two hosts send at the same time to a dashboard that rewrites a year's file without a lock."""

from __future__ import annotations

import threading
import time
from functools import partial

from agent.config import NAME
from tests.ha.load import Submitting
from tests.ha.sites import Exporter, Pair
from tests.ha.truth import Comparison, compare, unsent
from tests.support.waiting import wait_for

_PLAIN = r"""
while [ ! -e "$STOP" ]; do sbatch --uid=65534 -o /dev/null --chdir=/tmp --wrap true; sleep "$PAUSE"; done
"""


def add_old_jobs(pair: Pair, number: int, *, hours_ago: float = 3) -> int:
    """Puts finished jobs of some hours ago into the accounting; returns the JobID before the first one."""
    end = int(time.time() - hours_ago * 3600)
    known = f"select ifnull(max(id_job), 5000000) from {pair.cluster}_job_table where job_name = 'old'"
    base = int(pair.sql(known)[0][0])
    pair.sql(
        f"insert into {pair.cluster}_job_table (mod_time, account, cpus_req, job_name, id_assoc, id_job,"
        " id_qos, id_resv, id_wckey, id_user, id_group, state_reason_prev, het_job_id, het_job_offset, `partition`,"
        " priority, state, time_submit, time_eligible, time_start, time_end, nodelist, node_inx, nodes_alloc,"
        " tres_alloc, tres_req)"
        f" select {end}, 'acct', 1, 'old', 0, {base} + seq, 1, 0, 0, 65534, 65534, 0, 0,"
        f" 4294967294, 'main', 1, 3, {end} - 60 - seq % 600, {end} - 60 - seq % 600, {end} - 60 - seq % 600,"
        f" {end} - seq % 600, 'n1', '0', 1, '1=1,2=100,4=1', '1=1' from seq_1_to_{number}"
    )
    return base


def race(
    pair: Pair, *, seconds: float, rewrite_seconds: float, flush_seconds: float, pause_seconds: float
) -> Comparison:
    """Runs jobs for some seconds, with flushes on ctl1, which is in control, and one long reconcile on ctl2.

    :param pause_seconds: between two jobs.
    :returns: what is wrong afterwards among the jobs that ended since the start.
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
    wait_for(lambda: _is_done(flushing) and not unsent(pair, pair.cluster), "the last jobs", limit_seconds=60)
    return compare(pair, pair.cluster, since=began)


def flush_race(pair: Pair, number: int, *, seconds: float, rewrite_seconds: float, turns: bool) -> dict[str, int]:
    """Queues finished jobs alternately on both controllers, which both flush continuously.

    :param number: of jobs; spread over ``seconds``.
    :param turns: whether the controllers can take turns.
    :returns: how many of the jobs that each host delivered were finally overwritten.
    """
    base = add_old_jobs(pair, number)
    ids = [str(base + place) for place in range(1, number + 1)]
    common = pair.state / NAME
    if not turns:
        common.mkdir(mode=0o700, exist_ok=True)
        common.rename(common.with_suffix(".aside"))
        common.write_text("not a folder\n")
    pair.board.rewrite_seconds = rewrite_seconds

    def deliver(exporter: Exporter, own: list[str], steps: int) -> None:
        for step in range(steps):
            exporter.run("queue", "add", *own[step::steps])
            exporter.run("flush")

    steps = max(int(seconds / (2 * rewrite_seconds + 1)), 1)
    parts = {name: ids[place::2] for place, name in enumerate(pair.exporters)}
    threads = [
        threading.Thread(target=deliver, args=(exporter, parts[name], steps))
        for name, exporter in pair.exporters.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pair.board.rewrite_seconds = 0.0
    for exporter in pair.exporters.values():
        wait_for(partial(_is_done, exporter), "the last jobs", limit_seconds=60, pause_seconds=1)
    if not turns:
        common.unlink()
        common.with_suffix(".aside").rename(common)
    shown = {key[2] for key in pair.board.stored}
    return {name: sum(job_id not in shown for job_id in part) for name, part in parts.items()}


def _is_done(exporter: Exporter) -> bool:
    """Flushes once more. A flush sends only undelivered jobs, so it does not restore overwritten ones."""
    exporter.run("flush")
    backlog = exporter.status()["backlog"]
    return int(backlog["queued"] + backlog["waiting"] - backlog["half_written"]) == 0
