"""One invocation of a command: its configuration, and its session, which leaves the metrics behind."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Mapping

from agent.config import Config, find_config, load_config, unreadable
from agent.errors import ExporterError
from agent.logger import Logger
from agent.options import GlobalOptions

if TYPE_CHECKING:
    from agent.spool.ledger import Ledger
    from agent.sync.session import Session

logger = Logger(__name__)


class Call:
    """One invocation: the global options, and what the commands work with."""

    def __init__(
        self,
        options: GlobalOptions,
        environ: Mapping[str, str],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.options = options
        self.environ = environ
        self.clock = clock
        self.sleep = sleep

    def read_config(self, *, warn: bool = True, spool_is_checked: bool = False) -> Config:
        """Reads the configuration. Run by root, the process becomes the file's owner first.

        :param warn: whether to log its warnings.
        :param spool_is_checked: whether the command itself reports a spool of another user.
        """
        options = self.options
        path = options.config or find_config(self.environ, options.instance)
        is_root = os.geteuid() == 0
        if is_root:
            from agent.privilege import become_owner_of  # noqa: PLC0415

            try:
                become_owner_of(path)
            except OSError as error:
                raise unreadable(path, error) from error
        config = load_config(path, self.environ, cluster_name=options.cluster_name, instance=options.instance)
        if is_root and not spool_is_checked:
            from agent.spool.owner import check_agreement  # noqa: PLC0415

            check_agreement(path, config.spool_dir)
        for warning in config.warnings if warn else ():
            logger.warning("%s", warning)
        return config

    @contextmanager
    def open_session(self, config: Config, level: int) -> Iterator[Session]:
        """Opens a session. The metrics are written when it ends, whether it succeeded or not."""
        from agent.sync.session import open_session  # noqa: PLC0415

        dry_run = self.options.dry_run
        with open_session(
            config, self.environ, dry_run=dry_run, level=level, clock=self.clock, sleep=self.sleep
        ) as session:
            try:
                yield session
            finally:
                if config.metrics_file is not None and not dry_run:
                    self._write_metrics(config, config.metrics_file, session.ledger)

    def _write_metrics(self, config: Config, path: Path, ledger: Ledger) -> None:
        from agent.status import metrics, snapshot  # noqa: PLC0415

        try:
            metrics.write_metrics(path, snapshot.take_snapshot(config, ledger, self.clock()))
        except ExporterError as error:  # does not change how the run itself ended
            logger.warning("%s", error.with_hint())
