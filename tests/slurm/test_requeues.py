"""Jobs that run more than once on a real Slurm: the next run starts when COMPLETING ends, which an Epilog delays.

``REQUEUE_GAP=660`` in the environment makes the Epilog of the first test as slow as the ones that were reported.
"""

from __future__ import annotations

import os
import pwd
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from tests.slurm.conftest import Site, flush_all
from tests.support.accounting import expected_records
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter
from tests.support.job_kinds import FIRST_RUN_ONLY
from tests.support.slurm import Slurm
from tests.support.sreport import read_sreport, usage_shown
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

GAP_SECONDS = int(os.environ.get("REQUEUE_GAP") or 6)
HOUR = 3600
USER = pwd.getpwnam("games")  # Slurm 26.05 does not accept the user nobody
#: An Epilog ends when its job's file is deleted. It fails if another file says so.
EPILOG = """\
#!/bin/sh
while [ -e "{folder}/hold.$SLURM_JOB_ID" ]; do sleep 0.1; done
[ ! -e "{folder}/fail.$SLURM_JOB_ID" ]
"""
#: Older versions have no ``--requeue=expedite``.
EXPEDITES = (25, 11)
CONF = """\
Epilog={epilog}
PartitionName=low Nodes=n2 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=scavenge Nodes=n2 PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=n2 PriorityTier=10 PreemptMode=OFF
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=enable_expedited_requeue
"""


@pytest.fixture(scope="module")
def epilogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the Epilog and its jobs' files."""
    folder = tmp_path_factory.mktemp("epilogs")
    (folder / "epilog.sh").write_text(EPILOG.format(folder=folder))
    (folder / "epilog.sh").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def site(epilogs: Path) -> Iterator[Site]:
    """A cluster whose Epilog takes as long as a test wants, with a user who has an association."""
    with ExitStack() as stack:
        conf = CONF.format(epilog=epilogs / "epilog.sh")
        slurm = stack.enter_context(Slurm(jobcomp=True, nodes=3, conf=conf.splitlines()))
        slurm.sacctmgr("add", "account", "physics", "Organization=lab", "Description=lab")
        slurm.sacctmgr("add", "user", USER.pw_name, "account=physics")
        dashboard = stack.enter_context(ReceivingDashboard())
        yield Site(slurm, Exporter(slurm.folder, slurm.env, api_url=dashboard.url), dashboard)


@contextmanager
def slow_epilog(folder: Path, job: int) -> Iterator[None]:
    """Keeps a job COMPLETING once it ends."""
    hold = folder / f"hold.{job}"
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


def run_twice(site: Site, *options: str) -> int:
    """Submits a job that runs until requeued, and then for a second; waits until the accounting shows it running.

    On 20.11 the row of a run of less than two seconds may stay incomplete forever.
    """
    user = (f"--uid={USER.pw_uid}", "--account=physics")
    job = site.slurm.sbatch("--requeue", "-n3", *user, *options, command=f"{FIRST_RUN_ONLY}sleep 900; sleep 1")
    wait_for(lambda: rows_of(site, job, "time_start > 0 and unix_timestamp() - time_start > 2"), f"job {job} runs")
    return job


def rows_of(site: Site, job: int, condition: str = "1") -> list[dict[str, str]]:
    """The rows of a job, the oldest first."""
    columns = "state, time_submit, time_start, time_end"
    return site.slurm.sql(
        f"select {columns} from lab_job_table where id_job = {job} and {condition} order by time_submit"
    )


def wait_until_ended(site: Site, job: int, *states: int) -> None:
    """Waits until the newest row of a job has ended in one of some states of the job table."""
    wait_for(lambda: rows_of(site, job)[-1]["state"] in map(str, states), f"job {job} in {states}")


def is_shown(site: Site, job: int | str) -> bool:
    """Whether the dashboard has a job after a flush and a reconcile."""
    site.exporter.run("flush")
    site.exporter.run("reconcile")
    return str(job) in site.dashboard.records


