"""With a spool that hangs, a burst, a lost StateSaveLocation or an older database, no job is lost or sent wrong."""

from __future__ import annotations

import time
from typing import Iterator

import pytest

from tests.ha import troubles
from tests.ha.sites import Pair
from tests.ha.truth import compare


@pytest.fixture(scope="module")
def site() -> Iterator[Pair]:
    single = Pair(backup=False)
    with single:
        yield single


def is_well(site: Pair) -> None:
    """Checks that the dashboard has every job of the accounting, and no wrong record."""
    troubles.deliver_all(site)
    site.exporters["ctl1"].run("reconcile")
    found = compare(site, site.cluster)
    assert ([], [], []) == (found.lost, found.foreign, found.wrong)


def test_a_spool_that_hangs(site: Pair) -> None:
    """Jobs end as usual; slurmctld does not stop before the spool answers, and then makes the pending calls."""
    found = troubles.freeze(site, 12, patience_seconds=3)
    assert found.stopping is None
    assert found.thawed is not None
    assert 12 - 3 <= found.queued <= 12  # the calls that were running when the spool hung are lost
    assert "DBD Agent queue size: 0" in found.sdiag
    is_well(site)


def test_a_burst(site: Pair) -> None:
    """If all tasks of an array end at once, the hook is called for each, and flush alone delivers them."""
    moments = list(troubles.burst(site, 300, every_seconds=1, limit_seconds=200))
    assert (300, 300) == (moments[-1].called, moments[-1].delivered)
    is_well(site)


def test_an_older_database_and_a_wiped_state(site: Pair) -> None:
    """Jobs that the accounting has lost stay on the dashboard; of a reused JobID, the newer job is shown."""
    saved = troubles.dump(site)
    troubles.run_jobs(site, 5)
    is_well(site)
    shown = dict(site.board.stored)
    troubles.restore(site, saved)
    troubles.run_jobs(site, 5)
    troubles.deliver_all(site)
    site.exporters["ctl1"].run("reconcile")
    assert [] == compare(site, site.cluster).lost
    assert shown == {key: site.board.stored[key] for key in shown}
    troubles.wipe_state(site)
    time.sleep(1)  # reused JobIDs are distinguished by the second of their Submit
    troubles.run_jobs(site, 5)
    troubles.deliver_all(site)
    site.exporters["ctl1"].run("reconcile")
    found = compare(site, site.cluster)
    assert ([], []) == (found.lost, found.wrong)


def test_a_first_job_id_above_the_old_ones(site: Pair) -> None:
    """After slurmctld has lost its state, FirstJobId keeps new jobs from replacing old ones."""
    shown = dict(site.board.stored)
    troubles.wipe_state(site, first_job_id=5000)
    troubles.run_jobs(site, 5)
    troubles.deliver_all(site)
    assert [] == compare(site, site.cluster).lost
    assert shown == {key: site.board.stored[key] for key in shown}
    assert len(site.board.stored) == len(shown) + 5
