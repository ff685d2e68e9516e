"""Batches are delivered, and one bad record among them delays nothing and costs few requests."""

from __future__ import annotations

import math
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BatchForbidden, BatchRefused, BatchTooLarge, DashboardUnreachable, ExporterError, KeyRefused
from agent.jobs.queue_entry import QueueEntry
from agent.spool.ledger import Ledger, open_ledger
from agent.spool.waiting import REFUSED
from agent.sync.culprit import MOST_UNPROVEN
from agent.sync.delivery import REFUSED_PAUSE_SECONDS, SEARCH_REQUESTS, Delivery
from tests.support.memory import MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, bare_job_ids, make_bare_record
from tests.support.sites import MemorySite

NOW = float(NOON)
Verdict = Callable[[Sequence[int]], "ExporterError | None"]


class PickyDashboard(MemoryDashboard):
    """Takes what its manners let through, and counts requests as they would go over the wire.

    :param manners: returns what is wrong with a batch, given its raw JobIDs, or None.
    """

    def __init__(self, manners: Verdict) -> None:
        super().__init__()
        self.manners = manners
        self.requests = 0
        self.sizes: list[int] = []
        self.taken: list[int] = []

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = 1) -> str:
        job_ids = bare_job_ids(texts)
        self.sizes.append(len(texts))
        trouble = self.manners(job_ids)
        # A 500 is retried, because it may be temporary. A record that the dashboard names is at fault.
        self.requests += tries if trouble and not getattr(trouble, "named", None) else 1
        if trouble:
            raise trouble
        self.taken += job_ids
        return f"{len(texts)} jobs for {cluster}"


def breaks_on(bad: Iterable[int]) -> Verdict:
    """A dashboard that answers 500 to every batch with a bad record in it."""
    poison = set(bad)
    return lambda job_ids: BatchRefused("500") if poison & set(job_ids) else None


def names(bad: Iterable[int]) -> Verdict:
    """A dashboard that answers 422 with the index of each bad record."""
    poison = set(bad)

    def judge(job_ids: Sequence[int]) -> BatchRefused | None:
        named = {index: "no such user" for index, job_id in enumerate(job_ids) if job_id in poison}
        return BatchRefused("422", named=named) if named else None

    return judge


def takes_at_most(records: int) -> Verdict:
    """A proxy that answers 413 to larger batches."""
    return lambda job_ids: BatchTooLarge("413") if len(job_ids) > records else None


def is_sick(job_ids: Sequence[int]) -> BatchRefused | None:
    """A dashboard with a full disk: every batch with records breaks it."""
    return BatchRefused("500 disk full") if job_ids else None


class Site(MemorySite[MemorySlurm, PickyDashboard]):
    """A ledger and such a dashboard, and deliveries between them."""

    def __init__(self, ledger: Ledger, manners: Verdict, *, batch_size: int = 5000) -> None:
        super().__init__(ledger, MemorySlurm(), PickyDashboard(manners), now=NOW, batch_size=batch_size)

    def queue_ids(self, job_ids: Iterable[int]) -> None:
        self.queue(*map(QueueEntry, job_ids))

    def send_ids(self, job_ids: Iterable[int], command: str = "flush") -> Delivery:
        """One run; of flush for jobs that wait, of reconcile for any."""
        return self.send(map(make_bare_record, job_ids), command)

    def waiting_in_the_order_of_flush(self) -> list[int]:
        """Refused jobs come last."""
        return [item.entry.job_id for item in sorted(self.ledger.waiting.newest(), key=lambda item: item.due_at)]

    def delivered(self, job_id: int) -> bool:
        return make_bare_record(job_id).key in self.ledger.delivered.known("lab", [make_bare_record(job_id)])


def test_acknowledged_jobs_are_no_longer_queued(ledger: Ledger) -> None:
    """Full batches go out as they fill up, and every job of them moves from waiting to delivered."""
    site = Site(ledger, lambda job_ids: None, batch_size=10)
    site.queue_ids(range(1, 26))
    assert 25 == site.send_ids(range(1, 26)).delivered
    assert (3, []) == (site.dashboard.requests, site.waiting_ids())
    assert all(site.delivered(job_id) for job_id in range(1, 26))


