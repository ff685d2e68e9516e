"""Window → sacct → dashboard."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agent.errors import SlurmUnreachable
from agent.jobs.job import LOOKBACK_SECONDS
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import make_record
from agent.jobs.run import Run
from agent.localtime import Range, local_text
from agent.slurm.sacct_argv import ALL_ENDS, GOING_ON
from agent.spool.ledger import Ledger
from agent.sync.lookback import LATE_SECONDS, note_forgotten
from agent.sync.prepare import NOTHING
from agent.sync.reconcile import INTERLUDE_SECONDS
from agent.sync.walk import JOBS_AT_ONCE
from tests.support.memory import DAY, WINDOW, MemoryDashboard, MemoryQuery, MemorySlurm
from tests.support.rows import NOON, make_run
from tests.support.sites import SETTINGS, MemorySite

HOUR = 3600
NOW = WINDOW.end


class Site(MemorySite[MemorySlurm, MemoryDashboard]):
    """A Slurm and a dashboard that work."""

    def __init__(self, ledger: Ledger, *runs: Run) -> None:
        super().__init__(ledger, MemorySlurm(*runs), MemoryDashboard(), now=NOW, batch_size=100)


def run_at(end: int, job: int = 100, **changes: str) -> Run:
    """A plain run of an hour that ended at an instant."""
    return make_run(
        **{
            "JobID": str(job),
            "JobIDRaw": str(job),
            "Submit": str(end - HOUR),
            "Start": str(end - HOUR),
            "End": str(end),
            **changes,
        }
    )


def test_every_job_that_ended_in_the_range_is_sent(ledger: Ledger) -> None:
    """Both bounds belong to the range, and nothing outside does."""
    ends = [WINDOW.start - 1, WINDOW.start, NOON + 3 * DAY, WINDOW.end, WINDOW.end + 1]
    site = Site(ledger, *(run_at(end, job) for job, end in enumerate(ends, 1)))
    assert 3 == site.reconcile().jobs
    assert ["2", "3", "4"] == [record["JobID"] for record in site.sent()]


def test_a_job_that_waited_and_ran_longer_than_the_window_is_sent(ledger: Ledger) -> None:
    """What counts is the end, not the submission: the biggest jobs are not dropped."""
    site = Site(ledger, run_at(NOON + DAY, Submit=str(NOON - 60 * DAY), Start=str(NOON - 30 * DAY)))
    assert 1 == site.reconcile().jobs


def test_repeats_change_nothing_and_only_missing_sends_nothing(ledger: Ledger) -> None:
    """A replay sends the same records; with --only-missing none that the dashboard has."""
    site = Site(ledger, run_at(NOON + DAY), run_at(NOON + 2 * DAY, 101))
    site.reconcile()
    first = site.sent()
    site.reconcile()
    assert first == site.sent()
    site.reconcile(resend=NOTHING)
    assert [] == site.sent()


def test_only_missing_sends_what_has_changed(ledger: Ledger) -> None:
    """An admin's edit in Slurm's accounting reaches the dashboard."""
    site = Site(ledger, run_at(NOON + DAY), run_at(NOON + 2 * DAY, 101))
    site.reconcile()
    site.sent()
    site.slurm.runs[0] = run_at(NOON + DAY, Account="chemistry")
    site.reconcile(resend=NOTHING)
    assert ["chemistry"] == [record["Account"] for record in site.sent()]


def test_runs_that_ended_before_the_range_are_found(ledger: Ledger) -> None:
    """The hours of an earlier run count, although only the last one ended in the range."""
    requeued_at = WINDOW.start - 30 * DAY
    site = Site(
        ledger,
        run_at(requeued_at, State="REQUEUED", Submit=str(requeued_at - 5 * HOUR)),
        run_at(NOON + DAY, Submit=str(requeued_at)),
    )
    site.reconcile()
    assert [16.0] == [record["CPUHours"] for record in site.sent()]


def test_a_requeued_job_that_is_live_again_is_held(ledger: Ledger) -> None:
    """Its earlier run has ended in the range, but the job has not: no partial record is sent."""
    again = make_run(State="RUNNING", Submit=str(NOON + DAY), Start=str(NOON + DAY), End="Unknown")
    for state in ("REQUEUED", "PREEMPTED", "NODE_FAIL"):
        site = Site(ledger, run_at(NOON + DAY, State=state), again)
        assert 0 == site.reconcile().jobs, state


def test_a_job_that_does_not_continue_after_a_preemption_is_sent(ledger: Ledger) -> None:
    """As long as slurmctld says that it is COMPLETING it may be requeued; when it does not any more, it is final."""
    site = Site(ledger, run_at(NOW - 10, State="PREEMPTED"))
    site.alive = {100: "COMPLETING"}
    assert 0 == site.reconcile(now=NOW + HOUR).jobs
    site.alive = {}
    assert 1 == site.reconcile(now=NOW + HOUR).jobs


def test_a_run_in_the_range_of_a_job_that_ended_after_it_is_not_sent(ledger: Ledger) -> None:
    """The job belongs to the range in which its last run ended."""
    site = Site(
        ledger,
        run_at(NOON + DAY, State="REQUEUED"),
        run_at(WINDOW.end + DAY, Submit=str(NOON + DAY)),
    )
    assert 0 == site.reconcile(now=NOW + 2 * DAY).jobs


def test_looking_back_for_requeued_jobs_is_done_once(ledger: Ledger) -> None:
    """The next day's reconcile remembers the requeued jobs."""
    site = Site(ledger, run_at(NOON + 6 * DAY))
    site.reconcile()
    assert any(states == GOING_ON for _, _, states in site.slurm.windows)
    assert WINDOW.start - LOOKBACK_SECONDS - LATE_SECONDS == site.slurm.windows[0][0]
    site.slurm.windows.clear()
    site.reconcile(Range(WINDOW.start + DAY, WINDOW.end + DAY), now=NOW + DAY)
    assert all(states != GOING_ON for _, _, states in site.slurm.windows)


