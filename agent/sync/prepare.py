"""The one way from the runs of a job to the record that is sent, or the reason not to send it: for flush and reconcile.

Steps, in this order: jobs that never started may be skipped; the runs become a record; what the dashboard has of the
job already decides whether the record goes out.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Sequence

from agent.jobs.job import ever_started
from agent.jobs.record import Record, make_record
from agent.jobs.run import Run
from agent.spool.delivered import NOT_KNOWN, Known
from agent.spool.ledger import Ledger


class Settings(NamedTuple):
    """What of the configuration concerns flush and reconcile alike."""

    cluster: str
    requeued_runs: str
    skip_never_started: bool
    retry_max_age_seconds: float


class Hold(enum.Enum):
    """Why a record is not sent."""

    NEVER_STARTED = "the job never started, and the site leaves such jobs out"
    SUPERSEDED = "the dashboard has a later run of the job"
    REJECTED = "the dashboard has rejected this record"
    UNCHANGED = "the dashboard has this record"


class Prepared(NamedTuple):
    """The record of a job, what was delivered of it before, and why it is not sent, None where it is."""

    record: Record
    known: Known
    rejected: bool  # in this or an earlier state
    hold: Hold | None

    @property
    def is_booked(self) -> bool:
        """Whether the ledger has nothing to learn from its delivery."""
        record, known = self.record, self.known
        if self.rejected or not known.digest or (record.row and not known.has_row):
            return False
        return known.digest == record.digest


class Preparer:
    """Prepares records for one run.

    :param resend_after: epoch seconds; of the jobs that ended by then, what the dashboard has in the same state is held
        back.
    :param again: sends what the dashboard has rejected, as an admin or a new end of the job asks for it.
    """

    def __init__(self, ledger: Ledger, settings: Settings, *, resend_after: float = 0, again: bool = False) -> None:
        self._ledger = ledger
        self._settings = settings
        self._resend_after = resend_after
        self._rejected = {} if again else ledger.rejected.digests(settings.cluster)

    def prepare(self, jobs: Sequence[Sequence[Run]]) -> list[Prepared]:
        """The records of some final jobs, in their order.

        :param jobs: the runs of each, oldest first.
        """
        cluster, requeued_runs = self._settings.cluster, self._settings.requeued_runs
        records = [make_record(runs, cluster, requeued_runs=requeued_runs) for runs in jobs]
        known = self._ledger.delivered.known(cluster, records)
        return [self._decide(runs, record, known.get(record.key, NOT_KNOWN)) for runs, record in zip(jobs, records)]

    def _decide(self, runs: Sequence[Run], record: Record, known: Known) -> Prepared:
        rejected = self._rejected.get(record.key)
        hold = None
        if self._settings.skip_never_started and not ever_started(runs):
            hold = Hold.NEVER_STARTED
        elif known.superseded:
            hold = Hold.SUPERSEDED
        elif rejected is not None and rejected == record.digest:
            hold = Hold.REJECTED
        elif record.end <= self._resend_after and known.digest == record.digest:
            hold = Hold.UNCHANGED
        return Prepared(record, known, rejected is not None, hold)
