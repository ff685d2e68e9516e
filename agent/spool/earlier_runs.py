"""The earlier runs of jobs that continue, or may continue: a table of the ledger."""

from __future__ import annotations

import json
from typing import Iterable, Sequence

from agent.jobs.run import Run
from agent.spool.database import Database


class EarlierRuns:
    """The table ``earlier_runs``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, runs: Iterable[Run]) -> None:
        """Stores ended runs whose job continues, or may continue."""
        self._database.execute_many(
            "INSERT OR REPLACE INTO earlier_runs VALUES (?, ?, ?, ?)",
            ((run.raw_id, run.submit, run.end or 0, json.dumps(run[:-1])) for run in runs),
        )

    def of(self, job_ids: Sequence[int]) -> dict[int, list[Run]]:
        """The stored runs of these raw IDs, by raw ID; IDs without any are left out."""
        found: dict[int, list[Run]] = {}
        for job_id, text in self._database.select_among("SELECT job_id, run FROM earlier_runs WHERE job_id", job_ids):
            found.setdefault(job_id, []).append(Run(*json.loads(text)))
        return found

    def prune(self, before: float) -> None:
        """Deletes the runs that ended before then (epoch seconds)."""
        self._database.execute("DELETE FROM earlier_runs WHERE ended < ?", (before,))