class LimitedSlurm(MemorySlurm):
    """Answers only for some hours at a time, and after some calls not at all."""

    def __init__(self, *runs: Run, hours: int, calls: int) -> None:
        super().__init__(*runs)
        self.calls = calls
        self._seconds = hours * HOUR

    def ask_window(self, start: int, end: int, states: str = ALL_ENDS) -> MemoryQuery:
        if len(self.windows) == self.calls:
            raise SlurmUnreachable("sacct failed")
        return super().ask_window(start, min(end, start + self._seconds - 1), states)


def test_looking_back_resumes_where_it_was_interrupted(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """If slurmdbd answers for six hours at a time, a year takes 1,460 calls: they are not repeated."""
    weekly = [run_at(NOON - week * 7 * DAY, week, State="REQUEUED") for week in range(1, 53)]
    slurm = LimitedSlurm(*weekly, run_at(NOON + DAY, 1, Submit=str(NOON - 7 * DAY)), hours=6, calls=800)
    site = Site(ledger)
    site.slurm = slurm
    caplog.set_level("INFO")
    with pytest.raises(SlurmUnreachable):
        site.reconcile()
    (reported,) = (text for text in caplog.messages if text.startswith("Looking back from "))
    assert reported.endswith("for earlier runs of requeued jobs, 21600 s at a time as slurmdbd allows")
    interrupted_at, slurm.calls = slurm.windows[-1][1], 0
    site.reconcile()
    start, *_ = slurm.windows[800]
    assert interrupted_at - 8 * DAY < start < interrupted_at  # behind the last one that was seen
    assert [16.0] == [record["CPUHours"] for record in site.sent() if record["JobID"] == "1"]


def test_forgotten_runs_are_searched_again(ledger: Ledger) -> None:
    """A replay that reaches further back than the ledger remembers looks back in Slurm's accounting."""
    site = Site(ledger, run_at(NOON + DAY))
    site.reconcile()
    note_forgotten(ledger, before=WINDOW.start - DAY)
    site.slurm.windows.clear()
    site.reconcile()
    assert WINDOW.start - LOOKBACK_SECONDS - LATE_SECONDS == site.slurm.windows[0][0]


def requeued(first_end: int, last_end: int) -> tuple[Run, Run]:
    """Two runs of a job, the second after a long wait. Only the first row shows that there was one."""
    first = run_at(first_end, State="REQUEUED")
    return first, run_at(last_end, Submit=str(first_end), State="COMPLETED")


def test_a_clock_that_was_ahead_is_not_trusted(ledger: Ledger) -> None:
    """A range that was still in the future when it was searched is searched again."""
    site = Site(ledger, run_at(NOON + DAY))
    site.reconcile()
    ahead = 30 * DAY
    site.reconcile(Range(WINDOW.start + ahead, WINDOW.end + ahead), now=NOW + ahead)
    site.slurm.runs += requeued(NOW + 5 * DAY, NOW + 15 * DAY)
    site.sent()
    site.reconcile(Range(NOW + 10 * DAY, NOW + 17 * DAY), now=NOW + 17 * DAY)
    assert [2 * 8.0] == [record["CPUHours"] for record in site.sent()]


def test_without_the_right_to_see_jobs_nothing_is_concluded(ledger: Ledger) -> None:
    """A sacct that shows no jobs does not prove that none was requeued."""
    site = Site(ledger)
    site.reconcile()
    site.slurm.runs += requeued(WINDOW.start - DAY, WINDOW.end + DAY)
    site.reconcile(Range(WINDOW.start + 2 * DAY, WINDOW.end + 2 * DAY), now=NOW + 2 * DAY)
    assert [2 * 8.0] == [record["CPUHours"] for record in site.sent()]


def test_requeued_jobs_cost_no_call_of_their_own(ledger: Ledger) -> None:
    """Their earlier runs are remembered from the slices in which these ended."""
    site = Site(ledger, run_at(NOON + DAY, State="REQUEUED"), run_at(NOON + 3 * DAY, Submit=str(NOON + DAY)))
    site.reconcile()
    assert [16.0] == [record["CPUHours"] for record in site.sent()]
    assert [] == site.slurm.asked


def test_doubtful_jobs_are_requested_together(ledger: Ledger) -> None:
    """One call serves the jobs of many slices whose node failed, or whose earlier runs are not all known."""
    failed = [run_at(NOON + day * DAY, day, State="NODE_FAIL") for day in range(1, 7)]
    site = Site(ledger, *failed, run_at(NOON + 2 * DAY, 9, Restarts="2"))
    reported: list[Any] = []
    assert 7 == site.reconcile(on_progress=lambda *progress: reported.append(progress)).jobs
    assert [["1", "2", "3", "4", "5", "6", "9"]] == [sorted(asked) for asked in site.slurm.asked]
    assert [NOON + DAY - 1, WINDOW.end] == sorted({done_to for done_to, _ in reported})[-2:]


def test_a_job_that_only_its_slice_shows_is_sent(ledger: Ledger) -> None:
    """A row that sacct does not find again by its ID is not left out."""
    site = Site(ledger, run_at(NOON + DAY, State="NODE_FAIL"))
    site.slurm.hidden_by_id = {"100"}
    assert 1 == site.reconcile().jobs


def test_an_empty_slice_is_trusted_only_if_sacct_repeats_it(ledger: Ledger) -> None:
    """If its database fails in the middle of a query, slurmdbd lets sacct answer with nothing, and exit 0."""
    site = Site(ledger, *(run_at(NOON + day * DAY, day) for day in range(1, 7)))
    site.slurm.failing_windows = 3
    assert 6 == site.reconcile().jobs


def test_coverage_counts_what_the_hook_queued(ledger: Ledger) -> None:
    """A job delivered by flush, or waiting for it, was caught; another was missed, unless it has only just ended."""
    flushed, waiting, missed, fresh = (run_at(NOON + DAY, job) for job in (1, 2, 3, 4))
    site = Site(ledger, flushed, waiting, missed, fresh._replace(end=NOW - 5))
    by_flush = site.deliver("flush")
    by_flush.add(make_record([flushed], "lab"))
    by_flush.flush()
    with ledger.transaction():
        ledger.waiting.add([QueueEntry(2)], NOW)
    tally = site.reconcile()
    assert (4, 1) == (tally.jobs, tally.missed)
    assert [3] == list(tally.jobs_by_day.values())
    assert [2] == list(tally.hooked_by_day.values())


def test_never_started_jobs_are_skipped_on_request(ledger: Ledger) -> None:
    """With never_started = "skip" a job that was cancelled while pending is left out."""
    site = Site(ledger, run_at(NOON + DAY, State="CANCELLED", Start="None", ElapsedRaw="0", NodeList="None assigned"))
    site.reconcile(settings=SETTINGS._replace(skip_never_started=True))
    assert [] == site.sent()
    site.reconcile()
    assert [0.0] == [record["CPUHours"] for record in site.sent()]


def test_a_refused_record_is_not_sent_again_unless_it_changes(ledger: Ledger) -> None:
    """A poison record is not retried forever, dropped or not; an edited one is a new one."""
    site = Site(ledger, run_at(NOON + DAY))
    site.reconcile()
    site.sent()
    with ledger.transaction():
        ledger.rejected.add("lab", make_record([run_at(NOON + DAY)], "lab"), "no such user", NOW, hooked=False)
    site.reconcile()
    assert [] == site.sent()
    site.slurm.runs[0] = run_at(NOON + DAY, Account="chemistry")
    site.reconcile()
    assert 1 == len(site.sent())


def test_an_earlier_owner_of_a_jobid_does_not_overwrite_the_later_one(ledger: Ledger) -> None:
    """The dashboard keeps the record that arrived last: a replay of old days must not bring back the old job."""
    old, new = run_at(NOON + HOUR), run_at(NOON + 5 * DAY)
    site = Site(ledger, old, new)
    site.reconcile()
    site.sent()
    site.reconcile(Range(NOON, NOON + DAY))
    assert [] == site.sent()


def test_an_earlier_owner_is_sent_even_if_its_jobid_was_reused(ledger: Ledger) -> None:
    """A preempted job that will not run again, and whose JobID was reused since, is still that job."""
    old = run_at(NOON + HOUR, State="PREEMPTED")
    for state in ("COMPLETED", "PREEMPTED", "REQUEUED"):
        site = Site(ledger, old, run_at(NOON + 300 * DAY, State=state, UID="1001"))
        site.reconcile(now=NOW + 400 * DAY)
        assert ["PREEMPTED"] == [record["State"] for record in site.sent()], state


def test_an_earlier_owner_with_another_jobid_is_another_job(ledger: Ledger) -> None:
    """A killed slurmctld may reuse an ID at once, for example for a task of an array: both jobs are sent."""
    old, new = run_at(NOON + HOUR, 100), run_at(NOON + 2 * HOUR, 100, JobID="98_3")
    site = Site(ledger, old, new)
    site.reconcile()
    assert ["100", "98_3"] == sorted(record["JobID"] for record in site.sent())
    site.reconcile(Range(NOON, NOON + HOUR))
    assert ["100"] == [record["JobID"] for record in site.sent()]


AGAIN, LOST = run_at(NOON + 2 * HOUR, 100, JobID="98_3"), run_at(NOON + HOUR, 120, JobID="98_3")


@pytest.mark.parametrize("others", [0, JOBS_AT_ONCE])
@pytest.mark.parametrize("order", [[AGAIN, LOST], [LOST, AGAIN]], ids=["newest first", "newest last"])
def test_a_task_that_was_run_again_under_another_raw_id(ledger: Ledger, order: list[Run], others: int) -> None:
    """Of its two runs the one that ended last is on the dashboard, wherever sacct prints it."""
    between = [run_at(NOON + HOUR, job) for job in range(1000, 1000 + others)]
    site = Site(ledger, order[0], *between, order[1])
    site.reconcile()
    assert local_text(NOON + 2 * HOUR) == [record["End"] for record in site.sent() if record["JobID"] == "98_3"][-1]


def test_a_lost_run_that_is_found_later_is_not_sent(ledger: Ledger) -> None:
    """The dashboard has the task's later run: another reconcile, of the lost run's day, leaves it there."""
    again = AGAIN._replace(end=NOON + 3 * DAY)
    site = Site(ledger, again)
    site.reconcile()
    site.sent()
    site.slurm.runs.append(LOST)
    tally = site.reconcile(Range(NOON, NOON + DAY))
    assert ([], 0) == (site.sent(), tally.missed)


def test_an_older_task_does_not_come_last_because_its_raw_id_had_another_owner(ledger: Ledger) -> None:
    """An array's ID was given twice: what counts is the end of each job, not of all that had its raw ID."""
    older, other = run_at(NOON + HOUR, 196, JobID="181_1"), run_at(NOON + 3 * HOUR, 196, JobID="196", UID="1001")
    newer = run_at(NOON + 2 * HOUR, 182, JobID="181_1")
    site = Site(ledger, other, newer, older)
    site.reconcile()
    assert local_text(NOON + 2 * HOUR) == [record["End"] for record in site.sent() if record["JobID"] == "181_1"][-1]


def test_an_interlude_never_runs_between_asking_and_sending(ledger: Ledger) -> None:
    """What something else delivers between two slices must not be overwritten by rows that were read before."""
    site = Site(ledger, *(run_at(NOON + day * DAY, day) for day in range(1, 7)))
    site.reconcile(
        interlude=lambda: site.slurm.windows.append((0, 0, "interlude")),
        stopwatch=itertools.count(0, INTERLUDE_SECONDS).__next__,
    )
    windows = [window for window in site.slurm.windows if window[2] != GOING_ON]
    asked = [window[2] for window, before in zip(windows, [None, *windows]) if window != before]
    assert asked.count("interlude") > 1
    assert all(words == "interlude" for words in asked[1::2])


def test_progress_is_reported_to_the_end(ledger: Ledger) -> None:
    """After the last slice the whole range is done."""
    reported: list[Any] = []
    Site(ledger, run_at(NOON + DAY)).reconcile(on_progress=lambda *progress: reported.append(progress))
    assert (WINDOW.end, 1) == reported[-1]
