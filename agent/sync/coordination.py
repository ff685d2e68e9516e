"""The controllers of the cluster: who they are, whose turn it is to send, and what they have done.

Slurm's answer is remembered and refreshed now and then: slurmctld may be down, busy or failing over while the
accounting and the dashboard work. Until it has answered once, slurm.conf says whose turns to wait for.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from agent.errors import ConfigError, SlurmUnreachable
from agent.localtime import Range
from agent.logger import Logger
from agent.slurm.controller_hosts import Controllers, controls, is_this_host
from agent.slurm.environment import find_slurm_conf
from agent.spool.controller_notices import Notices
from agent.spool.controller_turns import Turns
from agent.spool.facts import ELSEWHERE, OTHERS_RECONCILED, WITHOUT_TURNS, Facts
from agent.spool.shared_folder import SharedFolder

if TYPE_CHECKING:
    from agent.dashboard.client import Receiver
    from agent.slurm.slurm import Slurm

#: How long Slurm's answer about its controllers is valid. If slurm.conf had changed some seconds
#: before, it is valid for that long at most: slurmctld may have been restarted since, with other controllers.
REMEMBERED_SECONDS = 3600.0
#: The note's lines: when Slurm was asked, ClusterName, StateSaveLocation, and each SlurmctldHost.
_NOTE = "controllers_said"
_NO_NAME = "start slurmctld, or set cluster_name in the configuration, or give --cluster-name"

logger = Logger(__name__)


class Coordination:
    """What a run knows about the controllers, and what it tells the others.

    :param cluster: slurm_cluster of the configuration; None for the cluster of this host's slurm.conf.
    :param instance: each instance has its own turns and notices, as it sends to another dashboard, or other jobs.
    :param clock: epoch seconds.
    """

    def __init__(
        self,
        slurm: Slurm,
        facts: Facts,
        *,
        cluster: str | None = None,
        instance: str = "",
        clock: Callable[[], float],
        is_here: Callable[[str], bool] = is_this_host,
        host: str = os.uname().nodename,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._host = host
        self._slurm = slurm
        self._cluster = cluster or ""
        self._instance = instance
        self._facts = facts
        self._clock = clock
        self._is_here = is_here
        self._environ = environ
        self._answer_before: Controllers | None = None  # used once slurmctld has not answered in this run
        self._turns: Turns | None = None

    def cluster_name(self) -> str:
        """Slurm's ClusterName.

        :raises SlurmUnreachable: if slurmctld does not answer and never has.
        :raises ConfigError: if Slurm reports no name.
        """
        try:
            known = self._known_lately()
            found = known if known and known.cluster else self._ask()
        except SlurmUnreachable as error:
            raise SlurmUnreachable(
                f"the cluster's name is unknown: {error}", hint=f"{_NO_NAME}; everything is kept"
            ) from error
        if not found.cluster:
            raise ConfigError("the cluster's name is unknown: scontrol show config names no ClusterName", hint=_NO_NAME)
        return found.cluster

    @cached_property
    def controllers(self) -> Controllers:
        """What is known about them, by slurm.conf if slurmctld does not answer and never has."""
        try:
            found = self._known_lately() or self._ask()
        except SlurmUnreachable as error:
            logger.debug("%s", error)
            found = self._by_conf()
            self._remember(found)
        if self._facts.get(ELSEWHERE) != self._is_elsewhere(found):
            self._facts.set(ELSEWHERE, self._is_elsewhere(found))
        return found

    def _is_elsewhere(self, found: Controllers) -> bool:
        return bool(self._cluster) and not controls(found, self._cluster, self._is_here)

    @property
    def several(self) -> bool:
        """Whether this host is one of several controllers."""
        hosts = self.controllers.hosts
        return not self._is_elsewhere(self.controllers) and len(hosts) > 1 and any(map(self._is_here, hosts))

    @property
    def may_meet_others(self) -> bool:
        """Whether other hosts may send for this cluster at the same time without taking turns with this run.

        False if the controllers are unknown.
        """
        if self.several:
            return self._turns is not None and bool(self._turns.failure)
        if self._is_elsewhere(self.controllers):  # the cluster's own controllers may send, too
            return True
        hosts = self.controllers.hosts
        return len(hosts) > 1 or any(not self._is_here(host) for host in hosts)

    def turns(self) -> Turns | None:
        """The turns of this run; None if there is no other controller to take turns with."""
        if self._turns is None and self._folder:
            self._turns = Turns(self._folder)
        return self._turns

    def end_turns(self) -> None:
        """Ends the turns of this run, and records for ``status`` since when runs have had to send without one."""
        if self._turns is not None:
            self._turns.end()
        since = self._facts.get(WITHOUT_TURNS)
        if self._turns is None:  # nothing was sent
            failed = bool(since) and self.several
        else:
            failed = bool(self._turns.failure or (since and not self._turns.taken))
        if failed != bool(since):
            self._facts.set(WITHOUT_TURNS, self._clock() if failed else 0)

    def publish_calls(self, ends: Sequence[Range], *, forget_before: float) -> None:
        """Notifies the other controllers when the jobs ended for which the hook was called here."""
        if ends and self._notices:
            self._notices.add_calls(ends, forget_before=forget_before)

    def publish_reconcile(self, *, forget_before: float) -> None:
        """Notifies the other controllers of a successful reconcile."""
        if self._notices:
            self._notices.add_reconcile(self._clock(), forget_before=forget_before)

    def note_others_reconcile(self) -> None:
        """Records when another controller last reconciled successfully, for ``status``."""
        if self._notices:
            self._facts.set(OTHERS_RECONCILED, self._notices.last_reconcile())

    def others_calls(self) -> Callable[[int], bool]:
        """Returns a test: was the hook of another controller called for jobs with this End (epoch seconds)?"""
        calls = sorted(self._notices.others_calls()) if self._notices else []
        starts = [call.start for call in calls]
        latest = list(accumulate((call.end for call in calls), max))  # an earlier range may end later

        def was_called(end: int) -> bool:
            place = bisect_right(starts, end)
            return place > 0 and latest[place - 1] >= end

        return was_called

    @cached_property
    def _notices(self) -> Notices | None:
        return Notices(self._folder, self._host) if self._folder else None

    @cached_property
    def _folder(self) -> SharedFolder | None:
        """The folder that the controllers share, created by the first of them; None if there is no other controller."""
        if not (self.several and self.controllers.state_folder):
            return None
        common = Path(self.controllers.common_folder)
        folder = SharedFolder(common / self._instance)

        def make() -> None:
            common.mkdir(mode=0o700, exist_ok=True)
            folder.path.mkdir(mode=0o700, exist_ok=True)

        with suppress(OSError):  # reported when the folder is used
            folder.ask(make)
        return folder

    def _known_lately(self) -> Controllers | None:
        asked_at, known = self._remembered()
        valid_seconds = min(REMEMBERED_SECONDS, asked_at - self._conf_changed_at())
        return known if 0 <= self._clock() - asked_at < valid_seconds else None

    def _conf_changed_at(self) -> float:
        """When slurm.conf was last changed on this host, in epoch seconds; 0 if there is none."""
        conf = find_slurm_conf(self._environ)
        with suppress(OSError):  # it may be replaced at this moment
            return conf.stat().st_ctime if conf else 0.0
        return 0.0

    def _by_conf(self) -> Controllers:
        """Who the controllers are by slurm.conf, without the cluster's name, which slurmctld has to confirm."""
        from agent.slurm.slurm_conf import controllers_of, read_slurm_conf  # noqa: PLC0415

        conf = find_slurm_conf(self._environ)
        found = controllers_of(read_slurm_conf(conf)) if conf else Controllers("", (), "")
        return found._replace(cluster="")

    def _ask(self) -> Controllers:
        """Slurm's answer, or its last one. A run makes one attempt: each takes ten seconds if no slurmctld answers."""
        if self._answer_before:
            return self._answer_before
        try:
            found = self._slurm.scontrol.controllers()
        except SlurmUnreachable as error:
            _, known = self._remembered()
            if not (known and known.cluster):
                raise
            logger.debug("%s; using its last answer", error)
            self._answer_before = known
            return known
        self._remember(found)
        return found

    def _remember(self, found: Controllers) -> None:
        lines = [str(self._clock()), found.cluster, found.state_folder, *found.hosts]
        self._facts.set_text(_NOTE, "\n".join(lines))

    def _remembered(self) -> tuple[float, Controllers | None]:
        text = self._facts.text(_NOTE)
        if not text:
            return 0.0, None
        asked_at, cluster, state_folder, *hosts = text.split("\n")
        return float(asked_at), Controllers(cluster, tuple(hosts), state_folder)


class TakingTurns:
    """A dashboard that is sent to only while no other controller is sending."""

    def __init__(self, receiver: Receiver, turns: Turns) -> None:
        self._receiver = receiver
        self._turns = turns
        self.ingest_url = receiver.ingest_url

    def submit(self, cluster: str, texts: Sequence[str], **options: Any) -> str:
        """See :class:`Receiver`."""
        with self._turns.turn(len(texts)):
            return self._receiver.submit(cluster, texts, **options)

    def answers(self) -> bool:
        """See :class:`Receiver`. This changes nothing on the dashboard, so it needs no turn."""
        return self._receiver.answers()
