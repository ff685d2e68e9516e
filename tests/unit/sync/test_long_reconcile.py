"""What a session does besides: flushes while a reconcile goes on, asks slurmctld, and repairs what others erased."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest

from agent.config import parse_config
from agent.errors import SlurmUnreachable
from agent.jobs.entry import QueueEntry
from agent.jobs.run import Run
from agent.slurm.controllers import Controllers
from agent.slurm.slurm import Slurm
from agent.spool.spool import Spool, open_spool
from agent.sync import session as session_module
from agent.sync.session import Session
from tests.support.memory import DAY, WINDOW, MemoryDashboard, MemorySlurm
from tests.support.rows import NOON, make_run

ELSEWHERE = Controllers("lab", ("ctl1(192.0.2.1)", "ctl2(192.0.2.2)"), "/nonexistent")


class Site:
    """A session at the end of the window, with the spool that it works on."""

    def __init__(self, folder: Path, slurm: MemorySlurm) -> None:
        self.slurm = slurm
        self.dashboard = MemoryDashboard()
        self.now = float(WINDOW.end)
        self._config = parse_config(
            {"api_url": "http://127.0.0.1:9", "api_key": "k", "cluster_name": "lab", "spool_dir": str(folder)}, {}
        )

    @contextmanager
    def session(self) -> Iterator[tuple[Session, Spool]]:
        slurm: Any = self.slurm
        with open_spool(self._config.spool_dir, complain=print, alone=True) as spool:
            yield (
                Session(
                    self._config,
                    spool,
                    Slurm(lambda: slurm, lambda: slurm),
                    lambda: self.dashboard,
                    dry_run=False,
                    clock=lambda: self.now,
                    sleep=lambda seconds: None,
                ),
                spool,
            )

    def sent(self) -> list[str]:
        """The JobIDs in the order of their arrival."""
        return [text.split('"')[3] for batch in self.dashboard.batches for text in batch]


def ended(job: int, end: int, **changes: str) -> Run:
    times = {"Submit": str(end - 3600), "Start": str(end - 3600), "End": str(end)}
    return make_run(JobID=str(job), JobIDRaw=str(job), **times, **changes)


def test_what_the_hook_queues_meanwhile_is_delivered_between_two_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backfill of hours holds the lock, and the newest jobs are not to wait for its end."""
    monkeypatch.setattr(session_module, "INTERLUDE_SECONDS", 0.0)
    newest = ended(9, WINDOW.end - 5)
    site = Site(tmp_path, MemorySlurm(*(ended(day, NOON + day * DAY - 1) for day in range(1, 6)), newest))
    with site.session() as (session, spool):
        spool.queue.append([QueueEntry(9, newest.submit, newest.end)])
        session.reconcile(WINDOW, only_missing=False)
        (row,) = spool.ledger.database.execute("SELECT command FROM delivered WHERE job_id = 9")
    assert ("flush",) == row
    assert site.sent().index("9") < site.sent().index("5")


@pytest.mark.parametrize("state", ["COMPLETING", "unreachable"])
def test_a_preempted_job_waits_for_slurmctld(tmp_path: Path, state: str) -> None:
    """It is preempted in the accounting; whether it goes on, slurmctld knows, and it may not answer."""
    slurm = MemorySlurm(ended(7, WINDOW.end - 900, State="PREEMPTED"))
    slurm.states = {7: state}
    if state == "unreachable":

        def job_states(raw_ids: object) -> dict[int, str]:
            raise SlurmUnreachable("scontrol timed out")

        slurm.job_states = job_states  # type: ignore[method-assign]
    site = Site(tmp_path, slurm)
    with site.session() as (session, spool):
        spool.queue.append([QueueEntry(7, None, WINDOW.end - 900)])
        session.flush()
        assert ([], [7]) == (site.sent(), [item.entry.job_id for item in spool.ledger.waiting.all()])


def test_what_another_host_may_have_erased_is_sent_again(tmp_path: Path) -> None:
    """Two hosts that know nothing of each other's turns: what is new, or has just ended, goes out a second time."""
    slurm = MemorySlurm(ended(1, NOON + DAY), ended(2, WINDOW.end - 60))
    slurm.controllers = lambda: ELSEWHERE  # type: ignore[method-assign]
    site = Site(tmp_path, slurm)
    with site.session() as (session, _):
        session.reconcile(WINDOW, only_missing=False)
    assert ["1", "2", "1", "2"] == site.sent()
    site.dashboard.batches.clear()
    site.now += 120
    with site.session() as (session, _):
        session.reconcile(WINDOW, only_missing=False)
    assert ["1", "2", "2"] == site.sent()