@pytest.mark.parametrize("trouble", [DashboardUnreachable("down"), KeyRefused("401")])
def test_jobs_that_were_not_acknowledged_stay_queued(ledger: Ledger, trouble: ExporterError) -> None:
    """Only a 2xx acknowledges a job: the batch that failed, and those behind it, still wait."""
    site = Site(ledger, lambda job_ids: trouble if 11 in job_ids else None, batch_size=10)
    site.queue_ids(range(1, 31))
    with pytest.raises(type(trouble)):
        site.send_ids(range(1, 31))
    assert list(range(11, 31)) == site.waiting_ids()


@pytest.mark.parametrize("count", [2, 3, 7, 100, 1000, 5000])
@pytest.mark.parametrize("place", [0.0, 0.37, 1.0])
def test_what_one_poison_record_costs(ledger: Ledger, count: int, place: float) -> None:
    """It is found with 2 x log2(n) requests and up to eight more, set aside, and everything else is delivered.

    These are the look at the dashboard before and after, and three more tries of the batch and of the record.
    """
    poison = 1 + round(place * (count - 1))
    site = Site(ledger, breaks_on([poison]))
    site.queue_ids(range(1, count + 1))
    delivery = site.send_ids(range(1, count + 1))
    assert (count - 1, 1, 0) == (delivery.delivered, delivery.rejected, delivery.refused)
    assert ([poison], []) == (site.rejected_ids(), site.waiting_ids())
    assert site.dashboard.requests - 1 <= 2 * math.ceil(math.log2(count)) + 8


@pytest.mark.parametrize("count", [2, 100, 5000])
def test_what_a_record_costs_that_the_dashboard_names(ledger: Ledger, count: int) -> None:
    """A 422 that names it costs three requests more: a look before, the others again, a look after."""
    site = Site(ledger, names([2]))
    site.queue_ids(range(1, count + 1))
    site.send_ids(range(1, count + 1))
    assert ([2], []) == (site.rejected_ids(), site.waiting_ids())
    assert 4 == site.dashboard.requests
    assert ["no such user"] == [record.reason for record in ledger.rejected.newest()]


