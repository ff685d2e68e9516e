"""A line of the queue, read and written. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.errors import UnreadableLine

#: Stands for no task where a number is needed.
NO_TASK = -1
#: The highest JobID that any cluster of a federation can give. On 26.05 one that is out of range fails the whole call
#: of sacct; on 20.11 to 24.11 a lone 0 answered with every job there was.
LAST_JOB_ID = 0xFFFF0000


# Compiled with the first line: most runs of flush meet none.
_LINE = (
    r"(?P<job>[0-9]{1,10})(?:_(?P<part>[0-9]{1,10}))?"
    r"(?:\s+(?P<submit>[0-9]{1,12}|-)(?:\s+(?P<end>[0-9]{1,12}|-)(?:\s+(?P<task>[0-9]{1,10}|-))?)?)?"
)


class QueueEntry(NamedTuple):
    """A job whose end the hook, or an admin, has told us of. Times are epoch seconds, None where unknown."""

    job_id: int
    submit: int | None = None  # 0 for a job that an admin has named, however old it is
    end: int | None = None
    array_task: int | None = None  # where the job is to be asked for as JOBID_TASK

    @property
    def asked(self) -> str:
        """How sacct is asked for it."""
        return str(self.job_id) if self.array_task is None else f"{self.job_id}_{self.array_task}"

    @property
    def key(self) -> tuple[int, int]:
        """What identifies the job on the books."""
        return self.job_id, NO_TASK if self.array_task is None else self.array_task


def parse_line(line: str) -> QueueEntry:
    """Reads ``JOBID SUBMIT END ARRAYTASK``, of which only JOBID is needed; ``203_3`` is a JobID too.

    :raises UnreadableLine: for anything else.
    """
    match = re.fullmatch(_LINE, line.strip(), re.ASCII)
    if not match or not 0 < int(match["job"]) <= LAST_JOB_ID:
        raise UnreadableLine(f"no JobID in a line of the queue: {line[:100]!r}", subject=line)
    task = match["part"] or match["task"]
    return QueueEntry(int(match["job"]), _number(match["submit"]), _number(match["end"]), _number(task))


def is_task(job_id: str) -> bool:
    """Whether a JobID, as it is shown, is one task's of an array: ``203_3``."""
    array, found, task = job_id.partition("_")
    return bool(found) and array.isdigit() and task.isdigit()


def _number(text: str | None) -> int | None:
    return None if text in {None, "-"} else int(text or 0)
