"""Whatever a dashboard or a proxy can't process in time is sent again, in smaller batches, in the same run."""

from __future__ import annotations

import itertools
from typing import Callable, Sequence

import pytest

from agent.errors import BatchRefused, BatchTooLarge, DashboardUnreachable, ExporterError
from agent.jobs.queue_entry import QueueEntry
from agent.spool.facts import BATCH_BYTES, BATCH_CEILING
from agent.spool.ledger import Ledger
from agent.sync.batch_size import CEILING_SECONDS, FIRST_BYTES, LARGEST_BYTES
from agent.sync.culprit import MOST_UNPROVEN
from agent.sync.delivery import Delivery
from tests.support.memory import MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, bare_job_ids, make_bare_record
from tests.support.sites import MemorySite

NOW = float(NOON)
RECORD_BYTES = 430
Manners = Callable[[Sequence[int], int], "ExporterError | None"]


class SlowDashboard(MemoryDashboard):
    """Takes time for each request, by its own clock, and gives up as its manners say.

    :param manners: returns what goes wrong with a batch, given its raw JobIDs and bytes, or None.
    :param cost: seconds for that many records.
    """

    def __init__(
        self, manners: Manners = lambda *_: None, cost: Callable[[int], float] = lambda _: 0.0, timeout: float = 30
    ) -> None:
        super().__init__()
        self.manners = manners
        self.cost = cost
        self.timeout = timeout
        self.is_there = True
        self.seconds = 0.0
        self.sizes: list[int] = []
        self.pulses = 0
        self.stored: set[int] = set()

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = 1) -> str:
        job_ids = bare_job_ids(texts)
        self.sizes.append(len(texts))
        trouble = self.manners(job_ids, sum(map(len, texts)))
        seconds = self.cost(len(texts))
        self.seconds += min(seconds, self.timeout)
        if seconds > self.timeout:
            self.stored.update(job_ids)  # some time later
            raise timed_out()
        if trouble:
            raise trouble
        self.stored.update(job_ids)
        return "ok"

    def answers(self) -> bool:
        self.pulses += 1
        return self.is_there


class Site(MemorySite[MemorySlurm, SlowDashboard]):
    """A ledger and such a dashboard, and runs between them."""

    def __init__(self, ledger: Ledger, dashboard: SlowDashboard) -> None:
        super().__init__(
            ledger,
            MemorySlurm(),
            dashboard,
            now=NOW,
            timeout=dashboard.timeout,
            stopwatch=lambda: dashboard.seconds,
        )

    def send_ids(self, job_ids: Sequence[int], *, record_bytes: int = RECORD_BYTES) -> Delivery:
        """One run of flush."""
        self.queue(*map(QueueEntry, job_ids))
        return self.send(make_bare_record(job_id, record_bytes) for job_id in job_ids)


def timed_out() -> DashboardUnreachable:
    return DashboardUnreachable("no answer in time", permanent=True, timed_out=True, overwhelmed=True)


def bad_gateway() -> DashboardUnreachable:
    return DashboardUnreachable("502", overwhelmed=True)


def lets_through(most: int, trouble: Callable[[], ExporterError]) -> Manners:
    """A limit of bytes."""
    return lambda _, size: trouble() if size > most else None


def stumbles_over(bad: int, trouble: Callable[[], ExporterError]) -> Manners:
    """One record is too much for it, alone and among others."""
    return lambda job_ids, _: trouble() if bad in job_ids else None


def test_two_milliseconds_a_record(ledger: Ledger) -> None:
    """With a time-out of 2 s, 6,000 jobs are delivered in one run, without a single time-out."""
    site = Site(ledger, SlowDashboard(cost=lambda records: 0.002 * records, timeout=2))
    assert 6000 == site.send_ids(range(1, 6001)).delivered
    assert ([], 0) == (site.waiting_ids(), site.dashboard.pulses)
    assert [40, 80, 160, 320, 499, 499] == site.dashboard.sizes[:6]
    assert len(site.dashboard.sizes) == 15


@pytest.mark.parametrize("milliseconds", [5, 20, 100, 1000])
def test_slower_ones(ledger: Ledger, milliseconds: int) -> None:
    """Likewise in one run, with a few time-outs at the beginning that the next run does not repeat."""
    site = Site(ledger, SlowDashboard(cost=lambda records: records * milliseconds / 1000, timeout=2))
    assert 700 == site.send_ids(range(1, 701)).delivered
    assert ([], True) == (site.waiting_ids(), site.dashboard.pulses <= 5)
    before = site.dashboard.pulses
    site.send_ids(range(701, 801))
    assert before == site.dashboard.pulses