def finish(site: Site, *jobs: int | str) -> None:
    """Waits until nothing runs any more, and compares everything, first by flush alone, then after a reconcile."""
    site.slurm.wait_until_idle()
    flush_all(site)
    expected = expected_records(site.slurm)
    assert [expected[str(job)] for job in jobs] == [site.dashboard.records[str(job)] for job in jobs]
    site.exporter.run("reconcile")
    assert expected_records(site.slurm) == site.dashboard.records


def test_a_slow_epilog(site: Site, epilogs: Path) -> None:
    """However late the next run starts, the earlier one counts, and nothing is sent until the job finally ends."""
    job = run_twice(site)
    with slow_epilog(epilogs, job):
        site.slurm.run("scontrol", "requeue", str(job))
        wait_until_ended(site, job, 1024)
        assert not is_shown(site, job)
        end = rows_of(site, job)[0]["time_end"]
        over = f"unix_timestamp() - {end} > {GAP_SECONDS}"
        wait_for(lambda: site.slurm.sql(f"select 1 from dual where {over}"), "a gap", limit_seconds=GAP_SECONDS + 30)
    finish(site, job)
    first, second = rows_of(site, job)
    assert int(second["time_submit"]) - int(first["time_end"]) >= GAP_SECONDS


@pytest.mark.parametrize(
    ("options", "shown"),
    [(("--array=7,9",), "{}_7 {}_9"), (("--ntasks=1", ":", "--ntasks=2"), "{}+0 {}+1")],
    ids=["array", "het job"],
)
def test_several_are_requeued_under_a_slow_epilog(
    site: Site, epilogs: Path, options: tuple[str, ...], shown: str
) -> None:
    """Tasks of an array and components of a het job count with both runs, under their own JobIDs."""
    user = (f"--uid={USER.pw_uid}", "--account=physics")
    command = f"{FIRST_RUN_ONLY}sleep 900; sleep 2"
    lead = site.slurm.sbatch("--requeue", *user, *options, command=command)
    family = f"{lead} in (id_job, id_array_job, het_job_id)"
    running = f"select id_job from lab_job_table where {family} and state = 1 and unix_timestamp() - time_start > 2"
    wait_for(lambda: len(site.slurm.sql(running)) == 2, f"both of {lead} run")
    raw_ids = [int(row["id_job"]) for row in site.slurm.sql(running)]
    with ExitStack() as holds:
        for raw_id in raw_ids:
            holds.enter_context(slow_epilog(epilogs, raw_id))
        site.slurm.run("scontrol", "requeue", str(lead))
        for raw_id in raw_ids:
            wait_until_ended(site, raw_id, 1024)
        assert not any(is_shown(site, name) for name in shown.format(lead, lead).split())
    site.slurm.wait_until_idle(limit_seconds=240)  # only backfill starts a het job, after a minute or two
    finish(site, *shown.format(lead, lead).split())
    assert [2, 2] == [len(rows_of(site, raw_id)) for raw_id in raw_ids]


def test_a_suspended_job_is_requeued(site: Site) -> None:
    """The first run's End is the second of the suspension, long before the next run's Submit; the job is held then."""
    job = run_twice(site)
    site.slurm.run("scontrol", "suspend", str(job))
    site.slurm.wait_for_state(job, "SUSPENDED")
    suspended = "select 1 from lab_suspend_table where unix_timestamp() - time_start > 3 and time_end = 0"
    wait_for(lambda: site.slurm.sql(suspended), "a suspension")
    site.slurm.run("scontrol", "requeue", str(job))
    site.slurm.wait_for_state(job, "PENDING")
    assert not is_shown(site, job)
    site.slurm.run("scontrol", "release", str(job))
    finish(site, job)
    first, second = rows_of(site, job)
    assert int(second["time_submit"]) - int(first["time_end"]) >= 3


