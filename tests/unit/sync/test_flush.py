"""Queue → sacct → dashboard: jobs are delivered as soon as possible, and none delays another."""

from __future__ import annotations

import json
from typing import Sequence

import pytest

from agent.errors import BatchRefused, DashboardUnreachable, SlurmUnreachable
from agent.jobs.finality import HALF_WRITTEN_SECONDS
from agent.jobs.job import LOOKBACK_SECONDS
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import make_record
from agent.jobs.rows_by_id import Rows
from agent.jobs.run import Run
from agent.localtime import local_text
from agent.slurm.sacct_argv import ALL_ENDS, GOING_ON, IDS_PER_CALL
from agent.spool.facts import GIVEN_UP, PAUSE
from agent.spool.ledger import Ledger
from agent.spool.waiting import LONGEST_WAIT_SECONDS, Waiting
from agent.sync.backlog import MANY_JOBS
from agent.sync.delivery import REFUSED_PAUSE_SECONDS
from agent.sync.flush import LATE_ENTRY_SECONDS, LONGEST_LINGER_SECONDS
from agent.sync.work_due import LONGEST_KEPT_PAUSE_SECONDS, has_work
from tests.support.memory import DAY, MemoryDashboard, MemoryQuery, MemorySlurm
from tests.support.rows import NOON, make_run
from tests.support.sites import MemorySite

ENDED = NOON + 3660
NOW = ENDED + 1000.0
TOLD = QueueEntry(100, NOON, ENDED)


class BoundedSlurm(MemorySlurm):
    """Notes the bound of each call by ID, and may be out of reach."""

    def __init__(self, *runs: Run) -> None:
        super().__init__(*runs)
        self.bounds: list[int] = []
        self.down = False

    def ask_ids(self, asked: Sequence[str], since: int) -> MemoryQuery:
        if self.down:
            raise SlurmUnreachable("slurmdbd is down")
        self.bounds.append(since)
        return super().ask_ids(asked, since)


class FussyDashboard(MemoryDashboard):
    """Fails for some JobIDs."""

    def __init__(self) -> None:
        super().__init__()
        self.poison: set[str] = set()

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = 1) -> str:
        if self.poison & {json.loads(text)["JobID"] for text in texts}:
            raise BatchRefused("500")
        return super().submit(cluster, texts, tries=tries)


class Site(MemorySite[BoundedSlurm, FussyDashboard]):
    """A cluster with this Slurm and this dashboard."""

    def __init__(self, ledger: Ledger, *runs: Run) -> None:
        super().__init__(ledger, BoundedSlurm(*runs), FussyDashboard(), now=NOW)


def plain(job_id: int, **changes: str) -> Run:
    return make_run(**{"JobID": str(job_id), "JobIDRaw": str(job_id), **changes})


def test_a_finished_job_is_delivered(ledger: Ledger) -> None:
    """A delivered job is no longer queued, and the run ends at once."""
    site = Site(ledger, plain(100))
    site.queue(TOLD)
    site.flush()
    assert (["100"], {}, 0.0) == (site.arrived(), site.waiting(), site.slept)


def test_flush_waits_for_a_record_that_is_about_to_appear(ledger: Ledger) -> None:
    """slurmctld calls the hook before it reports to slurmdbd: the same run asks again after some seconds."""
    site = Site(ledger)
    site.queue(TOLD)

    def arrive(seconds: float) -> None:
        Site.sleep(site, seconds)
        if site.slept >= 2:
            site.slurm.runs = [plain(100)]

    site.sleep = arrive  # type: ignore[method-assign]
    site.flush()
    assert (["100"], {}) == (site.arrived(), site.waiting())


def test_a_missing_record_delays_no_other(ledger: Ledger) -> None:
    """It is asked for less and less often, the run ends in bounded time, and the other jobs are delivered first."""
    site = Site(ledger, plain(101))
    site.queue(TOLD, QueueEntry(101, NOON, ENDED))
    site.flush()
    assert (["101"], {100: "no record yet"}) == (site.arrived(), site.waiting())
    assert site.slept <= LONGEST_LINGER_SECONDS
    assert [["100", "101"], ["100"], ["100"], ["100"]] == site.slurm.asked
    assert not has_work(ledger, site.now)


def test_slurm_out_of_reach_changes_nothing(ledger: Ledger) -> None:
    """However long it lasts, no job is delayed, given up or forgotten because of it."""
    site = Site(ledger, plain(100))
    site.queue(TOLD)
    before = list(ledger.waiting.newest())
    site.slurm.down = True
    for day in range(30):
        with pytest.raises(SlurmUnreachable):
            site.flush(at=NOW + day * DAY)
    assert before == list(ledger.waiting.newest())
    site.slurm.down = False
    site.flush(at=NOW + 31 * DAY)
    assert ["100"] == site.arrived()


