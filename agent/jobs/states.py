"""What the states of Slurm's rows say about a job. Pure.

The names are those of sacct, as seen on 20.11 to 26.05.
"""

from __future__ import annotations

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