@pytest.mark.parametrize(("partition", "rows"), [("low", 2), ("scavenge", 1)])
def test_a_preempted_job_is_not_sent_while_it_is_completing(
    site: Site, epilogs: Path, partition: str, rows: int
) -> None:
    """Requeued or not, its row says PREEMPTED, with an End; slurmctld knows that the job is not over."""
    job = run_twice(site, f"--partition={partition}", "--exclusive")
    with slow_epilog(epilogs, job):
        site.slurm.sbatch("--partition=urgent", "--exclusive")
        wait_until_ended(site, job, 8)
        assert not is_shown(site, job)
    finish(site, job)
    assert rows == len(rows_of(site, job))


def test_a_job_whose_node_failed(site: Site) -> None:
    """The job is requeued and held, and counts with both runs."""
    job = run_twice(site, "--nodelist=n3")
    site.slurm.run("scontrol", "update", "nodename=n3", "state=down", "reason=test")
    site.slurm.run("scontrol", "hold", str(job))
    wait_for(lambda: [row["state"] for row in rows_of(site, job)] == ["7", "0"], "NODE_FAIL and PENDING")
    assert not is_shown(site, job)
    site.slurm.run("scontrol", "release", str(job))
    finish(site, job)


def test_a_job_that_is_requeued_after_its_end(site: Site) -> None:
    """The earlier record is replaced; up to 24.11 the row becomes REQUEUED, on 26.05 Restarts shows the requeue."""
    user = (f"--uid={USER.pw_uid}", "--account=physics")
    job = site.slurm.sbatch("--requeue", *user, command="sleep 3")
    site.slurm.wait_for_state(job, "COMPLETED")
    site.slurm.wait_until_idle()
    flush_all(site)
    before = site.dashboard.records[str(job)]
    site.slurm.run("scontrol", "requeue", str(job))
    finish(site, job)
    assert 2 == len(rows_of(site, job))
    assert before["CPUHours"] < site.dashboard.records[str(job)]["CPUHours"]


def test_an_expedited_requeue(site: Site, epilogs: Path) -> None:
    """Of a job that failed together with its Epilog: it is FAILED until then, and counts with both runs afterwards."""
    if site.slurm.version < EXPEDITES:
        pytest.skip("this version has no --requeue=expedite")
    user = (f"--uid={USER.pw_uid}", "--account=physics", "--nodelist=n3")
    job = site.slurm.sbatch("--requeue=expedite", *user, command=f"{FIRST_RUN_ONLY}{{ sleep 3; exit 1; }}; sleep 2")
    fail = epilogs / f"fail.{job}"
    fail.touch()
    with slow_epilog(epilogs, job):
        wait_until_ended(site, job, 5)
        assert is_shown(site, job)
    wait_for(lambda: len(rows_of(site, job)) == 2, f"job {job} is requeued")
    fail.unlink()
    site.slurm.run("scontrol", "update", "nodename=n3", "state=resume")
    finish(site, job)
    assert ["1024", "3"] == [row["state"] for row in rows_of(site, job)]


def test_sreport_says_the_same(site: Site) -> None:
    """Slurm's own report counts what the dashboard shows of all these jobs, to the second.

    sreport adds up complete hours, so the jobs are moved back by two hours.
    """
    finish(site, _requeued(site))
    back = "time_start = time_start - 7200, time_end = time_end - 7200"
    started = "where time_start > 0"  # a row may have none, such as that of a job cancelled while held
    site.slurm.sql(f"update lab_job_table set {back}, time_eligible = time_eligible - 7200 {started}")
    site.slurm.sql(f"update lab_suspend_table set {back}")
    ((first, last),) = (
        (int(row["first"]), int(row["last"]))
        for row in site.slurm.sql(f"select min(time_start) first, max(time_end) last from lab_job_table {started}")
    )
    reported = read_sreport(site.slurm, first // HOUR * HOUR, last // HOUR * HOUR + HOUR, ["gres/gpu"])
    assert reported == usage_shown(site.dashboard.records.values(), ["physics", "root"])
    assert ("physics", USER.pw_name, "cpu") in reported


def _requeued(site: Site) -> int:
    job = run_twice(site)
    site.slurm.run("scontrol", "requeue", str(job))
    return job