@pytest.mark.parametrize("trouble", [timed_out, bad_gateway])
@pytest.mark.parametrize("jobs", [2, 5, 600])
def test_a_hiccup_during_a_small_batch_limits_no_later_one(
    ledger: Ledger, trouble: Callable[[], ExporterError], jobs: int
) -> None:
    """Much larger batches were accepted before, so the size was not at fault."""
    site = Site(ledger, SlowDashboard())
    site.send_ids(range(1, 20_001))
    failures = [trouble(), trouble()]
    site.dashboard.manners = lambda *_: failures.pop() if failures else None
    assert jobs == site.send_ids(range(20_001, 20_001 + jobs)).delivered
    del site.dashboard.sizes[:]
    site.send_ids(range(30_001, 36_001))
    assert [5000, 1000] == site.dashboard.sizes


def test_a_dashboard_behind_a_partly_dead_load_balancer(ledger: Ledger) -> None:
    """One of its four backends never answers: batches stay large, because as large ones were accepted."""
    site = Site(ledger, SlowDashboard())
    calls = itertools.count()
    site.dashboard.manners = lambda *_: timed_out() if next(calls) % 4 == 3 else None
    assert 60_000 == site.send_ids(range(1, 60_001)).delivered
    assert len(site.dashboard.sizes) < 40


def test_what_the_real_dashboard_costs(ledger: Ledger) -> None:
    """65 ms and 27 µs a record: 30,000 jobs in 9 requests, of which the first ones are small."""
    site = Site(ledger, SlowDashboard(cost=lambda records: 0.065 + 27e-6 * records))
    site.send_ids(range(1, 30_001))
    assert [609, 1218, 2436, 4872, 5000] == site.dashboard.sizes[:5]
    assert len(site.dashboard.sizes) == 9


def test_time_that_does_not_depend_on_the_size(ledger: Ledger) -> None:
    """A dashboard that takes 25 s for any POST gets no smaller batches for it: that would be even more POSTs."""
    site = Site(ledger, SlowDashboard(cost=lambda _: 25.0))
    site.send_ids(range(1, 2001))
    assert [609, 609, 609, 173] == site.dashboard.sizes


@pytest.mark.parametrize("trouble", [timed_out, bad_gateway, lambda: BatchTooLarge("413")])
@pytest.mark.parametrize("limit", [1 << 20, 1 << 17, 1 << 14, 1 << 11, 450])
def test_any_limit_of_a_proxy(ledger: Ledger, limit: int, trouble: Callable[[], ExporterError]) -> None:
    """Even if it lets no two records through, all are delivered in one run, and the next one knows the limit."""
    jobs = 3000 if limit > 1 << 17 else 700
    site = Site(ledger, SlowDashboard(lets_through(limit, trouble)))
    assert (jobs, 0, 0) == _counts(site.send_ids(range(1, jobs + 1)))
    failed = len(site.dashboard.sizes)
    site.dashboard.sizes.clear()
    site.send_ids(range(jobs + 1, 2 * jobs + 1))
    assert ([], 2 * jobs) == (site.waiting_ids(), len(site.dashboard.stored))
    assert len(site.dashboard.sizes) <= failed
    assert max(site.dashboard.sizes) * RECORD_BYTES <= max(limit, RECORD_BYTES + 1)


@pytest.mark.parametrize(("limit", "runs"), [(1 << 20, 1), (1 << 17, 1), (1 << 14, 1), (1 << 11, 2)])
def test_a_limit_that_looks_like_a_refusal(ledger: Ledger, limit: int, runs: int) -> None:
    """A 400, 403 or 500 for a batch that is too large: if no record is found at fault, it was the size."""
    site = Site(ledger, SlowDashboard(lets_through(limit, lambda: BatchRefused("500"))))
    jobs = list(range(1, 1001))
    for _ in range(runs):
        site.send_ids(jobs)
        jobs = site.waiting_ids()
    assert (0, 1000) == (len(site.waiting_ids()), len(site.dashboard.stored))
    site.dashboard.sizes.clear()
    site.send_ids(range(1001, 1401))
    assert ([], True) == (site.waiting_ids(), max(site.dashboard.sizes) * RECORD_BYTES <= limit)


def _counts(delivery: Delivery) -> tuple[int, int, int]:
    return delivery.delivered, delivery.rejected, delivery.refused


