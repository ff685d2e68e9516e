"""What the agent remembers between runs, in one SQLite file in the spool.

It is an index and not the source of truth: without it everything is replayed from Slurm's accounting, and nothing is
lost. Changes that must survive a crash together share a transaction: a job is removed from ``waiting`` in the same one
that adds it to ``delivered`` or ``rejected``. SQLite 3.26 (EL 8) is sufficient.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import LedgerDamaged
from agent.spool.database import Database, put_aside
from agent.spool.delivered import DeliveredJobs
from agent.spool.facts import Facts
from agent.spool.rejected import RejectedRecords
from agent.spool.run_history import RunHistory
from agent.spool.waiting import WaitingJobs

if TYPE_CHECKING:
    from agent.spool.earlier_runs import EarlierRuns


class Ledger:
    """The tables of one file, with their operations. Open it with :func:`open_ledger`."""

    def __init__(self, path: Path, *, look: bool = False) -> None:
        self.database = database = Database(path, look=look)
        self.waiting = WaitingJobs(database)
        self.delivered = DeliveredJobs(database)
        self.rejected = RejectedRecords(database)
        self.facts = Facts(database)
        self.history = RunHistory(database, self.facts)
        self.transaction = database.transaction
        self.rehearsal = database.rehearsal
        self.close = database.close

    @property
    def earlier_runs(self) -> EarlierRuns:
        """The table of that name, imported late because neither ``status`` nor most flushes need it."""
        from agent.spool.earlier_runs import EarlierRuns  # noqa: PLC0415

        return EarlierRuns(self.database)

    @property
    def rehearses(self) -> bool:
        """Whether everything written will be rolled back."""
        return self.database.rehearses

    def prune(self, *, ended_before: float, requeued_before: float, runs_before: float) -> None:
        """Deletes what no reconcile of the window will ask for again."""
        self.delivered.prune(ended_before)
        self.rejected.prune(ended_before)
        self.earlier_runs.prune(requeued_before)
        self.history.prune(runs_before=runs_before, coverage_before=requeued_before)


def open_ledger(path: Path, *, alone: bool = True) -> tuple[Ledger, str]:
    """Opens the ledger, or creates a new one. An unusable one is first set aside: if it is damaged or too new.

    :param alone: whether no run can be using it; otherwise it is not set aside.
    :returns: the ledger, and what was set aside and why; empty if nothing was.
    :raises LedgerDamaged: if it is unusable and was not set aside.
    :raises SpoolError: if the disk or the permissions don't allow it.
    """
    try:
        return Ledger(path), ""
    except LedgerDamaged as error:
        if not alone:
            raise
        aside = put_aside(path)
        ledger = Ledger(path)
        return ledger, f"{error}; it was set aside as {aside}. The next reconcile replays the whole window"


def view_ledger(path: Path) -> Ledger:
    """Opens the ledger only for reading; it is empty if there is none yet.

    :raises LedgerDamaged: if it can't be used; the next run sets it aside.
    :raises SpoolError: if the permissions don't allow it.
    """
    return Ledger(path, look=True)
