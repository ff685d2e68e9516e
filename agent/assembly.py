"""Puts the parts together as the configuration says: what a command works with, opened and closed in one place."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Mapping

from agent.config import Config
from agent.dashboard.client import DryRun, make_dashboard
from agent.logs import Complaints
from agent.slurm.sacct import Slurm, make_slurm
from agent.spool.spool import Spool, open_spool
from agent.sync.delivery import Delivery, Receiver
from agent.sync.flush import Flush, Settings
from agent.sync.reconcile import Interlude, Progress, Reconcile

#: While a reconcile goes on, what the hook queues is delivered every so often.
INTERLUDE_SECONDS = 60.0
logger = logging.getLogger(__name__)


class Parts:
    """What the commands work with. Made by :func:`open_parts`.

    ``level`` is the log level of routine lines: a flush every few minutes says them only when asked to.
    """

    def __init__(self, config: Config, spool: Spool, slurm: Slurm, *, dry_run: bool) -> None:
        self.level = logging.INFO
        self.config = config
        self.spool = spool
        self.ledger = spool.ledger
        self.slurm = slurm
        self.dry_run = dry_run
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
        self._parts.spool.take_over(time.time())
        self._parts.flush(self._parts.delivery("flush")).run()
        self._last = time.monotonic()


@contextmanager
def open_parts(
    config: Config, environ: Mapping[str, str], *, dry_run: bool = False, alone: bool = False
) -> Iterator[Parts]:
    """Opens the spool, and what works with it. See :func:`agent.spool.spool.open_spool`."""
    complaints = Complaints()
    try:
        with open_spool(config.spool_dir, complain=complaints, dry_run=dry_run, alone=alone) as spool:
            yield Parts(config, spool, make_slurm(config, environ, complaints), dry_run=dry_run)
    finally:
        complaints.close()
