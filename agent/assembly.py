"""Puts the parts together as the configuration says: what a command works with, opened and closed in one place."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager, nullcontext
from typing import Callable, Iterator, Mapping

from agent.config import Config
from agent.dashboard.client import Dashboard, DryRun
from agent.dashboard.transport import RequestsTransport
from agent.errors import ExporterError, LedgerDamaged, SpoolError
from agent.slurm.sacct import Slurm
from agent.spool.database import put_aside
from agent.spool.ledger import LEFT, Ledger, open_ledger, view_ledger
from agent.spool.lock import run_lock
from agent.spool.owner import check_spool, step_down
from agent.spool.queue import Queue
from agent.sync.delivery import Delivery, Receiver
from agent.sync.flush import Flush, Settings, take_over
from agent.sync.reconcile import Interlude, Progress, Reconcile

LEDGER_NAME = "ledger.db"
#: While a reconcile goes on, what the hook queues is delivered every so often.
INTERLUDE_SECONDS = 60.0
#: Of the same complaint an admin sees so many; the rest is counted.
SHOWN_COMPLAINTS = 5
logger = logging.getLogger(__name__)


class Complaints:
    """Logs what was passed over, the first few in full and the rest as a number."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: ExporterError) -> None:
        self.count += 1
        if self.count <= SHOWN_COMPLAINTS:
            logger.warning("passed over: %s", error)

    def close(self) -> None:
        """Says how many were not shown."""
        if self.count > SHOWN_COMPLAINTS:
            logger.warning("passed over: %d more like these", self.count - SHOWN_COMPLAINTS)


class Parts:
    """What the commands work with. Made by :func:`open_parts`.

    ``level`` is the log level of routine lines: a flush every few minutes says them only when asked to.
    """

    def __init__(self, config: Config, environ: Mapping[str, str], ledger: Ledger, *, dry_run: bool) -> None:
        self.level = logging.INFO
        self.config = config
        self.ledger = ledger
        self.dry_run = dry_run
        self.complaints = Complaints()
        self.queue = Queue(config.spool_dir, complain=self.complaints)
        self.slurm = make_slurm(config, environ, self.complaints)
        self.receiver: Receiver = DryRun(config.api_url) if dry_run else make_dashboard(config)
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """What flush and reconcile go by; Slurm is asked for the cluster's name where nobody has given one.

        :raises ConfigError: where the name can't be found out.
        """
        if self._settings is None:
            config = self.config
            cluster = config.cluster_name or self.slurm.cluster_name()
            logger.log(self.level, "Initialized extractor for cluster: %s", cluster)
            self._settings = Settings(
                cluster=cluster,
                requeued_runs=config.requeued_runs,
                skip_never_started=config.never_started == "skip",
                retry_max_age_seconds=config.retry_max_age_days * 86_400.0,
            )
        return self._settings

    def delivery(self, command: str) -> Delivery:
        """A delivery on behalf of a command."""
        return Delivery(
            self.receiver,
            self.ledger,
            self.settings.cluster,
            command=command,
            batch_size=self.config.batch_size,
            clock=time.time,
            level=self.level,
        )

    def flush(self, delivery: Delivery) -> Flush:
        """A flush that sends through a delivery."""
        return Flush(self.ledger, self.slurm, delivery, self.settings)

    def reconcile(
        self, delivery: Delivery, *, only_missing: bool, on_progress: Callable[[Progress], None]
    ) -> Reconcile:
        """A reconcile that sends through a delivery, and flushes from time to time."""
        return Reconcile(
            self.ledger,
            self.slurm,
            delivery,
            self.settings,
            only_missing=only_missing,
            interlude=None if self.dry_run else _FlushInterlude(self),
            on_progress=on_progress,
        )


class _FlushInterlude(Interlude):
    """Delivers what the hook queues while a long reconcile holds the lock."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._last = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= INTERLUDE_SECONDS

    def run(self) -> None:
        take_over(self._parts.queue, self._parts.ledger, time.time())
        self._parts.flush(self._parts.delivery("flush")).run()
        self._last = time.monotonic()


@contextmanager
def open_parts(
    config: Config, environ: Mapping[str, str], *, dry_run: bool = False, alone: bool = False
) -> Iterator[Parts]:
    """Opens the spool and what lies in it.

    :param alone: as the one run that works on the spool.
    :raises SpoolError: where the spool can't be used.
    :raises Busy: where another run works on it.
    """
    step_down(config.spool_dir)
    check_spool(config.spool_dir)
    with run_lock(config.spool_dir) if alone else nullcontext():
        path = config.spool_dir / LEDGER_NAME
        ledger, rebuilt = open_ledger(path, alone=alone)
        if rebuilt:
            logger.warning("%s", rebuilt)
        parts = Parts(config, environ, ledger, dry_run=dry_run)
        try:
            with ledger.rehearsal() if dry_run else nullcontext():
                yield parts
        except LedgerDamaged as error:
            # Damage deep in the file shows only when it is read. The next run begins a new one.
            if alone:
                ledger.close()
                error.hint = f"it was put aside as {put_aside(path)}; the next reconcile replays the whole window"
            raise
        finally:
            parts.complaints.close()
            ledger.close()


@contextmanager
def open_view(config: Config) -> Iterator[Ledger]:
    """Opens the ledger only to look at it, whatever else is under way.

    :raises SpoolError: where the spool is not there or can't be read.
    """
    spool = config.spool_dir
    step_down(spool)
    if not os.access(spool, os.R_OK | os.X_OK):
        if os.access(spool.parent, os.X_OK) and not spool.exists():
            raise SpoolError(f"there is no spool {spool}", hint="install.sh makes it, and `check` says what is missing")
        raise SpoolError(f"the spool {spool} can't be read", hint="run as root or as the Slurm user")
    try:
        ledger = view_ledger(spool / LEDGER_NAME)
    except LedgerDamaged as error:
        error.hint = LEFT
        raise
    try:
        yield ledger
    finally:
        ledger.close()


def make_slurm(config: Config, environ: Mapping[str, str], complain: Complaints) -> Slurm:
    """Slurm's commands, as configured."""
    return Slurm(config.sacct, config.scontrol, timeout=config.sacct_timeout, environ=environ, complain=complain)


def make_dashboard(config: Config) -> Dashboard:
    """The dashboard, as configured."""
    transport = RequestsTransport(timeout=config.timeout, ca_bundle=config.ca_bundle, secret=config.api_key)
    return Dashboard(config.api_url, config.api_key, transport)
