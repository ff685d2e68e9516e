"""The past runs, the calls of the hook, and the days that were reconciled."""

from __future__ import annotations

from typing import NamedTuple

from agent.errors import RecordsRejected
from agent.localtime import local_day
from agent.spool.database import Database
from agent.spool.facts import HISTORY_SINCE, HISTORY_UNTIL, HOOK_SINCE, LEDGER_SINCE, Facts

#: The hook need not be configured until this long after the first run.
FIRST_HOUR_SECONDS = 3600.0


class RunReport(NamedTuple):
    """The outcome of one flush or reconcile."""

    command: str
    started_at: float
    seconds: float
    exit_code: int
    message: str
    delivered: int = 0
    rejected: int = 0
    missed: int = 0  # jobs that the hook should have queued, but did not


class RunHistory:
    """The tables ``runs``, ``coverage`` and ``calls``, and since when they are complete."""

    def __init__(self, database: Database, facts: Facts) -> None:
        self._database = database
        self._facts = facts

    def add_run(self, report: RunReport) -> None:
        """Stores the outcome of a run; an idle run replaces the idle run before it."""
        if not (report.exit_code or report.delivered or report.rejected):
            self._database.execute(
                "DELETE FROM runs WHERE command = ? AND exit_code = 0 AND delivered = 0 AND rejected = 0",
                (report.command,),
            )
        self._database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", report)

    def last_run(self, command: str, *, successful: bool = False, with_work: bool = False) -> RunReport | None:
        """The latest run of a command.

        :param successful: the latest complete run, even if the dashboard permanently rejected some records.
        :param with_work: the latest run that delivered something.
        """
        rows = self._database.execute(
            "SELECT * FROM runs WHERE command = ? AND (exit_code IN (0, ?) OR NOT ?) AND (delivered > 0 OR NOT ?)"
            " ORDER BY started_at DESC LIMIT 1",
            (command, RecordsRejected.exit_code, successful, with_work),
        )
        return RunReport(*rows[0]) if rows else None

    def set_coverage(self, days: dict[str, tuple[int, int]]) -> None:
        """Stores for complete days how many jobs reconcile saw, and how many of them the hook had queued."""
        self._database.execute_many(
            "INSERT OR REPLACE INTO coverage VALUES (?, ?, ?)", ((day, *counts) for day, counts in days.items())
        )

    def coverage(self, since_day: str) -> dict[str, tuple[int, int]]:
        """The stored coverage since a day (YYYY-MM-DD)."""
        rows = self._database.execute(
            "SELECT day, jobs, hooked FROM coverage WHERE day >= ? ORDER BY day", (since_day,)
        )
        return {day: (jobs, hooked) for day, jobs, hooked in rows}

    def add_calls(self, calls: int, first_call: float, last_call: float) -> None:
        """Counts calls of the hook, on the day of the last of them (epoch seconds).

        The first call ever resets the coverage: the hook could not have queued earlier jobs.
        """
        if not self._facts.get(HOOK_SINCE):
            self._facts.set(HOOK_SINCE, first_call)
            self._database.execute("DELETE FROM coverage")
        self._database.execute(
            """INSERT INTO calls VALUES (?, ?, ?) ON CONFLICT (day) DO UPDATE SET
               calls = calls + excluded.calls, last_call = max(last_call, excluded.last_call)""",
            (local_day(last_call).isoformat(), calls, last_call),
        )

    def begin(self, now: float) -> None:
        """Stores when the first run of this ledger began."""
        if not self._facts.get(LEDGER_SINCE):
            self._facts.set(LEDGER_SINCE, now)

    def hook_due(self) -> float:
        """Since when (epoch seconds) the hook should have queued every job: its first call, if there was one.

        A new installation has one hour until slurm.conf names the hook and slurmctld has been restarted.
        """
        return self._facts.get(HOOK_SINCE) or self._facts.get(LEDGER_SINCE) + FIRST_HOUR_SECONDS

    def extend_history(self, start: float, end: float) -> None:
        """Extends the period that is on the dashboard without a gap by a reconciled range.

        A later range that does not touch the period replaces it. An earlier one is ignored: it would hide the gap.
        """
        since, until = self._facts.get(HISTORY_SINCE), self._facts.get(HISTORY_UNTIL)
        if since and start <= until + 1 and end >= since - 1:
            start, end = min(start, since), max(end, until)
        elif end <= until:
            return
        self._facts.set(HISTORY_SINCE, start)
        self._facts.set(HISTORY_UNTIL, end)

    def calls(self) -> dict[str, tuple[int, float]]:
        """For each day (YYYY-MM-DD), oldest first, how often the hook was called, and when last."""
        rows = self._database.execute("SELECT day, calls, last_call FROM calls ORDER BY day")
        return {day: (calls, last_call) for day, calls, last_call in rows}

    def prune(self, *, runs_before: float, coverage_before: float) -> None:
        """Deletes runs and days of coverage before these times (epoch seconds)."""
        self._database.execute("DELETE FROM runs WHERE started_at < ?", (runs_before,))
        self._database.execute("DELETE FROM coverage WHERE day < date(?, 'unixepoch')", (coverage_before,))