@pytest.mark.parametrize("trouble", [timed_out, bad_gateway])
def test_a_dashboard_that_is_down_gets_few_requests(ledger: Ledger, trouble: Callable[[], ExporterError]) -> None:
    """The run ends after one request and a health check."""
    site = Site(ledger, SlowDashboard(lambda *_: trouble()))
    site.dashboard.is_there = False
    with pytest.raises(DashboardUnreachable):
        site.send_ids(range(1, 1001))
    assert ([609], 1, 1000) == (site.dashboard.sizes, site.dashboard.pulses, len(site.waiting_ids()))


def test_a_night_without_answers_leaves_no_trace(ledger: Ledger) -> None:
    """Batches get smaller each time, as it may be their size; in the morning they double with each that is accepted."""
    site = Site(ledger, SlowDashboard(lambda *_: timed_out()))
    site.dashboard.is_there = False
    for _ in range(30):
        with pytest.raises(DashboardUnreachable):
            site.send_ids(range(1, 1001))
    site.dashboard.manners, site.dashboard.is_there = (lambda *_: None), True
    site.dashboard.sizes.clear()
    site.send_ids(range(1, 20_001))
    assert 5000 == max(site.dashboard.sizes)
    assert (0.0, True) == (ledger.facts.get(BATCH_CEILING), len(site.dashboard.sizes) < 25)


def test_a_dashboard_that_completes_no_request(ledger: Ledger) -> None:
    """The dashboard is up but fails every batch: the run ends after some requests, and rejects no record."""
    site = Site(ledger, SlowDashboard(lambda job_ids, _: timed_out() if job_ids else None))
    with pytest.raises(DashboardUnreachable, match="refuses every record: no answer in time"):
        site.send_ids(range(1, 5001))
    assert (5000, 0) == (len(site.waiting_ids()), len(list(ledger.rejected.newest())))
    assert len(site.dashboard.sizes) <= 5 + 2 * MOST_UNPROVEN + 1


@pytest.mark.parametrize("place", [1, 777, 2000])
@pytest.mark.parametrize("trouble", [timed_out, bad_gateway])
def test_a_record_that_breaks_the_dashboard(ledger: Ledger, place: int, trouble: Callable[[], ExporterError]) -> None:
    """A record that crashes its worker, or never finishes, is kept; the others arrive, in large batches."""
    site = Site(ledger, SlowDashboard(stumbles_over(place, trouble)))
    assert (1999, 0, 1) == _counts(site.send_ids(range(1, 2001)))
    assert [place] == site.waiting_ids()
    assert len(site.dashboard.sizes) < 40
    site.dashboard.sizes.clear()
    site.dashboard.manners = lambda *_: None
    site.send_ids(range(2001, 6001))
    assert max(site.dashboard.sizes) > 2000


def test_such_a_record_on_an_idle_cluster(ledger: Ledger) -> None:
    """The run can't know whose fault it is; the next run with another job delivers that one."""
    site = Site(ledger, SlowDashboard(stumbles_over(1, timed_out)))
    assert (0, 0, 1) == _counts(site.send_ids([1]))
    assert (1, 0, 1) == _counts(site.send_ids([1, 2]))
    assert [1] == site.waiting_ids()


def test_a_temporary_failure_shrinks_nothing(ledger: Ledger) -> None:
    """A backend that restarts is asked again with the same batch."""
    troubles = [bad_gateway()]
    site = Site(ledger, SlowDashboard(lambda *_: troubles.pop() if troubles else None))
    site.send_ids(range(1, 1001))
    assert [609, 609, 391] == site.dashboard.sizes
    assert 2 * 609 * RECORD_BYTES == pytest.approx(ledger.facts.get(BATCH_BYTES), rel=0.01)


def test_an_unreliable_proxy_shrinks_batches_only_a_little(ledger: Ledger) -> None:
    """Each fifth request fails, whatever its size: all jobs are delivered in one run."""
    count = iter(range(10_000))
    site = Site(ledger, SlowDashboard(lambda *_: bad_gateway() if next(count) % 5 == 4 else None))
    assert (20_000, 0, 0) == _counts(site.send_ids(range(1, 20_001)))
    assert len(site.dashboard.sizes) < 15


def test_a_bad_record_for_a_dashboard_that_is_slow(ledger: Ledger) -> None:
    """It is refused at once, but the others are too much for one request: they go out in parts."""

    def manners(job_ids: Sequence[int], _: int) -> ExporterError | None:
        named = {index: "no such user" for index, job_id in enumerate(job_ids) if job_id == 5}
        if named:
            return BatchRefused("422", named=named)
        return timed_out() if len(job_ids) > 100 else None

    site = Site(ledger, SlowDashboard(manners))
    assert (1999, 1, 0) == _counts(site.send_ids(range(1, 2001)))
    assert [] == site.waiting_ids()


