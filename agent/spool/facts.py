"""Single numbers and texts in the ledger, each under a name.

Times are epoch seconds; counts are since the ledger was created.
"""

from __future__ import annotations

from agent.spool.database import Database

#: Until when the dashboard asked not to be sent anything (Retry-After).
PAUSE = "dashboard_pause_until"
#: Jobs that flush no longer retries and leaves to reconcile, after retry_max_age_days.
GIVEN_UP = "given_up"
#: Jobs that the hook should have queued, and that reconcile found instead.
MISSED = "missed"
#: The newest End of those that had started.
MISSED_END = "missed_end"
#: Rows of sacct that the latest reconcile, or a flush since then, could not read.
ODD_ROWS = "odd_rows"
#: When a reconcile of another controller last succeeded.
OTHERS_RECONCILED = "others_reconciled"
#: When the last daily reconcile that resent everything began. For an interrupted one: when its first run began, and
#: the End that it reached.
RESENT = "resent_at"
RESEND_BEGAN = "resend_began"
RESENT_TO = "resent_to"
#: Followed by a command's name: jobs that it has delivered, including repeats.
DELIVERED_BY = "delivered_by_"
#: How many bytes the dashboard is expected to accept in one POST; 0 if unknown.
BATCH_BYTES = "batch_bytes"
#: The size in bytes above which batches have failed, 0 if none has; and since when that is known.
BATCH_CEILING = "batch_ceiling_bytes"
BATCH_CEILING_AT = "batch_ceiling_at"
#: The size in bytes of the largest batch that was accepted since then; smaller if smaller ones have failed.
BATCH_ACCEPTED = "batch_accepted_bytes"
#: 1 if slurm_cluster names a cluster that this host does not control: no slurmctld calls a hook for it here.
ELSEWHERE = "cluster_elsewhere"
#: Since when runs have had to send without taking turns with the other controllers; 0 if they take turns.
WITHOUT_TURNS = "without_turns_since"
#: Since when slurmctld has not answered whether preempted jobs continue; 0 if it did when last asked.
SLURMCTLD_SILENT = "slurmctld_silent_since"
#: When the hook was first called.
HOOK_SINCE = "hook_since"
#: When the first run began.
LEDGER_SINCE = "ledger_since"
#: The first and the last second of the newest period that was reconciled without a gap.
HISTORY_SINCE = "history_since"
HISTORY_UNTIL = "history_until"


class Facts:
    """The tables ``facts``, of numbers, and ``notes``, of texts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> float:
        """The number under a name, 0 if there is none."""
        rows = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,))
        return float(rows[0][0]) if rows else 0.0

    def set(self, name: str, value: float) -> None:
        """Stores a number under a name."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def add(self, name: str, amount: float) -> None:
        """Adds to the number under a name."""
        self.set(name, self.get(name) + amount)

    def text(self, name: str) -> str:
        """The text under a name, empty if there is none."""
        rows = self._database.execute("SELECT value FROM notes WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def set_text(self, name: str, text: str) -> None:
        """Stores a text under a name."""
        self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))
