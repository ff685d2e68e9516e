"""Turns the runs of a job into the record to send, or the reason not to send it, for both flush and reconcile.

The runs become a record. Jobs that never started may be skipped. What the dashboard already has of the job decides
whether the record is sent.
"""

from __future__ import annotations

import enum
import math
from typing import Mapping, NamedTuple, Sequence

from agent.jobs.job import ever_started
from agent.jobs.record import Record, digest_row, make_record
from agent.jobs.run import Run
from agent.localtime import Range
from agent.spool.delivered import NOT_KNOWN, SAME, Known
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
        self._by_row: Mapping[bytes, Known] = {}
        self._shared: set[int | str] = set()  # see DeliveredJobs.shared_ids

    def recognize(self, ended: Range) -> None:
        """Loads the delivered rows of a range. The dashboard has their records, which are not looked up one by one.

        When they were delivered is not loaded.
        """
        delivered = self._ledger.delivered
        self._by_row = delivered.known_by_row(self._settings.cluster, ended)
        self._shared = set(delivered.shared_ids(self._settings.cluster)) if self._by_row else set()

    def prepare(self, jobs: Sequence[Sequence[Run]]) -> list[Prepared]:
        """The records of final jobs, in the same order.

        :param jobs: the runs of each job, oldest first.
        """
        cluster, requeued_runs = self._settings.cluster, self._settings.requeued_runs
        records = [make_record(runs, cluster, requeued_runs=requeued_runs) for runs in jobs]
        known = self._recognized(records)
        known.update(self._ledger.delivered.known(cluster, [record for record in records if record.key not in known]))
        return [self._decide(runs, record, known.get(record.key, NOT_KNOWN)) for runs, record in zip(jobs, records)]

    def _recognized(self, records: Sequence[Record]) -> dict[tuple[int, int], Known]:
        """What is known of the records whose rows were delivered. All others have to be looked up."""
        found = {}
        for record in records if self._by_row else ():
            key, raw_id, job_id = record.key, record.key[0], record.job_id
            known = self._by_row.get(digest_row(record.row)) if record.row else None
            if known and key not in self._rejected and raw_id not in self._shared and job_id not in self._shared:
                found[key] = known
            else:  # it may be delivered before later jobs of the range are prepared, and supersede one of those
                self._shared.update((raw_id, job_id))
        return found

    def _decide(self, runs: Sequence[Run], record: Record, known: Known) -> Prepared:
        rejected = self._rejected.get(record.key)
        is_same = known.digest == SAME.digest or bool(known.digest and known.digest == record.digest)
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
