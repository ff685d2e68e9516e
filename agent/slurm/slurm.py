"""Gives a command access to sacct, scontrol and sacctmgr, created on first use: most flushes need neither."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Callable, Mapping

from agent.config import Config
from agent.errors import ExporterError

if TYPE_CHECKING:
    from agent.slurm.sacct import Sacct
    from agent.slurm.sacctmgr import Sacctmgr
    from agent.slurm.scontrol import Scontrol


class Slurm:
    """Slurm's commands, as configured.

    :param environ: the caller's environment, of which the commands inherit only a few variables.
    :param complain: called for each unreadable row.
    """

    def __init__(self, config: Config, environ: Mapping[str, str], complain: Callable[[ExporterError], None]) -> None:
        self._config = config
        self._environ = environ
        self._complain = complain

    @cached_property
    def sacct(self) -> Sacct:
        """The accounting records of jobs."""
        from agent.slurm.sacct import Sacct  # noqa: PLC0415

        return Sacct(self._config, self._environ, self.scontrol, self.sacctmgr, self._complain)

    @cached_property
    def scontrol(self) -> Scontrol:
        """What slurmctld can be asked."""
        from agent.slurm.scontrol import Scontrol  # noqa: PLC0415

        return Scontrol(self._config, self._environ)

    @cached_property
    def sacctmgr(self) -> Sacctmgr:
        """What slurmdbd can be asked, except job records."""
        from agent.slurm.sacctmgr import Sacctmgr  # noqa: PLC0415

        return Sacctmgr(self._config, self._environ)

    @property
    def odd_rows(self) -> int:
        """The number of unreadable rows so far."""
        return self.sacct.odd_rows if "sacct" in self.__dict__ else 0
