"""This host among the controllers of its cluster: who they are, whose turn it is to send, and who is in control.

Slurm is asked for it once in a while, and what it said is remembered: slurmctld may be down, busy or failing over
while the accounting and the dashboard answer.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Sequence

from agent.errors import ConfigError, SlurmUnreachable
from agent.slurm.controllers import Controllers, is_this_host
from agent.spool.facts import OTHERS_RECONCILED
from agent.spool.journal import Journal
from agent.spool.turns import Turns

if TYPE_CHECKING:
    from agent.slurm.slurm import Slurm
    from agent.sync.delivery import Receiver

#: What Slurm has said of its controllers holds for so long; then it is asked again.
REMEMBERED_SECONDS = 3600.0
#: How often a run looks who is in control.
LOOK_SECONDS = 240.0
_NOTE = "controllers"
_NO_NAME = "start slurmctld, or set cluster_name in the configuration, or give --cluster-name"

logger = logging.getLogger(__name__)


class Control:
    """What a run has to know of the controllers.

    :param clock: epoch seconds.
    """

    def __init__(
        self,
        slurm: Slurm,
        journal: Journal,
        *,
        clock: Callable[[], float],
        is_here: Callable[[str], bool] = is_this_host,
    ) -> None:
        self._slurm = slurm
        self._journal = journal
        self._clock = clock
        self._is_here = is_here
        self._found: Controllers | None = None
        self._turns: Turns | None = None

    def cluster_name(self) -> str:
        """Slurm's ClusterName.

        :raises SlurmUnreachable: where slurmctld does not answer, and has never done so.
        :raises ConfigError: where it names none.
        """
        try:
            found = self._known_lately() or self._ask()
            found = found if found.cluster else self._ask()
        except SlurmUnreachable as error:
            raise SlurmUnreachable(
                f"the cluster's name is unknown: {error}", hint=f"{_NO_NAME}; everything is kept"
            ) from error
        if not found.cluster:
            raise ConfigError("the cluster's name is unknown: scontrol show config names no ClusterName", hint=_NO_NAME)
        return found.cluster

    @property
    def controllers(self) -> Controllers:
        """What is known of them; nothing where slurmctld does not answer and never has."""
        if self._found is None:
            try:
                self._found = self._known_lately() or self._ask()
            except SlurmUnreachable as error:
                logger.debug("%s", error)
                self._found = Controllers("", (), "")
                self._remember(self._found)
        return self._found

    @property
    def several(self) -> bool:
        """Whether this host is one of several controllers."""
        hosts = self.controllers.hosts
        return len(hosts) > 1 and any(map(self._is_here, hosts))

    @property
    def may_meet_others(self) -> bool:
        """Whether others may send for this cluster at the same time, without taking turns with this run.

        Not where nobody knows who the controllers are.
        """
        if self.several:
            return self._turns is not None and bool(self._turns.failure)
        hosts = self.controllers.hosts
        return len(hosts) > 1 or any(not self._is_here(host) for host in hosts)

    def turns(self) -> Turns | None:
        """The turns of this run; None where there is nobody to take turns with."""
        if self._turns is None and self.several and self.controllers.state_folder:
            self._turns = Turns(Path(self.controllers.state_folder))
        return self._turns

    def look(self) -> None:
        """Writes down whether this host is in control, and when another has last reconciled."""
        now = self._clock()
        if not self.several or 0 <= now - self._journal.last_look() < LOOK_SECONDS:
            return
        name = self._slurm.scontrol.in_control()
        here = name is not None and any(map(self._is_here, self._written(name)))
        self._journal.add_look(now, here=here)
        turns = self.turns()
        if turns:
            self._journal.set_fact(OTHERS_RECONCILED, turns.last_noted())

    def in_charge(self) -> Callable[[float], bool]:
        """Tells of an instant whether the hook of this host, and of no other, was there to be called."""
        if not self.several:
            return lambda end: True
        spans = self._journal.looks_in_control()
        return lambda end: any(since <= end <= until for since, until in spans)

    def _written(self, name: str) -> Sequence[str]:
        """A host that ping names, as slurm.conf writes it, with its address."""
        return [host for host in self.controllers.hosts if host.partition("(")[0] == name] or [name]

    def _known_lately(self) -> Controllers | None:
        asked_at, known = self._remembered()
        return known if 0 <= self._clock() - asked_at < REMEMBERED_SECONDS else None

    def _ask(self) -> Controllers:
        try:
            found = self._slurm.scontrol.controllers()
        except SlurmUnreachable as error:
            _, known = self._remembered()
            if not (known and known.cluster):
                raise
            logger.debug("%s; going by what it said last", error)
            return known
        self._remember(found)
        return found

    def _remember(self, found: Controllers) -> None:
        self._journal.set_note(_NOTE, json.dumps({"asked_at": self._clock(), **found._asdict()}))

    def _remembered(self) -> tuple[float, Controllers | None]:
        text = self._journal.note(_NOTE)
        if not text:
            return 0.0, None
        known: dict[str, Any] = json.loads(text)
        return known["asked_at"], Controllers(known["cluster"], tuple(known["hosts"]), known["state_folder"])


class TakingTurns:
    """A dashboard that is sent to only while no other controller sends."""

    def __init__(self, receiver: Receiver, turns: Turns) -> None:
        self._receiver = receiver
        self._turns = turns
        self.ingest_url = receiver.ingest_url

    def submit(self, cluster: str, texts: Sequence[str], **options: Any) -> str:
        """See :class:`Receiver`."""
        with self._turns.turn():
            return self._receiver.submit(cluster, texts, **options)

    def answers(self) -> bool:
        """See :class:`Receiver`. Looking changes nothing: whose turn it is does not matter."""
        return self._receiver.answers()
