"""With a primary and a backup controller, no job is lost, sent wrong or overwritten, and no alarm is raised."""

from __future__ import annotations

import time
from functools import partial
from typing import Iterator

import pytest

from agent.config import NAME
from tests.ha.failovers import drain, fail_over
from tests.ha.load import Submitting
from tests.ha.races import add_old_jobs, flush_race, race
from tests.ha.sites import SPOOL, Exporter, Pair, wait_until
from tests.ha.tables import flushing
from tests.ha.troubles import frozen
from tests.ha.truth import compare, overdue
from tests.support.waiting import wait_for

#: slurmctld calls the hook within this time, even on a busy machine, or hangs and is killed within it.
HOOK_SECONDS = 60
LATER_SECONDS = 1200  # after that time, reconcile counts a job as missed
COMPLETED = "3"  # JOB_COMPLETE in slurm.h


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    site = Pair(batch_size=100)
    with site:
        yield site


def test_a_reconcile_on_one_controller_erases_nothing_of_the_other(pair: Pair) -> None:
    """Neither overwrites the other's records, although the dashboard rewrites a year's file without a lock."""
    add_old_jobs(pair, 600)
    found = race(pair, seconds=8, rewrite_seconds=0.6, flush_seconds=1, pause_seconds=0.25)
    assert ([], [], []) == (found.lost, found.foreign, found.wrong)
    assert 600 <= found.jobs
    assert [] == compare(pair, pair.cluster).lost


def test_two_flushes_at_once_erase_none_of_each_others_records(pair: Pair) -> None:
    """If jobs wait on both controllers and both flush at once, all of them arrive."""
    erased = flush_race(pair, 60, seconds=6, rewrite_seconds=0.5, turns=True)
    assert {"ctl1": 0, "ctl2": 0} == erased


def test_a_state_folder_that_hangs_delays_no_job(pair: Pair) -> None:
    """A run waits some seconds for the file server, and reports that it continues without its turn."""
    base = add_old_jobs(pair, 1)
    exporter = pair.exporters["ctl2"]
    exporter.run("queue", "add", str(base + 1))
    with frozen(pair.ctl2, str(pair.state / NAME)):
        said = exporter.run("flush", limit_seconds=60)
    assert "cannot take turns with the other controllers" in said
    assert "the file server does not answer" in said
    assert str(base + 1) in pair.board.records


@pytest.mark.parametrize("ahead", [280, -280])
def test_clocks_that_differ(pair: Pair, ahead: int) -> None:
    """With clocks that differ by as much as munge allows, new jobs are delivered, and no problem is reported."""
    base = add_old_jobs(pair, 20, hours_ago=0.1)
    first, second = pair.exporters.values()
    first.run("queue", "add", *(str(base + number) for number in range(1, 11)))
    first.run("flush")
    second.run_later(ahead, "queue", "add", *(str(base + number) for number in range(11, 21)))
    second.run_later(ahead, "flush")
    second.run_later(ahead, "reconcile")
    first.run("flush")
    assert [] == compare(pair, pair.cluster).lost
    assert {str(base + number) for number in range(1, 21)} <= set(pair.board.records)


def test_a_fail_over_loses_nothing(pair: Pair) -> None:
    """When the primary is killed the backup takes over its jobs; both hosts send, and ``status`` is ok on both."""
    pair.board.rewrite_seconds = 0.3
    with flushing(pair), Submitting(pair.nodes):
        time.sleep(4)
        fail_over(pair, "kill", seconds=4)
        time.sleep(2)
    drain(pair)
    pair.board.rewrite_seconds = 0.0
    undelivered: list[str] = []
    wait_until("delivery", lambda: not _deliver(pair, undelivered), limit_seconds=120)
    assert [] == undelivered
    missed = compare(pair, pair.cluster).lost
    for exporter in pair.exporters.values():
        exporter.run_later(LATER_SECONDS, "reconcile")
        status = exporter.status()
        assert missed or (status["level"], status["problems"]) == ("ok", [])
    found = compare(pair, pair.cluster)
    assert ([], [], []) == (found.lost, found.foreign, found.wrong)
    days = [day for exporter in pair.exporters.values() for day in exporter.status()["coverage"]["days"]]
    assert sum(day["hooked"] for day in days) > 0
    assert sum(day["jobs"] - day["hooked"] for day in days) <= len(missed) * len(pair.exporters)