def test_the_first_answer_after_a_long_outage_gives_up_nothing(ledger: Ledger) -> None:
    """Reports that slurmctld has held back for a month reach slurmdbd some time after it is up again."""
    site = Site(ledger)
    site.queue(TOLD)
    site.flush(at=NOW + 30 * DAY)
    assert {100: "no record yet"} == site.waiting()
    site.slurm.runs = [plain(100)]
    site.flush(at=site.now + 3600)
    assert (["100"], {}) == (site.arrived(), site.waiting())


def test_a_task_whose_record_permanently_lacks_its_array(ledger: Ledger) -> None:
    """slurmctld was killed before it reported more than the end to slurmdbd: only the raw ID finds the record."""
    site = Site(ledger, plain(100, Partition="", QOS=""), plain(101))
    site.now = ENDED
    site.queue(QueueEntry(100, NOON, ENDED, array_task=3), QueueEntry(101, NOON, ENDED))
    site.flush()
    assert (["101"], {100: "no record yet"}) == (site.arrived(), site.waiting())
    site.flush(at=ENDED + HALF_WRITTEN_SECONDS)
    assert (["101", "100"], {}) == (site.arrived(), site.waiting())


def test_a_task_is_not_requested_with_its_whole_array(ledger: Ledger) -> None:
    """The raw ID of an array's last task is the array's: asked for it, sacct answers with every task."""
    site = Site(ledger, make_run(JobID="100_3", JobIDRaw="100"))
    site.queue(QueueEntry(100, NOON, ENDED, array_task=3))
    site.flush(at=ENDED + 30 * DAY)
    assert (["100_3"], [["100_3"]]) == (site.arrived(), site.slurm.asked)


