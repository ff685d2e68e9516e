"""What both flush and reconcile work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, Sequence

if TYPE_CHECKING:
    from agent.slurm.sacct import Sacct
    from agent.spool.ledger import Ledger
    from agent.sync.delivery import Delivery
    from agent.sync.prepare import Settings

#: Returns the states of those of these raw IDs that slurmctld knows as not ended; None if it does not answer.
AskSlurmctld = Callable[[Sequence[int]], "Mapping[int, str] | None"]


class Pipeline(NamedTuple):
    """From sacct to the dashboard."""

    ledger: Ledger
    sacct: Sacct
    delivery: Delivery
    settings: Settings
    alive: AskSlurmctld  # asked about jobs for which the accounting leaves open whether they continue
    clock: Callable[[], float]  # epoch seconds
