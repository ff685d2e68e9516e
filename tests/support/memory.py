"""Slurm's accounting and the dashboard in memory, for situations that a real Slurm does not produce on demand.

The accounting answers like sacct in what matters here: by state and End within both bounds, or by ID with all rows.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any, Iterator, Mapping, Sequence

from agent.config import parse_config
from agent.jobs.record import digest_row
from agent.jobs.run import Run
from agent.localtime import Range
from agent.slurm.controller_hosts import Controllers
from agent.slurm.sacct_argv import ALL_ENDS
from agent.slurm.slurm import Slurm
from tests.support.rows import NOON, values_of

DAY = 86_400
#: A week of accounting that ends now.
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
    """Rows, like those of :class:`agent.slurm.table.Table`."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = [run._replace(row=repr(run).encode()) for run in runs]
        self.rows = len(runs)

    def leave_out(self, known: Mapping[bytes, Any]) -> list[tuple[list[str], Any]]:
        """Like :meth:`agent.slurm.table.Table.leave_out`."""
        repeated_ids = self.repeated_ids
        left_out = [run for run in self._runs if digest_row(run.row) in known and run.raw_id not in repeated_ids]
        self._runs = [run for run in self._runs if run not in left_out]
        return [(values_of(run), known[digest_row(run.row)]) for run in left_out]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @property
    def repeated_ids(self) -> set[int]:
        """The raw IDs of several rows."""
        raw_ids = Counter(run.raw_id for run in self._runs)
        return {raw_id for raw_id, rows in raw_ids.items() if rows > 1}


class MemoryQuery:
    """A call that has already been answered, for the jobs of a window or for all of them."""

    def __init__(self, runs: list[Run], start: int = 0, end: int = 0) -> None:
        self.start, self.end = start, end
        self._runs = runs

    def answer(self) -> MemoryTable:
        """The rows."""
        return MemoryTable(self._runs)

    def cancel(self) -> None:
        """Does nothing, as no call is running."""


def slurm_of(commands: Any) -> Slurm:
    """A Slurm with a stand-in for its sacct, scontrol and sacctmgr."""
    slurm = Slurm(parse_config({"api_url": "http://127.0.0.1:9", "api_key": "k"}, {}), {}, print)
    slurm.sacct = slurm.scontrol = slurm.sacctmgr = commands
    return slurm


class MemorySlurm:
    """Rows in memory, and a note of each call.

    Every other call for a window gets an empty answer, up to ``failing_windows`` calls. The IDs in ``hidden_by_id`` are
    found by End only, not by ID.
    """

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)
        self.windows: list[tuple[int, int, str]] = []
        self.asked: list[list[str]] = []
        self.failing_windows = 0
        self.hidden_by_id: set[str] = set()
        self.states: dict[int, str] = {}  # states of the jobs that slurmctld knows

    def ask_window(self, start: int, end: int, states: str = ALL_ENDS) -> MemoryQuery:
        """Like :meth:`agent.slurm.sacct.Sacct.ask_window`."""
        self.windows.append((start, end, states))
        if self.failing_windows and len(self.windows) % 2:
            self.failing_windows -= 1
            return MemoryQuery([], start, end)
        words = {_WORDS[state] for state in states.split(",")}
        ended = [run for run in self.runs if run.end is not None and start <= run.end <= end and run.state in words]
        return MemoryQuery(ended, start, end)

    def ask_ids(self, asked: Sequence[str], since: int) -> MemoryQuery:
        """Like :meth:`agent.slurm.sacct.Sacct.ask_ids`."""
        self.asked.append(list(asked))
        shown = set(asked) - self.hidden_by_id
        wanted = [run for run in self.runs if str(run.raw_id) in shown or run.job_id in shown]
        return MemoryQuery([run for run in wanted if run.end is None or run.end >= since])

    odd_rows = 0

    def expect(self, cluster: str) -> None:
        """Like :meth:`agent.slurm.sacct.Sacct.expect`."""

    def job_states(self, raw_ids: Sequence[int]) -> dict[int, str]:
        """Like :meth:`agent.slurm.sacct.Sacct.job_states`."""
        return {raw_id: state for raw_id, state in self.states.items() if raw_id in raw_ids}

    def controllers(self) -> Controllers:
        """Like :meth:`agent.slurm.sacct.Sacct.controllers`."""
        return Controllers("lab", (socket.gethostname(),), "/nonexistent")


class MemoryDashboard:
    """Accepts every batch and stores it."""

    ingest_url = "memory"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = 1) -> str:
        """Like :meth:`agent.dashboard.client.Dashboard.submit`."""
        self.batches.append(list(texts))
        return f"{len(texts)} jobs for {cluster} in {tries}"

    def answers(self) -> bool:
        """Whether it is reachable: always."""
        return True
