"""Slurm's accounting and the dashboard in memory, for what no real Slurm can be made to do on demand.

The accounting answers as sacct does where it matters here: by state and End within both bounds, or by ID with all rows.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any, Iterator, Mapping, Sequence

from agent.jobs.record import digest_row
from agent.jobs.run import Run
from agent.localtime import Range
from agent.slurm.controllers import Controllers
from agent.slurm.sacct import ALL_ENDS
from tests.support.rows import NOON

DAY = 86_400
#: A week of accounting, at the end of which it is now.
WINDOW = Range(NOON, NOON + 7 * DAY)

_WORDS = {
    "BF": "BOOT_FAIL",
    "CA": "CANCELLED",
    "CD": "COMPLETED",
    "DL": "DEADLINE",
    "F": "FAILED",
    "NF": "NODE_FAIL",
    "OOM": "OUT_OF_MEMORY",
    "PR": "PREEMPTED",
    "TO": "TIMEOUT",
    "RQ": "REQUEUED",
    "RS": "RESIZING",
}


class MemoryTable:
    """Rows, as :class:`agent.slurm.table.Table` holds them."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = [run._replace(row=repr(run).encode()) for run in runs]
        self.rows = len(runs)

    def leave_out(self, known: Mapping[bytes, Any]) -> list[Any]:
        """As :meth:`agent.slurm.table.Table.leave_out`."""
        met = [known[digest_row(run.row)] for run in self._runs if digest_row(run.row) in known]
        self._runs = [run for run in self._runs if digest_row(run.row) not in known]
        return met

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def repeated_ids(self) -> set[int]:
        """The raw IDs that more than one row has."""
        raw_ids = Counter(run.raw_id for run in self._runs)
        return {raw_id for raw_id, rows in raw_ids.items() if rows > 1}


class MemoryQuery:
    """A call that has been answered already, for what ended in a window or for all there is."""

    def __init__(self, runs: list[Run], start: int = 0, end: int = 0) -> None:
        self.start, self.end = start, end
        self._runs = runs

    def answer(self) -> MemoryTable:
        """The rows."""
        return MemoryTable(self._runs)

    def cancel(self) -> None:
        """Nothing is under way."""


class MemorySlurm:
    """Rows in memory, and a note of each call.

    Every other window goes wrong, up to ``failing_windows`` of them: sacct answers with nothing. The IDs in
    ``hidden_by_id`` are found by the time they ended alone.
    """

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)
        self.windows: list[tuple[int, int, str]] = []
        self.asked: list[list[str]] = []
        self.failing_windows = 0
        self.hidden_by_id: set[str] = set()
        self.states: dict[int, str] = {}  # of the jobs that slurmctld knows

    def ask_window(self, start: int, end: int, states: str = ALL_ENDS) -> MemoryQuery:
        """As :meth:`agent.slurm.sacct.Sacct.ask_window`."""
        self.windows.append((start, end, states))
        if self.failing_windows and len(self.windows) % 2:
            self.failing_windows -= 1
            return MemoryQuery([], start, end)
        words = {_WORDS[state] for state in states.split(",")}
        ended = [run for run in self.runs if run.end is not None and start <= run.end <= end and run.state in words]
        return MemoryQuery(ended, start, end)

    def ask_ids(self, asked: Sequence[str], since: int) -> MemoryQuery:
        """As :meth:`agent.slurm.sacct.Sacct.ask_ids`."""
        self.asked.append(list(asked))
        shown = set(asked) - self.hidden_by_id
        wanted = [run for run in self.runs if str(run.raw_id) in shown or run.job_id in shown]
        return MemoryQuery([run for run in wanted if run.end is None or run.end >= since])

    odd_rows = 0

    def expect(self, cluster: str) -> None:
        """As :meth:`agent.slurm.sacct.Sacct.expect`."""

    def job_states(self, raw_ids: Sequence[int]) -> dict[int, str]:
        """As :meth:`agent.slurm.sacct.Sacct.job_states`."""
        return {raw_id: state for raw_id, state in self.states.items() if raw_id in raw_ids}

    def controllers(self) -> Controllers:
        """As :meth:`agent.slurm.sacct.Sacct.controllers`."""
        return Controllers("lab", (socket.gethostname(),), "/nonexistent")


class MemoryDashboard:
    """Takes every batch and keeps it."""

    ingest_url = "memory"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = 1) -> str:
        """As :meth:`agent.dashboard.client.Dashboard.submit`."""
        self.batches.append(list(texts))
        return f"{len(texts)} jobs for {cluster} in {tries}"

    def answers(self) -> bool:
        """It is always there."""
        return True
