"""What the agent writes down about itself: how its runs went, what the hook caught, and single numbers."""

from __future__ import annotations

from typing import NamedTuple

from agent.errors import RecordsRejected
from agent.localtime import local_day
from agent.spool.database import Database
from agent.spool.facts import HISTORY_SINCE, HISTORY_UNTIL, HOOK_SINCE, LEDGER_SINCE

#: So long after the first run nobody has to have wired the hook.
FIRST_HOUR_SECONDS = 3600.0


class RunReport(NamedTuple):
    """How one run of flush or reconcile went."""

    command: str
    started_at: float
    seconds: float
    exit_code: int
    message: str
    delivered: int = 0
    rejected: int = 0
    missed: int = 0  # jobs that the hook should have brought, and did not


class Journal:
    """The tables ``runs``, ``coverage``, ``calls``, ``facts`` and ``notes``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_run(self, report: RunReport) -> None:
        """Writes down how a run went; one that had nothing to do replaces the idle one before it."""
        if not (report.exit_code or report.delivered or report.rejected):
            self._database.execute(
                "DELETE FROM runs WHERE command = ? AND exit_code = 0 AND delivered = 0 AND rejected = 0",
                (report.command,),
            )
        self._database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", report)

    def last_run(self, command: str, *, successful: bool = False, with_work: bool = False) -> RunReport | None:
        """The latest run of a command, on request the latest that delivered something, or that did what it should.

        Such a one has done everything, though the dashboard may have refused some records for good.
        """
        rows = self._database.execute(
            "SELECT * FROM runs WHERE command = ? AND (exit_code IN (0, ?) OR NOT ?) AND (delivered > 0 OR NOT ?)"
            " ORDER BY started_at DESC LIMIT 1",
            (command, RecordsRejected.exit_code, successful, with_work),
        )
        return RunReport(*rows[0]) if rows else None

    def set_coverage(self, days: dict[str, tuple[int, int]]) -> None:
        """Writes down for whole days how many jobs reconcile saw and how many of them the hook had brought."""
        self._database.execute_many(
            "INSERT OR REPLACE INTO coverage VALUES (?, ?, ?)", ((day, *counts) for day, counts in days.items())
        )

    def coverage(self, since_day: str) -> dict[str, tuple[int, int]]:
        """The same, back again, from a day (YYYY-MM-DD) on."""
        rows = self._database.execute(
            "SELECT day, jobs, hooked FROM coverage WHERE day >= ? ORDER BY day", (since_day,)
        )
        return {day: (jobs, hooked) for day, jobs, hooked in rows}

    def add_calls(self, calls: int, first_call: float, last_call: float) -> None:
        """Counts calls of the hook, on the day of the last of them (epoch seconds).

        Before its very first call, no job can be held against it.
        """
        if not self.fact(HOOK_SINCE):
            self.set_fact(HOOK_SINCE, first_call)
            self._database.execute("DELETE FROM coverage")
        self._database.execute(
            """INSERT INTO calls VALUES (?, ?, ?) ON CONFLICT (day) DO UPDATE SET
               calls = calls + excluded.calls, last_call = max(last_call, excluded.last_call)""",
            (local_day(last_call).isoformat(), calls, last_call),
        )

    def begin(self, now: float) -> None:
        """Remembers when the first run was that this ledger knows of."""
        if not self.fact(LEDGER_SINCE):
            self.set_fact(LEDGER_SINCE, now)

    def hook_due(self) -> float:
        """From when on (epoch seconds) the hook should have brought each job: its first call, if there was one.

        A new installation has an hour until slurm.conf names the hook and slurmctld is restarted.
        """
        return self.fact(HOOK_SINCE) or self.fact(LEDGER_SINCE) + FIRST_HOUR_SECONDS

    def extend_history(self, start: float, end: float) -> None:
        """Adds a range that was reconciled to what is on the dashboard without a gap; one apart from it replaces it.

        A range of the past that does not touch it is not added: it would hide the gap.
        """
        since, until = self.fact(HISTORY_SINCE), self.fact(HISTORY_UNTIL)
        if since and start <= until + 1 and end >= since - 1:
            start, end = min(start, since), max(end, until)
        elif end <= until:
            return
        self.set_fact(HISTORY_SINCE, start)
        self.set_fact(HISTORY_UNTIL, end)

    def calls(self) -> dict[str, tuple[int, float]]:
        """For each day (YYYY-MM-DD), oldest first, how often the hook has called, and when last."""
        rows = self._database.execute("SELECT day, calls, last_call FROM calls ORDER BY day")
        return {day: (calls, last_call) for day, calls, last_call in rows}

    def set_fact(self, name: str, value: float) -> None:
        """Remembers a number under a name."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def raise_fact(self, name: str, amount: float) -> None:
        """Adds to the number under a name."""
        self.set_fact(name, self.fact(name) + amount)

    def fact(self, name: str) -> float:
        """The number under a name, 0 where there is none."""
        rows = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,))
        return float(rows[0][0]) if rows else 0.0

    def set_note(self, name: str, text: str) -> None:
        """Remembers a text under a name."""
        self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))

    def note(self, name: str) -> str:
        """The text under a name, empty where there is none."""
        rows = self._database.execute("SELECT value FROM notes WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def prune(self, *, runs_before: float, coverage_before: float) -> None:
        """Forgets runs and days that nobody looks back to, by epoch seconds."""
        self._database.execute("DELETE FROM runs WHERE started_at < ?", (runs_before,))
        self._database.execute("DELETE FROM coverage WHERE day < date(?, 'unixepoch')", (coverage_before,))