def test_records_stored_despite_a_time_out(ledger: Ledger) -> None:
    """The batch is sent again in smaller parts, and only their answers acknowledge it."""
    site = Site(ledger, SlowDashboard(cost=lambda records: 0.1 * records, timeout=2))
    site.send_ids(range(1, 201))
    assert ([], 200) == (site.waiting_ids(), len(site.dashboard.stored))
    assert sum(site.dashboard.sizes) > 200


def test_records_with_thousands_of_nodes(ledger: Ledger) -> None:
    """Records of 20 kB each are delivered without exceeding the size of a POST."""
    sizes: list[int] = []
    site = Site(ledger, SlowDashboard(lambda _, size: sizes.append(size)))
    site.send_ids(range(1, 2001), record_bytes=20_000)
    assert sizes[0] <= FIRST_BYTES
    assert max(sizes) <= LARGEST_BYTES
    assert len(sizes) < 25


def test_a_record_that_is_larger_than_any_batch(ledger: Ledger) -> None:
    """It is sent alone."""
    site = Site(ledger, SlowDashboard())
    site.send_ids([1, 2], record_bytes=FIRST_BYTES + 10)
    assert [1, 1] == site.dashboard.sizes


def test_the_ceiling_is_tried_again_after_a_day(ledger: Ledger) -> None:
    """A proxy whose limit was raised gets large batches again, and one whose limit stands costs a request a day."""
    site = Site(ledger, SlowDashboard(lets_through(FIRST_BYTES, lambda: BatchTooLarge("413"))))
    site.send_ids(range(1, 5001))
    assert 0 < ledger.facts.get(BATCH_CEILING) <= FIRST_BYTES
    site.dashboard.sizes.clear()
    site.send_ids(range(5001, 10_001))
    assert max(site.dashboard.sizes) * RECORD_BYTES <= FIRST_BYTES
    site.now += CEILING_SECONDS
    site.dashboard.manners = lambda *_: None
    site.send_ids(range(10_001, 30_001))
    assert 5000 == max(site.dashboard.sizes)


def test_the_size_is_remembered(ledger: Ledger) -> None:
    """The next run begins where this one has ended."""
    site = Site(ledger, SlowDashboard())
    site.send_ids(range(1, 10_001))
    site.dashboard.sizes.clear()
    site.send_ids(range(10_001, 15_001))
    assert [5000] == site.dashboard.sizes


def test_what_is_logged(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what was too much, and with which size the run continues."""
    site = Site(ledger, SlowDashboard(lets_through(100_000, bad_gateway)))
    site.send_ids(range(1, 601))
    assert [
        "502; the dashboard is reachable, trying again",
        "502; continuing with at most 126 kB at a time",
        "502; continuing with at most 32 kB at a time",
    ] == caplog.messages


def login_page() -> DashboardUnreachable:
    return DashboardUnreachable("this is not the dashboard's answer", foreign=True)


def test_a_firewall_that_answers_instead_of_the_dashboard(ledger: Ledger) -> None:
    """Whether one record or the size causes a 200 with a foreign page, the others are delivered."""
    site = Site(ledger, SlowDashboard(stumbles_over(77, login_page)))
    assert (599, 1, 0) == _counts(site.send_ids(range(1, 601)))
    site.dashboard.manners = lets_through(50_000, login_page)
    assert (600, 0, 0) == _counts(site.send_ids(range(1001, 1601)))


@pytest.mark.parametrize("jobs", [1, 600])
def test_a_login_page_for_everything(ledger: Ledger, jobs: int) -> None:
    """Two requests show that no record is at fault, and nothing is rejected or delayed."""
    site = Site(ledger, SlowDashboard(lambda *_: login_page()))
    with pytest.raises(DashboardUnreachable, match="not the dashboard's answer"):
        site.send_ids(range(1, jobs + 1))
    assert ({"not sent yet"}, 2) == ({item.reason for item in ledger.waiting.newest()}, len(site.dashboard.sizes))


@pytest.mark.parametrize("facts", [(-5, 0), (float("inf"), 0), (1e300, 5), (1000, -1), (1000, 1e300), (0.3, 0)])
def test_what_a_bad_disk_makes_of_the_size(ledger: Ledger, facts: tuple[float, float]) -> None:
    """The size starts from the default again."""
    with ledger.transaction():
        for name, value in zip((BATCH_BYTES, BATCH_CEILING), facts):
            ledger.facts.set(name, value)
    site = Site(ledger, SlowDashboard())
    site.send_ids(range(1, 1001))
    assert [609, 391] == site.dashboard.sizes
