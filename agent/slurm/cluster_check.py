"""Makes sure that rows of sacct belong to the right cluster, and that an empty answer is about it."""

from __future__ import annotations

from contextlib import suppress
from typing import Iterator, Mapping

from agent.config import Config
from agent.errors import ConfigError, ExporterError, SlurmUnreachable
from agent.logger import Logger
from agent.slurm.environment import find_slurm_conf
from agent.slurm.sacctmgr import Sacctmgr
from agent.slurm.scontrol import Scontrol
from agent.slurm.slurm_conf import read_slurm_conf

_WHICH = "see ClusterName in slurm.conf, and slurm_cluster in the configuration"

logger = Logger(__name__)


class ClusterCheck:
    """Knows the cluster that this host's sacct is asked about.

    :param environ: the caller's environment, which may name a slurm.conf.
    """

    def __init__(self, config: Config, environ: Mapping[str, str], scontrol: Scontrol, sacctmgr: Sacctmgr) -> None:
        self._cluster = config.slurm_cluster
        self._shown_as = config.shown_as
        self._environ = environ
        self._scontrol = scontrol
        self._sacctmgr = sacctmgr
        self._met: str | None = None  # the cluster of the rows so far
        self._confirmed = False

    def expect(self, cluster: str) -> None:
        """Sets the cluster whose rows are accepted from now on, by Slurm's own name."""
        self._met = cluster

    def confirm_emptiness(self, *, attempts_fail: bool) -> None:
        """Makes sure that an empty answer can be trusted: slurmdbd has to respond and know the cluster.

        For an unknown cluster, and for a server that speaks another protocol, sacct exits 0 and prints nothing (seen on
        20.11 to 26.05).

        :param attempts_fail: whether sacct has complained of failed attempts to connect.
        :raises SlurmUnreachable: if the answer can't be trusted.
        :raises ConfigError: if slurmdbd does not know the configured cluster.
        """
        if self._confirmed:
            return
        try:
            known = {name.lower() for name in self._sacctmgr.clusters()}
        except SlurmUnreachable as error:
            if attempts_fail:
                raise
            logger.debug("%s: an empty answer of sacct is trusted without confirmation", error)  # no sacctmgr here
            return
        for name in [self._cluster] if self._cluster else [self._met, *self._local_names()]:
            if name and name.lower() not in known:
                raise _unknown_cluster(name, known, configured=self._cluster is not None)
        if not known:
            raise SlurmUnreachable("slurmdbd does not know any cluster", hint="see sacctmgr show cluster")
        self._confirmed = True

    def check_row(self, name: str) -> None:
        """Makes sure that rows belong to the right cluster.

        :raises SlurmUnreachable: if they belong to another cluster than the requested one, or than earlier rows.
        :raises ConfigError: if they would be sent under the name of another cluster of this slurmdbd.
        """
        if name == self._met:
            return
        wanted = self._cluster or self._met
        if wanted and wanted.lower() != name.lower():
            raise SlurmUnreachable(
                f"sacct was asked for cluster {wanted!r} and answered for {name!r}",
                hint=f"{_WHICH}; everything is kept",
            )
        shown_as = self._shown_as
        if not self._cluster and shown_as and shown_as.lower() != name.lower() and self._is_other_cluster(shown_as):
            raise ConfigError(
                f"these are the jobs of cluster {name}, and {shown_as} is another cluster of the same slurmdbd",
                hint=f'for the jobs of {shown_as} set slurm_cluster = "{shown_as}"; '
                f'to show those of {name} as {shown_as} set slurm_cluster = "{name}"',
            )
        self._met = name

    def _local_names(self) -> Iterator[str]:
        """ClusterName in this host's slurm.conf, which sacct uses, and in slurmctld, if they can be read."""
        conf = find_slurm_conf(self._environ)
        setting = read_slurm_conf(conf).get("ClusterName") if conf else None
        if setting:
            yield setting.value
        with suppress(SlurmUnreachable):
            yield self._scontrol.controllers().cluster

    def _is_other_cluster(self, name: str) -> bool:
        try:
            return name.lower() in {known.lower() for known in self._sacctmgr.clusters()}
        except SlurmUnreachable as error:
            logger.warning("%s: cannot tell whether %s is another cluster of the same slurmdbd", error, name)
            return False


def _unknown_cluster(name: str, known: set[str], *, configured: bool) -> ExporterError:
    words = f"slurmdbd does not know cluster {name}; it knows {', '.join(sorted(known)) or 'none'}"
    if configured:
        return ConfigError(words, hint="set slurm_cluster to Slurm's own name of the cluster")
    return SlurmUnreachable(words, hint=f"see ClusterName in slurm.conf, or: sacctmgr add cluster {name}")
