"""Whether there is anything to do now. Most flushes need nothing else, so this module imports little."""

from __future__ import annotations

from agent.errors import DashboardUnreachable
from agent.spool.facts import PAUSE, Facts
from agent.spool.ledger import Ledger

#: A run waits for records due this soon: slurmctld calls the hook a second or two before slurmdbd has the record.
LINGER_SECONDS = 4.0
#: No Retry-After is honoured for longer than this: the clock may have been set back since.
LONGEST_KEPT_PAUSE_SECONDS = 6 * 3600.0


def has_work(ledger: Ledger, now: float) -> bool:
    """Whether anything is due, or about to be."""
    due = ledger.waiting.next_due(now)
    return due is not None and due <= now + LINGER_SECONDS


def check_pause(facts: Facts, now: float) -> None:
    """Honours a Retry-After from an earlier run.

    :raises DashboardUnreachable: until it has expired.
    """
    rest = facts.get(PAUSE) - now
    if 0 < rest <= LONGEST_KEPT_PAUSE_SECONDS:
        raise DashboardUnreachable(
            f"the dashboard asked for a pause (Retry-After), {rest:.0f} s remain", hint="everything is kept"
        )
