"""A killed slurmctld may leave little more than a job's end in slurmdbd, permanently: its entry waits for a day."""

from __future__ import annotations

from pathlib import Path

from agent.jobs.finality import HALF_WRITTEN_SECONDS
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.run import Run
from agent.spool.ledger import Ledger
from agent.status.health import find_problems
from agent.status.snapshot import Snapshot, take_snapshot
from tests.support.rows import NOON, make_run
from tests.support.snapshots import make_config
from tests.unit.sync.test_flush import ENDED, NOW, Site

HOUR = 3600.0


def half(job: int) -> Run:
    return make_run(JobID=str(job), JobIDRaw=str(job), Partition="", QOS="")


def look(site: Site, tmp_path: Path) -> Snapshot:
    return take_snapshot(make_config(spool_dir=str(tmp_path)), site.ledger, site.now)


def queue_problems(site: Site, tmp_path: Path) -> list[str]:
    return [problem.text for problem in find_problems(look(site, tmp_path)) if "not delivered" in problem.text]


def test_it_does_not_count_as_an_old_queue(ledger: Ledger, tmp_path: Path) -> None:
    """It is counted separately and raises no alarm; other waiting jobs are reported with their own age."""
    site = Site(ledger, half(100))
    site.queue(QueueEntry(100, NOON, ENDED))
    site.flush(at=NOW)
    site.now += 5 * HOUR
    backlog = look(site, tmp_path).backlog
    assert (1, 1, None, {"record half written": 1}) == (
        backlog.waiting,
        backlog.half_written,
        backlog.oldest,
        backlog.reasons,
    )
    assert [] == queue_problems(site, tmp_path)
    site.queue(QueueEntry(200, NOON, ENDED + 60))
    assert ["1 job not delivered yet; the oldest has waited 5 h 15 min"] == queue_problems(site, tmp_path)


def test_after_a_day_it_is_sent_in_that_state(ledger: Ledger) -> None:
    """Its record stays half written: it will not become any more complete."""
    site = Site(ledger, half(100))
    site.queue(QueueEntry(100, NOON, ENDED))
    site.flush(at=NOW)
    site.flush(at=ENDED + HALF_WRITTEN_SECONDS)
    assert (["100"], {}) == (site.arrived(), site.waiting())


def test_the_rest_of_the_record_ends_the_wait(ledger: Ledger, tmp_path: Path) -> None:
    """A completed record is sent at once, and one that vanishes counts as an old queue again."""
    site = Site(ledger, half(100), half(200))
    site.queue(QueueEntry(100, NOON, ENDED), QueueEntry(200, NOON, ENDED))
    site.flush(at=NOW)
    site.slurm.runs = [make_run(JobID="100", JobIDRaw="100")]
    site.flush(at=NOW + HOUR)
    assert (["100"], {200: "no record yet"}) == (site.arrived(), site.waiting())
    assert 0 == look(site, tmp_path).backlog.half_written


def test_a_task_without_its_array_is_recognised(ledger: Ledger, tmp_path: Path) -> None:
    """sacct does not find it under its array: the raw ID does, after some attempts."""
    site = Site(ledger, half(100))
    site.queue(QueueEntry(100, NOON, ENDED, array_task=3))
    for minute in range(10):
        site.flush(at=NOW + 60 * minute)
    assert {100: "record half written"} == site.waiting()
    site.now += 5 * HOUR
    assert [] == queue_problems(site, tmp_path)
