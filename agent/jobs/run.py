"""A :class:`Run` is one row of Slurm's accounting, and what its State says about the job. Pure.

Slurm's accounting keeps one row for each run of a job. A requeue starts a row with a new Submit, a resize one whose
Submit is the time of the resize. The states are those of sacct. Seen on 20.11 to 26.05.
"""

from __future__ import annotations

from typing import NamedTuple

#: Replaces a user, account or partition that sacct leaves empty.
UNKNOWN = "unknown"

LIVE_STATES = frozenset({"PENDING", "RUNNING", "SUSPENDED"})
#: The row has ended; the job continues in a newer one.
CONTINUED_STATES = frozenset({"REQUEUED", "RESIZING"})
#: The row has ended; the job is requeued if it is allowed to be.
REQUEUEABLE_STATES = frozenset({"PREEMPTED", "NODE_FAIL"})
#: Either.
MAY_CONTINUE_STATES = CONTINUED_STATES | REQUEUEABLE_STATES
#: The job ran on another cluster of the federation.
REVOKED = "REVOKED"
ENDED_STATES = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)


class Run(NamedTuple):
    """One row of Slurm's accounting: one run, or one segment of a resized run, of a job. Times are epoch seconds."""

    job_id: str  # as sacct's JobID: 123, 123_4, 123+1, 123_[5-9]
    raw_id: int
    cluster: str
    user: str
    uid: str  # identifies the user: the name may resolve in one row and not in another
    account: str
    partition: str
    state: str  # the bare word: "CANCELLED by 1000" is CANCELLED
    qos: str | None
    submit: int  # 0 if missing in the accounting
    start: int | None
    end: int | None
    elapsed_seconds: int  # excluding suspension
    cpus: int
    nodes: int
    gpus: int
    memory_mb: float
    node_list: str | None
    restarts: int | None = None  # None if this version of Slurm lacks it
    row: bytes = b""  # as sacct printed it; empty for a remembered run

    @property
    def ended(self) -> bool:
        """Whether the run has ended. A row in an unknown state has if it has an End; one in a live state never has."""
        return self.end is not None and self.state not in LIVE_STATES

    @property
    def never_started(self) -> bool:
        """Cancelled while pending: no Start, or a Start that only repeats the End, on no node."""
        return self.start is None or (self.node_list is None and self.elapsed_seconds == 0)
