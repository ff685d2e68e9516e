"""Reads and writes a line of the queue. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.errors import UnreadableLine

#: Means "not an array task" where a number is required.
NO_TASK = -1
#: The highest JobID that any cluster of a federation can assign. On 26.05 an ID out of range fails the whole sacct
#: call; on 20.11 to 24.11 a lone 0 returned every job.
LAST_JOB_ID = 0xFFFF0000


# Compiled on first use: most flushes read no line.
_LINE = (
    r"(?P<job>[0-9]{1,10})(?:_(?P<part>[0-9]{1,10}))?"
    r"(?:\s+(?P<submit>[0-9]{1,12}|-)(?:\s+(?P<end>[0-9]{1,12}|-)(?:\s+(?P<task>[0-9]{1,10}|-))?)?)?"
)


class QueueEntry(NamedTuple):
    """A job whose end the hook or an admin reported. Times are epoch seconds, None where unknown."""

    job_id: int
    submit: int | None = None  # 0 for a job queued by an admin, who may name one of any age
    end: int | None = None
    array_task: int | None = None  # set if sacct is to be asked for JOBID_TASK

    @property
    def asked(self) -> str:
        """The JobID to pass to ``sacct -j``."""
        return str(self.job_id) if self.array_task is None else f"{self.job_id}_{self.array_task}"

    @property
    def key(self) -> tuple[int, int]:
        """Identifies the job in the ledger."""
        return self.job_id, NO_TASK if self.array_task is None else self.array_task


def parse_line(line: str) -> QueueEntry:
    """Parses ``JOBID SUBMIT END ARRAYTASK``. Only JOBID is required; ``203_3`` is also accepted.

    :raises UnreadableLine: for anything else.
    """
    match = re.fullmatch(_LINE, line.strip(), re.ASCII)
    if not match or not 0 < int(match["job"]) <= LAST_JOB_ID:
        raise UnreadableLine(f"no JobID in a line of the queue: {line[:100]!r}", subject=line)
    task = match["part"] or match["task"]
    return QueueEntry(int(match["job"]), _number(match["submit"]), _number(match["end"]), _number(task))


def is_task(job_id: str) -> bool:
    """Whether a displayed JobID belongs to a single array task: ``203_3``."""
    array, found, task = job_id.partition("_")
    return bool(found) and array.isdigit() and task.isdigit()


def _number(text: str | None) -> int | None:
    return None if text in {None, "-"} else int(text or 0)
