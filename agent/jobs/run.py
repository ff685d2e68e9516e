"""A :class:`Run` is one row of Slurm's accounting; what its State means for the job. Pure.

Slurm's accounting keeps one row for each run of a job: a requeue begins a new row with a new Submit, a resize begins
a new row at the time of the resize. Seen on 20.11 to 26.05.
"""

from __future__ import annotations

from typing import NamedTuple

LIVE_STATES = frozenset({"PENDING", "RUNNING", "SUSPENDED"})
#: The row has ended, the job goes on in a newer one.
CONTINUED_STATES = frozenset({"REQUEUED", "RESIZING"})
#: The row has ended, and the job is requeued unless it may not be.
REQUEUEABLE_STATES = frozenset({"PREEMPTED", "NODE_FAIL"})
#: Either.
GOES_ON_STATES = CONTINUED_STATES | REQUEUEABLE_STATES
#: The job ran on another cluster of the federation.
REVOKED = "REVOKED"
ENDED_STATES = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    }
)
#: Stands for a user, account or partition that sacct leaves empty.
UNKNOWN = "unknown"


class Run(NamedTuple):
    """One row of Slurm's accounting: one run, or one segment of a resized run, of a job. Times are epoch seconds."""

    job_id: str  # as sacct's JobID: 123, 123_4, 123+1, 123_[5-9]
    raw_id: int
    cluster: str
    user: str
    uid: str  # compared where rows are: a user's name may resolve in one row and not in another
    account: str
    partition: str
    state: str  # the bare word: "CANCELLED by 1000" is CANCELLED
    qos: str | None
    submit: int  # 0 where the accounting has none
    start: int | None
    end: int | None
    elapsed_seconds: int  # without suspension
    cpus: int
    nodes: int
    gpus: int
    memory_mb: float
    node_list: str | None
    restarts: int | None = None  # None where this version does not tell
    row: bytes = b""  # as sacct printed it; empty where it was remembered

    @property
    def ended(self) -> bool:
        """An unknown word with an End has ended; a live one has not, whatever its End says."""
        return self.end is not None and self.state not in LIVE_STATES

    @property
    def never_started(self) -> bool:
        """Cancelled while pending: no Start, or a Start that only repeats the End, on no node."""
        return self.start is None or (self.node_list is None and self.elapsed_seconds == 0)
