"""From a real slurmctld to the dashboard: by the hook and flush, by reconcile, and again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.slurm.conftest import Delivered, flush_all, small_site
from tests.support.accounting import expected_records
from tests.support.job_kinds import KINDS, UNTIL_REQUEUED, wait_for_script
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slurm


def test_jobcomp_and_flush_alone_deliver_every_ended_job(jobcomp: Delivered) -> None:
    """With jobcomp/script the dashboard equals the accounting, field by field, without any reconcile."""
    assert jobcomp.expected == jobcomp.shown


def test_epilog_and_flush_alone_deliver_every_job_that_ran(epilog: Delivered) -> None:
    """EpilogSlurmctld is not called for a job that never ran; all others arrive without any reconcile."""
    idle = {name: kind for name, kind in KINDS.items() if not kind.started}
    never_ran = {job_id for name, kind in idle.items() for job_id in kind.records(epilog.jobs[name])}
    assert {job_id: record for job_id, record in epilog.expected.items() if job_id not in never_ran} == epilog.shown


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_job_has_its_record(jobcomp: Delivered, kind: str) -> None:
    """A job's records carry the JobIDs, state and amounts that were written down for its kind."""
    wanted = KINDS[kind].records(jobcomp.jobs[kind])
    shown = {
        job_id: {field: jobcomp.shown[job_id][field] for field in fields}
        for job_id, fields in wanted.items()
        if job_id in jobcomp.shown
    }
    assert wanted == shown


def test_every_run_of_a_requeued_job_counts(jobcomp: Delivered) -> None:
    """A requeued job's CPU-hours are those of both runs."""
    job = jobcomp.jobs["requeued ended"]
    rows = jobcomp.site.slurm.sql(f"select time_end - time_start as seconds from lab_job_table where id_job = {job}")
    seconds = sum(int(row["seconds"]) for row in rows)
    assert len(rows) == 2
    assert jobcomp.shown[str(job)]["CPUHours"] == 2 * seconds / 3600


def test_reconcile_delivers_jobs_without_a_hook_call(epilog: Delivered) -> None:
    """After a reconcile the dashboard equals the accounting with EpilogSlurmctld, too."""
    epilog.site.exporter.run("reconcile")
    assert expected_records(epilog.site.slurm) == epilog.site.dashboard.records


def test_repeats_change_nothing(delivered: Delivered) -> None:
    """Once all is delivered, no command changes anything on the dashboard, however often it is run."""
    exporter, dashboard = delivered.site.exporter, delivered.site.dashboard
    exporter.run("reconcile")
    before = dashboard.stored
    known = [str(job) for job in delivered.jobs.values()]
    for command in (["flush"], ["reconcile"], [], ["reconcile", "--only-missing"], ["queue", "add", *known], ["flush"]):
        exporter.run(*command)
    assert before == dashboard.stored


def test_only_missing_sends_nothing_twice(jobcomp: Delivered) -> None:
    """A reconcile finds nothing missing if flush has delivered everything."""
    jobcomp.site.exporter.run("reconcile")
    posts = len(jobcomp.site.dashboard.posts)
    jobcomp.site.exporter.run("reconcile", "--only-missing")
    assert [] == [job for post in jobcomp.site.dashboard.posts[posts:] for job in post.jobs]


def test_a_dry_run_changes_nothing(jobcomp: Delivered) -> None:
    """A dry run of either command sends nothing and leaves the queue as it was."""
    site = jobcomp.site
    site.slurm.sbatch()
    site.slurm.wait_until_idle()
    queue, posts = (site.slurm.spool / "queue").read_text(), len(site.dashboard.posts)
    site.exporter.run("flush", "--dry-run")
    site.exporter.run("--dry-run")
    assert (queue, posts) == ((site.slurm.spool / "queue").read_text(), len(site.dashboard.posts))
    flush_all(site)


def test_a_requeued_job_is_held_until_its_last_end(jobcomp: Delivered) -> None:
    """A job that is pending again is not on the dashboard; once it ends, it is, with the hours of both runs."""
    site = jobcomp.site
    job = site.slurm.sbatch("--requeue", "-n2", command=UNTIL_REQUEUED)
    wait_for_script(site.slurm, job)
    wait_for(lambda: site.slurm.sql(f"select 1 from lab_job_table where id_job = {job} and time_start > 0"), "its row")
    site.slurm.run("scontrol", "requeuehold", str(job))
    site.slurm.wait_for_state(job, "PENDING")
    flush_all(site)
    held = dict(site.dashboard.records)
    site.slurm.run("scontrol", "release", str(job))
    site.slurm.wait_until_idle()
    flush_all(site)
    assert str(job) not in held
    assert expected_records(site.slurm)[str(job)] == site.dashboard.records[str(job)]


def test_nothing_that_a_user_writes_reaches_the_queue(delivered: Delivered) -> None:
    """A job name full of blanks, newlines and shell code leaves only digits in the queue, and is never executed."""
    site = delivered.site
    flush_all(site)
    KINDS["hostile names"].submit(site.slurm)
    site.slurm.wait_until_idle()
    lines = (site.slurm.spool / "queue").read_text().split("\n")
    assert [line for line in lines if line and not re.fullmatch(r"[0-9]+( [0-9]+| -){3}", line)] == []
    assert [made for folder in (site.slurm.folder, Path("/tmp")) for made in folder.glob("hostile*")] == []
    flush_all(site)


def test_both_hooks_at_once_deliver_each_job_once() -> None:
    """With jobcomp/script and EpilogSlurmctld wired, two lines for one job become one record, sent once."""
    with small_site(jobcomp=True, epilog=True) as site:
        site.slurm.sbatch("--array=1-5")
        site.slurm.wait_until_idle()
        lines = (site.slurm.spool / "queue").read_text().split()
        flush_all(site)
        sent = [job["JobID"] for post in site.dashboard.posts for job in post.jobs]
        assert len(lines) == 2 * 5 * 4
        assert sorted(sent) == sorted(expected_records(site.slurm))


def test_flush_waits_for_a_record_that_does_not_exist_yet() -> None:
    """While slurmdbd is down flush keeps everything and exits 69; once the records are there, it delivers them."""
    with small_site(jobcomp=True) as site:
        site.slurm.daemons.kill("slurmdbd")
        jobs = [site.slurm.sbatch() for _ in range(3)]
        for job in jobs:
            site.slurm.wait_for_state(job, "COMPLETED")
        wait_for((site.slurm.spool / "queue").exists, "the hook's line")
        site.exporter.run("flush", expect=69)
        site.slurm.start("slurmdbd")
        site.exporter.run("flush")
        site.slurm.wait_until_idle()
        flush_all(site)
        assert expected_records(site.slurm) == site.dashboard.records
        assert sorted(site.dashboard.records) == sorted(map(str, jobs))


def test_without_a_hook_reconcile_delivers_everything() -> None:
    """A cluster with no hook at all is delivered by the daily reconcile, and each job counts as missed by the hook."""
    with small_site() as site:
        site.slurm.sbatch("--array=1-3")
        site.slurm.wait_until_idle()
        site.exporter.run("flush")
        before = site.dashboard.records
        site.exporter.run()
        assert before == {}
        assert expected_records(site.slurm) == site.dashboard.records
