"""One flush or reconcile from beginning to end, including the record of its outcome.

Most flushes find nothing to do, so modules that only the others need are imported late.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Callable, Iterator, Mapping

from agent.config import Config
from agent.errors import ExporterError
from agent.localtime import Range, local_day
from agent.logger import INFO, Complaints, Logger
from agent.slurm.slurm import Slurm
from agent.spool.run_history import RunReport
from agent.spool.spool import Spool, open_spool
from agent.sync.bookkeeping import Bookkeeping, Outcome, describe, describe_reconcile
from agent.sync.coordination import Coordination, TakingTurns
from agent.sync.window import how_to_resume
from agent.sync.work_due import check_pause, has_work

if TYPE_CHECKING:
    from agent.dashboard.client import Receiver
    from agent.sync.delivery import Delivery
    from agent.sync.pipeline import Pipeline
    from agent.sync.prepare import Resend, Settings
    from agent.sync.reconcile import OnProgress, Reconcile

#: A resend that took longer may have overwritten what another host delivered meanwhile, so that is resent as well, at
#: most this often.
QUICK_RESEND_SECONDS = 5.0
MOST_RESENDS = 3

logger = Logger(__name__)


class Session:
    """Everything that a run needs.

    :param level: the log level of routine lines: a flush every few minutes logs them only on request.
    :param clock: epoch seconds.
    :param sleep: waits some seconds.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        slurm: Slurm,
        make_receiver: Callable[[], Receiver],
        *,
        dry_run: bool,
        level: int = INFO,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._make_receiver = make_receiver
        self._config = config
        self.ledger = spool.ledger
        self._spool = spool
        self._slurm = slurm
        self._dry_run = dry_run
        self._level = level
        self._clock = clock
        self._sleep = sleep
        self._books = Bookkeeping(config, spool.ledger, clock)
        self._coordination = Coordination(
            slurm, spool.ledger.facts, cluster=config.slurm_cluster, instance=config.instance, clock=clock
        )

    def flush(self) -> RunReport:
        """Delivers what the hook has queued.

        :raises ExporterError: see :mod:`agent.errors`; undelivered jobs stay queued.
        """
        return self._record("flush", self._flush)

    def reconcile(
        self,
        wanted: Range,
        *,
        only_missing: bool = False,
        daily: bool = False,
        on_progress: OnProgress = lambda done_to, jobs: None,
    ) -> RunReport:
        """Replays a range of time.

        :param only_missing: sends only jobs that were never delivered or have changed since.
        :param daily: likewise, except that one run in ``resend_days`` sends everything.
        :raises ExporterError: see :mod:`agent.errors`; the hint gives the dates to resume with.
        :raises KeyboardInterrupt: its message gives them.
        """
        return self._record(
            "reconcile",
            lambda outcome: self._reconcile(outcome, wanted, on_progress, only_missing=only_missing, daily=daily),
        )

    def _flush(self, outcome: Outcome) -> None:
        self._take_over()
        if has_work(self.ledger, self._clock()):
            self._deliver_queue(outcome)
        if not self._dry_run:
            self._coordination.note_others_reconcile()

    def _take_over(self) -> None:
        self._coordination.publish_calls(self._spool.take_over(self._clock()), forget_before=self._books.oldest)

    def _deliver_meanwhile(self) -> None:
        """Delivers what the hook has queued while a long reconcile holds the lock."""
        self._take_over()
        self._deliver_queue(Outcome())

    def _deliver_queue(self, outcome: Outcome) -> None:
        from agent.sync.flush import Flush  # noqa: PLC0415

        outcome.delivery = self._make_delivery("flush")
        Flush(self._pipeline(outcome.delivery), sleep=self._sleep).run()
        waiting, _ = self.ledger.waiting.count()
        outcome.message = f"{describe(outcome.delivery, dry_run=self._dry_run)}, {waiting} waiting"

    def _reconcile(
        self,
        outcome: Outcome,
        wanted: Range,
        on_progress: OnProgress,
        *,
        only_missing: bool,
        daily: bool,
    ) -> None:
        from agent.sync.prepare import EVERYTHING, NOTHING  # noqa: PLC0415
        from agent.sync.resends import Resends  # noqa: PLC0415

        began = self._clock()
        check_pause(self.ledger.facts, began)
        resends = Resends(self.ledger, self._config.resend_days, self._clock)
        is_resend = daily and not only_missing and resends.is_due()
        resend = resends.begin(began) if is_resend else NOTHING if daily or only_missing else EVERYTHING
        outcome.delivery = self._make_delivery("reconcile")
        reconcile = self._make_reconcile(outcome.delivery, resend, on_progress)
        try:
            self._replay(reconcile, wanted)
        finally:
            outcome.missed = reconcile.tally.missed
            if is_resend:
                resends.reach(reconcile.done_to)
        self._books.keep(reconcile.tally, wanted)
        self._send_again(outcome.delivery, began)
        if is_resend:
            resends.complete(began)
        if not self._dry_run:
            self._coordination.publish_reconcile(forget_before=self._books.oldest)
        outcome.message = describe_reconcile(reconcile.tally, outcome.delivery, dry_run=self._dry_run)

    def _replay(self, reconcile: Reconcile, wanted: Range) -> None:
        """Replays the range. If that is interrupted, the error gives the dates to resume with."""
        logger.info("Extracting jobs from %s to %s", local_day(wanted.start), local_day(wanted.end))
        try:
            reconcile.run(wanted)
        except ExporterError as error:
            error.hint = f"{error.hint}; {how_to_resume(wanted, reconcile.done_to, self._clock())}".lstrip("; ")
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(how_to_resume(wanted, reconcile.done_to, self._clock())) from None

    def _send_again(self, delivery: Delivery, began: float) -> None:
        """Resends what this run and one of another host may have overwritten of each other.

        These are the jobs that this run sent for the first time, and those that ended since shortly before it began;
        see :mod:`agent.spool.controller_turns`. A long resend may overwrite newer ones, which are resent afterwards.
        """
        from agent.sync.reconcile import FRESH_SECONDS, Reconcile  # noqa: PLC0415

        if self._dry_run or not self._coordination.may_meet_others:
            return
        logger.info("Resending jobs that another host may have overwritten meanwhile")

        def resend(fresh_since: float, sent_since: float) -> float:
            started = self._clock()
            again = Reconcile(
                self._pipeline(delivery),
                choose=lambda job: job.known.delivered_at >= sent_since or job.record.end >= fresh_since,
            )
            first = self.ledger.delivered.first_end(self.settings.cluster, sent_since)
            again.run(Range(int(min(fresh_since, first or fresh_since)), int(started)))
            return started

        started = resend(began - FRESH_SECONDS, began)
        for _ in range(MOST_RESENDS):
            if self._clock() - started < QUICK_RESEND_SECONDS:
                return
            started = resend(started - FRESH_SECONDS, math.inf)

    @cached_property
    def receiver(self) -> Receiver:
        """Where the records are sent."""
        return self._make_receiver()

    @property
    def sample(self) -> str:
        """After a dry run: the first record as it would have been sent."""
        return str(getattr(self.receiver, "sample", "")) if self._dry_run else ""

    @cached_property
    def settings(self) -> Settings:
        """The settings of flush and reconcile; Slurm is asked for the cluster's name if none is configured.

        :raises ConfigError: if Slurm reports no name.
        """
        from agent.sync.prepare import Settings  # noqa: PLC0415

        config = self._config
        cluster = config.shown_as
        if not cluster:
            cluster = self._coordination.cluster_name()
            self._slurm.sacct.expect(cluster)  # the name may be a remembered one
        logger.log(self._level, "Initialized extractor for cluster: %s", cluster)
        settings = Settings(
            cluster=cluster,
            requeued_runs=config.requeued_runs,
            skip_never_started=config.never_started == "skip",
            retry_max_age_seconds=config.retry_max_age_days * 86_400.0,
        )
        self._books.recognize_rows(settings)
        return settings

    def _make_delivery(self, command: str) -> Delivery:
        from agent.sync.delivery import Delivery  # noqa: PLC0415

        turns = None if self._dry_run else self._coordination.turns()
        return Delivery(
            TakingTurns(self.receiver, turns) if turns else self.receiver,
            self.ledger,
            self.settings.cluster,
            command=command,
            batch_size=self._config.batch_size,
            timeout=self._config.timeout,
            clock=self._clock,
            level=self._level,
        )

    def _make_reconcile(self, delivery: Delivery, resend: Resend, on_progress: OnProgress) -> Reconcile:
        from agent.sync.reconcile import Reconcile  # noqa: PLC0415

        return Reconcile(
            self._pipeline(delivery),
            resend=resend,
            others_calls=self._coordination.others_calls(),
            hook_due=self.ledger.history.hook_due(),
            interlude=None if self._dry_run else self._deliver_meanwhile,
            on_progress=on_progress,
        )

    def _pipeline(self, delivery: Delivery) -> Pipeline:
        from agent.sync.doubtful_jobs import ask_slurmctld  # noqa: PLC0415
        from agent.sync.pipeline import Pipeline  # noqa: PLC0415

        return Pipeline(
            self.ledger,
            self._slurm.sacct,
            delivery,
            self.settings,
            alive=ask_slurmctld(self._slurm.scontrol, self.ledger, self._clock),
            clock=self._clock,
        )

    def _record(self, command: str, work: Callable[[Outcome], None]) -> RunReport:
        """Does the work, records its outcome, and raises its failure."""
        outcome = Outcome()
        started_at, started = self._clock(), time.monotonic()
        self.ledger.history.begin(started_at)
        failure: ExporterError | KeyboardInterrupt | None = None
        try:
            work(outcome)
            outcome.raise_if_refused()
        except (ExporterError, KeyboardInterrupt) as error:
            failure = error
        report = outcome.report(command, started_at, time.monotonic() - started, failure)
        if not self._dry_run:
            self._coordination.end_turns()
        self._books.write_down(report, failure, odd_rows=self._slurm.odd_rows)
        if failure:
            raise failure
        return report


@contextmanager
def open_session(
    config: Config,
    environ: Mapping[str, str],
    *,
    dry_run: bool = False,
    level: int = INFO,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Session]:
    """Opens a session for a flush or a reconcile, and locks the spool for it.

    :raises SpoolError: if the spool can't be used.
    :raises Busy: if another run holds the lock.
    """
    complaints = Complaints()

    def make_receiver() -> Receiver:
        from agent.dashboard.client import DryRun, make_dashboard  # noqa: PLC0415

        return DryRun(config.api_url) if dry_run else make_dashboard(config, clock=clock, sleep=sleep)

    try:
        with open_spool(
            config.spool_dir, complain=complaints, dry_run=dry_run, alone=True, instance=config.instance
        ) as spool:
            slurm = Slurm(config, environ, complaints)
            yield Session(config, spool, slurm, make_receiver, dry_run=dry_run, level=level, clock=clock, sleep=sleep)
    finally:
        complaints.close()
