"""Turns the runs of a job into the record to send, or the reason not to send it, for both flush and reconcile.

The runs become a record. Jobs that never started may be skipped. What the dashboard already has of the job decides
whether the record is sent.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple, Sequence

from agent.jobs.job import ever_started
from agent.jobs.record import Record, make_record
from agent.jobs.run import Run
from agent.localtime import Range
from agent.spool.delivered import NOT_KNOWN, Known
from agent.spool.ledger import Ledger

NEVER = Range(0, -1)


class Resend(NamedTuple):
    """Which jobs are sent again although they are unchanged since their delivery."""

    after: float  # epoch seconds: those that ended later ...
    sent_in: Range = NEVER  # ... and were not first delivered in this range, by earlier runs of the same resend


EVERYTHING = Resend(0)
NOTHING = Resend(math.inf)


class Settings(NamedTuple):
    """The settings that flush and reconcile share."""

    cluster: str
    requeued_runs: str
    skip_never_started: bool
    retry_max_age_seconds: float


class Hold(enum.Enum):
    """Why a record is not sent."""

    NEVER_STARTED = "the job never started, and the site skips such jobs"
    SUPERSEDED = "the dashboard has a later run of the job"
    REJECTED = "the dashboard has rejected this record"
    UNCHANGED = "the dashboard has this record"


class Prepared(NamedTuple):
    """The record of a job, what was delivered of it before, and why it is not sent (None if it is)."""

    record: Record
    known: Known
    rejected: bool  # this record, or an earlier one of the same run
    hold: Hold | None
    is_booked: bool  # whether delivering it leaves the ledger unchanged


class Preparer:
    """Prepares records for one run.

    :param resend: which records are sent again although the dashboard has them.
    :param again: sends rejected records again, on the request of an admin or after a new end of the job.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        *,
        resend: Resend = EVERYTHING,
        again: bool = False,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._resend = resend
        self._rejected = {} if again else ledger.rejected.digests(settings.cluster)

    def prepare(self, jobs: Sequence[Sequence[Run]]) -> list[Prepared]:
        """The records of final jobs, in the same order.

        :param jobs: the runs of each job, oldest first.
        """
        cluster, requeued_runs = self._settings.cluster, self._settings.requeued_runs
        records = [make_record(runs, cluster, requeued_runs=requeued_runs) for runs in jobs]
        known = self._ledger.delivered.known(cluster, records)
        return [self._decide(runs, record, known.get(record.key, NOT_KNOWN)) for runs, record in zip(jobs, records)]

    def remake(self, run: Run) -> Record:
        """The record of a job whose only row the dashboard has."""
        return make_record([run], self._settings.cluster)

    def _decide(self, runs: Sequence[Run], record: Record, known: Known) -> Prepared:
        rejected = self._rejected.get(record.key)
        is_same = bool(known.digest) and known.digest == record.digest
        hold = None
        if self._settings.skip_never_started and not ever_started(runs):
            hold = Hold.NEVER_STARTED
        elif known.superseded:
            hold = Hold.SUPERSEDED
        elif rejected is not None and rejected == record.digest:
            hold = Hold.REJECTED
        elif is_same and not self._is_due_again(record, known):
            hold = Hold.UNCHANGED
        is_booked = is_same and rejected is None and (known.has_row or not record.row)
        return Prepared(record, known, rejected is not None, hold, is_booked)

    def _is_due_again(self, record: Record, known: Known) -> bool:
        """Whether a record that the dashboard has is to be resent."""
        was_just_sent = self._resend.sent_in.start <= known.delivered_at <= self._resend.sent_in.end
        return record.end > self._resend.after and not was_just_sent
