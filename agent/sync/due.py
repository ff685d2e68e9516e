"""Whether there is anything to do now. It is all that most runs of flush have to know, and loads little."""

from __future__ import annotations

from agent.errors import DashboardUnreachable
from agent.spool.facts import PAUSE
from agent.spool.journal import Journal
from agent.spool.ledger import Ledger

#: A record that is due this soon is waited for: slurmctld calls the hook before it sends the record to slurmdbd, which
#: takes a second or two.
LINGER_SECONDS = 4.0
#: No Retry-After holds longer than this: the clock may have been set back since.
LONGEST_KEPT_PAUSE_SECONDS = 6 * 3600.0


def has_work(ledger: Ledger, now: float) -> bool:
    """Whether anything is due, or about to be."""
    due = ledger.waiting.next_due(now)
    return due is not None and due <= now + LINGER_SECONDS


def check_pause(journal: Journal, now: float) -> None:
    """Obeys a Retry-After that outlasted the run which received it.

    :raises DashboardUnreachable: while the dashboard wants to be left alone.
    """
    rest = journal.fact(PAUSE) - now
    if 0 < rest <= LONGEST_KEPT_PAUSE_SECONDS:
        raise DashboardUnreachable(
            f"the dashboard asked to be left alone for another {rest:.0f} s", hint="everything is kept"
        )