def test_a_state_of_a_later_slurm(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """The job has an End, so it is sent, and the state is reported."""
    site = Site(ledger, plain(100, State="VAPORIZED"))
    site.queue(TOLD)
    site.flush()
    assert ["100"] == site.arrived()
    assert ["job 100 is sent with an unknown state: 'VAPORIZED'"] == caplog.messages


def test_only_rows_of_the_job_count() -> None:
    """Asked for 100, sacct answers with every task of array 100 and every part of het job 100, too."""
    others = [plain(101, JobID="100_1"), plain(102, JobID="100_2"), plain(103, JobID="100+1")]
    rows = Rows([*others, plain(100, JobID="100_3")])
    assert [["100_3"], ["100_3"], ["100_2"]] == [
        [run.job_id for run in rows.of(entry)]
        for entry in (TOLD, TOLD._replace(array_task=3), TOLD._replace(job_id=102))
    ]


def test_a_record_that_never_comes_is_given_up(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """After retry_max_age_days of asking it is counted and reported, and left to reconcile."""
    site = Site(ledger)
    site.queue(TOLD)
    while site.waiting():
        site.flush(at=site.now + 300)
    assert 7 * DAY <= site.now - NOW <= 8 * DAY
    assert 1 == ledger.facts.get(GIVEN_UP)
    assert "job 100 is no longer retried and is left to reconcile: no record yet" in caplog.messages


@pytest.mark.parametrize("step", [-365 * DAY, -3 * 3600, -60, 60, 3 * 3600, 365 * DAY])
def test_a_step_of_the_clock_loses_and_starves_nothing(ledger: Ledger, step: float) -> None:
    """If the clock is set back or forward, waiting jobs are requested within the hour and not given up."""
    site = Site(ledger)
    site.queue(TOLD)
    site.flush()
    site.slurm.runs = [plain(100)]
    site.now += step
    after = site.now
    while site.waiting():
        site.flush(at=site.now + 300)
    assert ["100"] == site.arrived()
    assert site.now - after <= LONGEST_WAIT_SECONDS + 600


@pytest.mark.parametrize(
    ("entry", "since"),
    [
        (QueueEntry(100, NOON, ENDED), NOON - LOOKBACK_SECONDS),
        (QueueEntry(100), int(NOW) - LATE_ENTRY_SECONDS - LOOKBACK_SECONDS),
        (QueueEntry(100, 5), 0),
        (QueueEntry(100, 10**11), int(NOW) - LOOKBACK_SECONDS),
    ],
    ids=["the hook's Submit", "none", "far too early", "in the future"],
)
def test_how_far_back_sacct_looks(ledger: Ledger, entry: QueueEntry, since: int) -> None:
    """It looks back beyond the job's Submit, or else beyond the queuing; a start in the future would fail the call."""
    site = Site(ledger, plain(100))
    site.queue(entry)
    site.flush()
    assert since == site.slurm.bounds[0]


def test_a_job_that_an_admin_queues_is_found_at_any_age(ledger: Ledger) -> None:
    """The whole accounting is searched for it; it is not for another job that is asked for with it."""
    years = 3 * LOOKBACK_SECONDS
    times = {"Submit": str(NOON - years), "Start": str(NOON - years + 60), "End": str(ENDED - years)}
    site = Site(ledger, plain(100, **times), plain(200, **times))
    site.queue(QueueEntry(100, 0), QueueEntry(200))
    site.flush()
    assert (["100"], [0]) == (site.arrived(), site.slurm.bounds[:1])
    assert {200: "no record yet"} == site.waiting()


def test_a_few_hundred_jobs_are_requested_in_groups(ledger: Ledger) -> None:
    """MariaDB finds this many by its index, however large the accounting is; each call looks back a year."""
    site = Site(ledger, *ended_together(MANY_JOBS))
    site.queue(*queued_by(site.slurm.runs))
    site.flush()
    assert [IDS_PER_CALL] * 3 == [len(asked) for asked in site.slurm.asked]
    assert {NOON - LOOKBACK_SECONDS} == set(site.slurm.bounds)
    assert (MANY_JOBS, []) == (len(site.arrived()), site.slurm.windows)


MANY = MANY_JOBS + 1


def ended_together(count: int, first: int = 1, at: int = ENDED) -> list[Run]:
    """Plain jobs that ended within some seconds."""
    return [
        plain(number, Submit=str(at - 3660), Start=str(at - 3600), End=str(at + number % 9))
        for number in range(first, first + count)
    ]


def queued_by(runs: Sequence[Run]) -> list[QueueEntry]:
    """What the hook leaves for some jobs."""
    return [QueueEntry(run.raw_id, run.submit, run.end) for run in runs]


def ended_windows(site: Site) -> list[tuple[int, int]]:
    """The times at which a walk has looked for all that ended."""
    return [(start, end) for start, end, states in site.slurm.windows if states == ALL_ENDS]


def test_many_jobs_are_found_by_the_time_they_ended(ledger: Ledger) -> None:
    """One call brings thousands, of which those that wait are sent, and no other."""
    site = Site(ledger, *ended_together(MANY), *ended_together(50, first=5000))
    site.queue(*queued_by(site.slurm.runs[:MANY]))
    site.flush()
    assert sorted(map(str, range(1, MANY + 1))) == sorted(site.arrived())
    assert ([(ENDED - 1, ENDED + 9)], [], {}) == (ended_windows(site), site.slurm.asked, site.waiting())


def test_a_walk_counts_earlier_runs(ledger: Ledger) -> None:
    """The hours of a run that ended days before the others count, too."""
    old = NOON - 3 * 86_400
    requeued = plain(MANY, Submit=str(old - 7200), Start=str(old - 3600), End=str(old), State="REQUEUED")
    site = Site(ledger, *ended_together(MANY - 1), requeued, plain(MANY, Submit=str(old)))
    site.queue(*queued_by([run for run in site.slurm.runs if run.state == "COMPLETED"]))
    site.flush()
    hours = {record["JobID"]: record["CPUHours"] for record in map(json.loads, site.dashboard.batches[-1])}
    assert (8.0, 16.0, []) == (hours["1"], hours[str(MANY)], site.slurm.asked)
    assert GOING_ON == site.slurm.windows[0][2]


def test_a_walk_counts_runs_that_ended_outside_its_range(ledger: Ledger) -> None:
    """The earlier run ended between two crowds, in the time that is left out."""
    later = ENDED + 20 * 86_400
    between = ENDED + 10 * 86_400
    requeued = plain(9000, Submit=str(between - 7200), Start=str(between - 3600), End=str(between), State="REQUEUED")
    last = plain(9000, Submit=str(between), Start=str(later - 3600), End=str(later))
    crowds = [*ended_together(MANY), *ended_together(MANY, first=MANY + 1, at=later)]
    site = Site(ledger, *crowds, requeued, last)
    site.queue(*queued_by([*crowds, last]))
    site.flush(at=later + 100)
    hours = {record["JobID"]: record["CPUHours"] for record in map(json.loads, site.dashboard.batches[-1])}
    assert (16.0, []) == (hours["9000"], site.slurm.asked)


def test_a_walk_skips_the_time_between(ledger: Ledger) -> None:
    """Of two crowds that ended weeks apart each is looked for, and nothing that ended between them."""
    later = ENDED + 20 * 86_400
    site = Site(ledger, *ended_together(MANY), *ended_together(MANY, first=MANY + 1, at=later))
    site.queue(*queued_by(site.slurm.runs))
    site.flush(at=later + 100)
    assert 2 * MANY == len(site.arrived())
    assert all(start in {ENDED - 1, later - 1} for start, _ in ended_windows(site))
    assert sum(end - start for start, end in ended_windows(site)) < 3 * 86_400


def test_a_walk_resumes_where_the_last_one_ended(ledger: Ledger) -> None:
    """It meets earlier runs that ended meanwhile on its way, so no separate call looks for them."""
    crowds = [ended_together(MANY), ended_together(MANY, first=MANY + 1, at=ENDED + 600)]
    site = Site(ledger, *crowds[0])
    site.queue(*queued_by(crowds[0]))
    site.flush()
    site.slurm.runs += crowds[1]
    site.slurm.windows.clear()
    site.queue(*queued_by(crowds[1]))
    site.flush(at=NOW + 600)
    assert (2 * MANY, {ALL_ENDS}) == (len(site.arrived()), {states for *_, states in site.slurm.windows})


def test_more_than_a_slice_holds_is_taken_in_pieces(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """sacct has all rows of a slice in memory, which are at least as many as the waiting jobs."""
    monkeypatch.setattr("agent.sync.backlog.ROWS_PER_SLICE", MANY // 2)
    site = Site(ledger, *ended_together(MANY))
    site.queue(*queued_by(site.slurm.runs))
    site.flush()
    assert (MANY, [], 2) == (len(site.arrived()), site.slurm.asked, len(ended_windows(site)))


def test_jobs_that_ended_far_apart_are_requested_by_id(ledger: Ledger) -> None:
    """Reading everything that ended in all that time would cost more than looking up each job."""
    runs = [run for number in range(1, MANY + 1) for run in ended_together(1, number, NOON - number * 7200)]
    site = Site(ledger, *runs)
    site.queue(*queued_by(runs))
    site.flush()
    assert (MANY, []) == (len(site.arrived()), ended_windows(site))


def test_jobs_that_a_walk_does_not_find_are_requested_by_id(ledger: Ledger) -> None:
    """Jobs without a record, still running, with a later end or without END get the usual treatment."""
    site = Site(ledger, *ended_together(MANY), plain(2000, State="RUNNING", End="Unknown"))
    odd = [QueueEntry(2000, NOON, ENDED), QueueEntry(2001, NOON, ENDED), QueueEntry(2002)]
    ahead = QueueEntry(1, NOON, ENDED + 500)
    site.slurm.runs.append(plain(2002, End=str(ENDED - 5 * 86_400)))
    site.queue(*queued_by(site.slurm.runs[1:MANY]), ahead, *odd)
    site.flush()
    assert {*map(str, range(2, MANY + 1)), "2002"} == set(site.arrived())
    assert {1: "record not up to date yet", 2000: "still running in the accounting", 2001: "no record yet"} == (
        site.waiting()
    )


@pytest.mark.parametrize("others", [0, MANY])
def test_outdated_records_are_not_sent(ledger: Ledger, others: int) -> None:
    """If the dashboard has a later run of the job already, an earlier one must not replace it."""
    site = Site(ledger, *ended_together(others), plain(9000))
    later = make_record([plain(9000, Submit=str(ENDED + 50), End=str(ENDED + 90))], "lab")
    with ledger.transaction():
        ledger.delivered.add("lab", [later], "reconcile", NOW - 10, hooked=False)
    site.queue(*queued_by(site.slurm.runs))
    site.flush()
    assert (others, "9000" in site.arrived(), {}) == (len(site.arrived()), False, site.waiting())


@pytest.mark.parametrize("others", [0, MANY])
def test_a_task_that_ran_again_under_another_raw_id_shows_its_last_run(ledger: Ledger, others: int) -> None:
    """Both runs wait, the lost one behind the other: one record goes out for both."""
    again = plain(9000, JobID="8000_3", Start=str(ENDED), End=str(ENDED + 9))
    site = Site(ledger, *ended_together(others), again, plain(9001, JobID="8000_3"))
    site.queue(*queued_by(site.slurm.runs))
    site.flush()
    ends = [record["End"] for record in map(json.loads, site.dashboard.batches[-1]) if record["JobID"] == "8000_3"]
    assert ([local_text(ENDED + 9)], {}) == (ends, site.waiting())


def test_a_walk_serves_only_jobs_with_a_known_end(ledger: Ledger) -> None:
    """A bare JobID may mean a later owner of the ID than the one that is met."""
    first, last = plain(9000), plain(9000, Submit=str(ENDED + 100), Start=str(ENDED + 100), End=str(ENDED + 200))
    site = Site(ledger, *ended_together(MANY), first, last)
    site.queue(*queued_by(site.slurm.runs[:MANY]), QueueEntry(9000))
    site.flush()
    assert [["9000"]] == site.slurm.asked
    ends = [record["End"] for record in map(json.loads, site.dashboard.batches[-1]) if record["JobID"] == "9000"]
    assert [local_text(ENDED + 200)] == ends


def test_a_walk_distinguishes_the_last_task_from_its_array(ledger: Ledger) -> None:
    """The task runs under the raw ID of the whole array, and is reported as the task."""
    site = Site(ledger, *ended_together(MANY), make_run(JobID="5000_7", JobIDRaw="5000"))
    site.queue(*queued_by(site.slurm.runs[:MANY]), QueueEntry(5000, NOON, ENDED, 7))
    site.flush()
    assert ("5000_7" in site.arrived(), site.slurm.asked, {}) == (True, [], site.waiting())


def test_a_walk_ignores_deferred_jobs(ledger: Ledger) -> None:
    """A record that the dashboard has refused is not sent again and again because many others wait."""
    site = Site(ledger, *ended_together(MANY + 1))
    *others, put_off = queued_by(site.slurm.runs)
    site.queue(*others)
    with ledger.transaction():
        ledger.waiting.add([put_off], NOW)
        ledger.waiting.postpone([Waiting(put_off, NOW, 1, NOW + 900, "later")])
    site.flush()
    assert (MANY, {put_off.job_id: "later"}) == (len(site.arrived()), site.waiting())


def test_a_poison_record_waits_behind_the_others(ledger: Ledger) -> None:
    """Alone it is kept. Once another job was accepted, which proves the dashboard well, it is tried and set aside."""
    site = Site(ledger, plain(100))
    site.dashboard.poison = {"100"}
    site.queue(TOLD)
    assert 1 == site.flush().refused
    assert {100: "500"} == site.waiting()
    assert not has_work(ledger, site.now)
    site.slurm.runs += [plain(101)]
    site.queue(QueueEntry(101, NOON, ENDED))
    delivery = site.flush(at=site.now + 60)
    assert (1, 1, 0) == (delivery.delivered, delivery.rejected, delivery.refused)
    assert ({}, [100]) == (site.waiting(), [record.job_id for record in ledger.rejected.newest()])


def test_a_good_record_that_was_refused_is_retried(ledger: Ledger) -> None:
    """Once the dashboard works again, records that it had refused arrive."""
    site = Site(ledger, plain(100))
    site.dashboard.poison = {"100"}
    site.queue(TOLD)
    site.flush()
    site.dashboard.poison = set()
    site.flush(at=site.now + REFUSED_PAUSE_SECONDS)
    assert (["100"], {}) == (site.arrived(), site.waiting())


@pytest.mark.parametrize("rest", [1.0, LONGEST_KEPT_PAUSE_SECONDS])
def test_a_dashboard_that_asked_for_a_pause(ledger: Ledger, rest: float) -> None:
    """Nothing is sent before the pause ends, and sacct is not called."""
    site = Site(ledger, plain(100))
    site.queue(TOLD)
    with ledger.transaction():
        ledger.facts.set(PAUSE, NOW + rest)
    with pytest.raises(DashboardUnreachable, match="asked for a pause"):
        site.flush()
    assert [] == site.slurm.asked
    site.flush(at=NOW + rest)
    assert ["100"] == site.arrived()


def test_a_pause_from_before_the_clock_was_set_back(ledger: Ledger) -> None:
    """A pause longer than the longest possible one is ignored."""
    site = Site(ledger, plain(100))
    site.queue(TOLD)
    with ledger.transaction():
        ledger.facts.set(PAUSE, NOW + 365 * DAY)
    site.flush()
    assert ["100"] == site.arrived()


def test_a_job_that_is_due_again_at_once_does_not_loop(ledger: Ledger) -> None:
    """Even if a job is made due again and again, the run ends."""
    site = Site(ledger)
    site.queue(TOLD)
    sleep = site.sleep

    def hasten(seconds: float) -> None:
        sleep(seconds)
        site.queue(TOLD)

    site.sleep = hasten  # type: ignore[method-assign]
    site.flush()
    assert site.slept <= LONGEST_LINGER_SECONDS
    assert len(site.slurm.asked) <= 1 + LONGEST_LINGER_SECONDS / 0.1