def test_a_search_says_what_it_is_for(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """The journal explains why the dashboard is asked so often."""
    site = Site(ledger, breaks_on([3]))
    site.queue_ids(range(1, 9))
    site.send_ids(range(1, 9))
    assert "500; searching 8 records for the one at fault" in caplog.messages


def test_several_poison_records(ledger: Ledger) -> None:
    """Each bad record costs at most one search."""
    poison = [1, 77, 78, 2500, 4999]
    site = Site(ledger, breaks_on(poison))
    site.queue_ids(range(1, 5001))
    site.send_ids(range(1, 5001))
    assert (poison, []) == (site.rejected_ids(), site.waiting_ids())
    assert site.dashboard.requests - 1 <= len(poison) * (2 * 13 + 3) + 5


def test_a_failing_dashboard_rejects_no_record(ledger: Ledger) -> None:
    """If it refuses a record that it has just accepted, it is at fault: one request shows that, and all is kept."""
    site = Site(ledger, lambda job_ids: is_sick(job_ids) if site.dashboard.taken else None, batch_size=10)
    site.queue_ids(range(1, 31))
    with pytest.raises(DashboardUnreachable, match="accepts nothing"):
        site.send_ids(range(1, 31))
    assert ([], list(range(11, 31))) == (site.rejected_ids(), site.waiting_ids())
    assert 1 + 4 + 1 == site.dashboard.requests


def test_a_dashboard_that_fails_from_the_first_record(ledger: Ledger) -> None:
    """Though it takes an empty batch, several records refused alone, and none accepted, are enough: all are kept."""
    site = Site(ledger, is_sick)
    site.queue_ids(range(1, 5001))
    assert 5000 == site.send_ids(range(1, 5001)).refused
    assert ([], list(range(1, 5001))) == (site.rejected_ids(), site.waiting_ids())
    assert site.dashboard.requests <= 4 + 1 + 2 * 13 + MOST_UNPROVEN * (2 + 3) + 1


def test_a_failing_dashboard_gets_few_requests(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """After some refused batches, and none taken, the run ends."""
    site = Site(ledger, is_sick, batch_size=1)
    site.queue_ids(range(1, 101))
    with pytest.raises(DashboardUnreachable) as caught:
        site.send_ids(range(1, 101))
    assert "the dashboard refuses every record: 500 disk full" == str(caught.value)
    assert "see the dashboard's own log; everything is kept" == caught.value.hint
    assert "1 jobs (first: 1) were refused and kept: 500 disk full" in caplog.messages
    assert ([], list(range(1, 101))) == (site.rejected_ids(), site.waiting_ids())
    assert site.dashboard.requests == MOST_UNPROVEN * (4 + 1) + 4


def test_a_dashboard_that_refuses_even_an_empty_batch(ledger: Ledger) -> None:
    """A refused empty batch proves it at once."""
    site = Site(ledger, lambda job_ids: BatchRefused("success: false"))
    site.queue_ids([1, 2])
    with pytest.raises(DashboardUnreachable, match="accepts nothing"):
        site.send_ids([1, 2])
    assert [1, 2] == site.waiting_ids()


def test_a_dashboard_that_fails_during_the_search(ledger: Ledger) -> None:
    """Records found before that are not rejected: the check afterwards shows that the dashboard is at fault."""
    site = Site(ledger, lambda job_ids: BatchRefused("500") if 1 in job_ids or len(site.dashboard.taken) > 90 else None)
    site.queue_ids(range(1, 101))
    with pytest.raises(DashboardUnreachable):
        site.send_ids(range(1, 101))
    assert [] == site.rejected_ids()
    assert 100 == len(site.waiting_ids()) + sum(site.delivered(job_id) for job_id in range(1, 101))


def test_a_poison_record_on_an_idle_cluster(ledger: Ledger) -> None:
    """Alone it might be the dashboard's fault: it is kept and shown, and set aside as soon as another job is taken."""
    site = Site(ledger, breaks_on([1]))
    site.queue_ids([1])
    delivery = site.send_ids([1])
    assert (0, 1) == (delivery.rejected, delivery.refused)
    (item,) = ledger.waiting.newest()
    assert (NOW + REFUSED_PAUSE_SECONDS, REFUSED, "500") == (item.due_at, item.state, item.reason)
    site.queue_ids([2])
    with ledger.transaction():
        ledger.waiting.retry_refused(NOW)
    due = ledger.waiting.due(NOW, after=(0, 0), limit=10)
    assert [1, 2] == [item.entry.job_id for item in due]
    site.send_ids([1, 2])
    assert ([1], []) == (site.rejected_ids(), site.waiting_ids())


def test_a_poison_record_that_only_reconcile_knows(ledger: Ledger) -> None:
    """Alone in its slice it delays no other, and is retried and set aside once another was accepted."""
    site = Site(ledger, breaks_on([1]), batch_size=1)
    delivery = site.send_ids([1, 2, 3], command="reconcile")
    assert (2, 1, 0) == (delivery.delivered, delivery.rejected, delivery.refused)
    assert ([1], []) == (site.rejected_ids(), site.waiting_ids())


def test_a_poison_record_alone(ledger: Ledger) -> None:
    """A record that reconcile can neither deliver nor reject is queued for flush."""
    site = Site(ledger, breaks_on([1]))
    assert 1 == site.send_ids([1], command="reconcile").refused
    assert ([], [1]) == (site.rejected_ids(), site.waiting_ids())


def test_records_that_others_have_delivered_meanwhile_are_not_overwritten(ledger: Ledger) -> None:
    """The record that proves the dashboard well is forgotten once it may be out of date."""
    site = Site(ledger, breaks_on([2]))
    delivery = site.send_ids([1], command="reconcile")
    delivery.forget_known_good()
    delivery.add(make_bare_record(2))
    delivery.flush()
    assert [1] == site.dashboard.taken


def test_a_batch_that_is_too_large(ledger: Ledger) -> None:
    """The batch is halved until it fits, and the next ones stay at that size."""
    site = Site(ledger, takes_at_most(300), batch_size=1000)
    site.queue_ids(range(1, 2001))
    assert 2000 == site.send_ids(range(1, 2001)).delivered
    assert [] == site.waiting_ids()
    assert site.dashboard.requests - 8 <= 4 + 2 * 4


def test_a_record_that_is_too_large(ledger: Ledger) -> None:
    """A record that no proxy accepts is set aside like any other."""
    site = Site(ledger, lambda job_ids: BatchTooLarge("413 too large") if 3 in job_ids else None)
    site.queue_ids(range(1, 6))
    site.send_ids(range(1, 6))
    assert ([3], []) == (site.rejected_ids(), site.waiting_ids())


def test_a_proxy_that_blocks_every_record(ledger: Ledger) -> None:
    """A limit below a single record is the proxy's fault: no record is rejected, and the run soon ends."""
    site = Site(ledger, takes_at_most(0))
    site.queue_ids(range(1, 5001))
    with pytest.raises(DashboardUnreachable, match="refuses every record"):
        site.send_ids(range(1, 5001))
    assert ([], list(range(1, 5001))) == (site.rejected_ids(), site.waiting_ids())
    assert site.dashboard.requests < 100


def test_a_firewall_that_blocks_one_record(ledger: Ledger) -> None:
    """A 403 caused by one record does not mean that the key is wrong."""
    site = Site(ledger, lambda job_ids: BatchForbidden("403 blocked") if 3 in job_ids else None)
    site.queue_ids(range(1, 6))
    site.send_ids(range(1, 6))
    assert ([3], []) == (site.rejected_ids(), site.waiting_ids())


def test_a_key_with_403_for_everything(ledger: Ledger) -> None:
    """If an empty batch is forbidden too, the key is wrong."""
    site = Site(ledger, lambda job_ids: BatchForbidden("403"))
    site.queue_ids([1, 2])
    with pytest.raises(KeyRefused):
        site.send_ids([1, 2])
    assert ([], [1, 2]) == (site.rejected_ids(), site.waiting_ids())


def test_a_search_has_its_limit(ledger: Ledger) -> None:
    """With half of the records bad a run limits its search, keeps the rest, and delivers other batches."""
    bad = range(1, 5001, 2)
    site = Site(ledger, breaks_on(bad))
    site.queue_ids(range(1, 5101))
    delivery = site.send_ids([*range(1, 5001), *range(5001, 5101)])
    assert all(site.delivered(job_id) for job_id in range(5002, 5101, 2))
    assert delivery.refused
    assert len(site.waiting_ids()) == delivery.refused
    assert 5100 == delivery.delivered + delivery.rejected + delivery.refused
    assert site.dashboard.requests <= SEARCH_REQUESTS * 4 + 20


@given(
    data=st.data(),
    count=st.integers(2, 60),
    batch_size=st.integers(1, 70),
    kind=st.sampled_from([breaks_on, names]),
)
def test_any_bad_records_in_any_batch(
    tmp_path: Path, data: st.DataObject, count: int, batch_size: int, kind: Callable[[Iterable[int]], Verdict]
) -> None:
    """As long as good jobs keep ending, every good one is finally delivered and every bad one set aside."""
    jobs = set(range(1, count + 1))
    bad = data.draw(st.sets(st.sampled_from(sorted(jobs)), max_size=count - 1))
    ledger, _ = open_ledger(Path(tempfile.mkdtemp(dir=tmp_path)) / "ledger.db")
    site = Site(ledger, kind(bad), batch_size=batch_size)
    site.queue_ids(jobs)
    for run in range(count):
        with suppress(DashboardUnreachable):
            site.send_ids(site.waiting_in_the_order_of_flush())
        if not site.waiting_ids():
            break
        site.queue_ids([count + run + 1])
    rejected = set(site.rejected_ids())
    ledger.close()
    assert (bad, jobs - bad) == (rejected, jobs & set(site.dashboard.taken))
