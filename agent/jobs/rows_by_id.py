"""Looks up sacct's rows by the JobID that was asked for. Pure."""

from __future__ import annotations

from typing import Iterable

from agent.jobs.queue_entry import QueueEntry
from agent.jobs.run import Run


class Rows:
    """Rows by displayed JobID and by raw ID."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._by_raw_id: dict[int, list[Run]] = {}
        self._by_job_id: dict[str, list[Run]] = {}
        for run in runs:
            self._by_raw_id.setdefault(run.raw_id, []).append(run)
            if "_" in run.job_id:
                self._by_job_id.setdefault(run.job_id, []).append(run)

    def of(self, entry: QueueEntry) -> list[Run]:
        """The rows of exactly this queued job: asked for an array's own ID, sacct returns all its tasks."""
        if entry.array_task is not None:
            plain = str(entry.job_id)
            half_written = [run for run in self.of_raw_id(entry.job_id) if run.job_id == plain]
            return self._by_job_id.get(entry.asked, half_written)
        return self.of_raw_id(entry.job_id)

    def of_raw_id(self, raw_id: int) -> list[Run]:
        """The rows of a raw ID."""
        return self._by_raw_id.get(raw_id, [])

    def of_job_id(self, job_id: str) -> list[Run]:
        """The rows of an array task by its displayed JobID; empty for other jobs."""
        return self._by_job_id.get(job_id, [])
