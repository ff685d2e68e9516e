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
    """The commands of one Slurm, created on first use."""

    def __init__(
        self,
        make_sacct: Callable[[], Sacct],
        make_scontrol: Callable[[], Scontrol],
        make_sacctmgr: Callable[[], Sacctmgr],
    ) -> None:
        self._make_sacct = make_sacct
        self._make_scontrol = make_scontrol
        self._make_sacctmgr = make_sacctmgr

    @cached_property
    def sacct(self) -> Sacct:
        """The accounting records of jobs."""
        return self._make_sacct()

    @cached_property
    def scontrol(self) -> Scontrol:
        """What slurmctld can be asked."""
        return self._make_scontrol()

    @cached_property
    def sacctmgr(self) -> Sacctmgr:
        """What slurmdbd can be asked, except job records."""
        return self._make_sacctmgr()

    @property
    def odd_rows(self) -> int:
        """The number of unreadable rows so far."""
        return self.sacct.odd_rows if "sacct" in self.__dict__ else 0


def make_slurm(config: Config, environ: Mapping[str, str], complain: Callable[[ExporterError], None]) -> Slurm:
    """Slurm's commands, as configured.

    :param complain: called for each unreadable row.
    """
    timeout, cluster = config.sacct_timeout, config.slurm_cluster

    def make_scontrol() -> Scontrol:
        from agent.slurm.scontrol import Scontrol  # noqa: PLC0415

        return Scontrol(config.scontrol, config.sacct, timeout=timeout, environ=environ, cluster=cluster)

    def make_sacctmgr() -> Sacctmgr:
        from agent.slurm.sacctmgr import Sacctmgr  # noqa: PLC0415

        return Sacctmgr(config.scontrol, config.sacct, timeout=timeout, environ=environ)

    def make_sacct() -> Sacct:
        from agent.slurm.sacct import Sacct  # noqa: PLC0415

        return Sacct(
            config.sacct,
            slurm.scontrol,
            slurm.sacctmgr,
            timeout=timeout,
            environ=environ,
            complain=complain,
            cluster=cluster,
            shown_as=config.shown_as,
        )

    slurm = Slurm(make_sacct, make_scontrol, make_sacctmgr)
    return slurm