def test_an_unknown_cluster_name_exits_69(pair: Pair) -> None:
    """The command exits 69, not 78, and everything is kept."""
    nowhere = Exporter(pair.nodes, pair.board.url, scontrol="/bin/false")
    nowhere.run("queue", "add", "1")
    nowhere.run("flush", expect=69)


def test_one_spool_for_both_is_refused(pair: Pair) -> None:
    """The first host continues; the other names the spool's owner."""
    common = pair.lan.folder / "common-spool"
    common.mkdir(mode=0o750)
    for exporter in pair.exporters.values():
        exporter.configure(spool_dir=str(common))
    try:
        pair.exporters["ctl1"].run("flush")
        said = pair.exporters["ctl2"].run("flush", expect=1)
        assert f"the spool {common} is shared with ctl1, which used it" in said
        pair.exporters["ctl1"].run("flush")
    finally:
        for exporter in pair.exporters.values():
            exporter.configure(spool_dir=None)


def test_neither_needs_slurmctld(pair: Pair) -> None:
    """The remembered cluster name is used, and slurmdbd knows the jobs. (The last test: slurmctld stays down.)"""
    pair.exporters["ctl1"].run("reconcile")  # asks for the name
    job = _complete_a_job(pair)
    wait_for(lambda: f"\n{job} " in pair.ctl1.attempt("cat", f"{SPOOL}/queue").stdout, "the hook's call")
    for host in pair.controllers:
        pair.kill_slurmctld(host)
    with (pair.lan.folder / "slurm" / "slurm.conf").open("a") as conf:
        conf.write("MessageTimeout=2\n")  # each of Slurm's commands looks for a slurmctld for 10 s otherwise
    said = pair.exporters["ctl1"].run("--verbose", "flush")
    assert job in pair.board.records, said
    pair.exporters["ctl1"].run("reconcile")


def _complete_a_job(pair: Pair) -> str:
    """Runs a job and returns its JobID, once slurmdbd has all of it: a killed slurmctld loses what it has not reported.

    After a fail-over, JobIDs may be assigned twice. A node that still runs the first owner's job drains, and the second
    job is requeued; then another one is tried.
    """
    for _ in range(10):
        now = int(time.time())
        job = pair.nodes.run("sbatch", "--parsable", "-o", "/dev/null", "--chdir=/tmp", "--wrap", "true").strip()
        first_run = (
            f"select state from {pair.cluster}_job_table where id_job = {job} and time_submit >= {now}"
            " and time_end > 0 and `partition` != '' order by time_submit limit 1"
        )
        if wait_for(partial(pair.sql, first_run), f"the end of job {job} in slurmdbd") == [[COMPLETED]]:
            return job
    raise AssertionError("none of ten jobs was completed")


def _deliver(pair: Pair, undelivered: list[str]) -> list[str]:
    """Flushes on both, and returns what is not delivered although it could be, also in ``undelivered``."""
    for exporter in pair.exporters.values():
        exporter.run("queue", "retry")
        exporter.run("flush")
    found = compare(pair, pair.cluster)
    lost = [f"lost: {job}" for job in found.lost if not _went_with_slurmctld(pair, job.end)]
    undelivered[:] = [*lost, *found.foreign, *overdue(pair, pair.cluster, pair.exporters)]
    return undelivered


def _went_with_slurmctld(pair: Pair, end: int) -> bool:
    """Whether a job ended so shortly before slurmctld was killed that the hook may not have been called for it."""
    return any(0 <= kill - end <= HOOK_SECONDS for kill in pair.kills)
