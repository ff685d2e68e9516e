"""The numbers that the ledger remembers by name. Times are epoch seconds, counts are since the ledger was begun."""

from __future__ import annotations

#: Until when the dashboard asked to be left alone.
PAUSE = "dashboard_pause_until"
#: Jobs that flush has left to reconcile, after retry_max_age_days.
GIVEN_UP = "given_up"
#: Jobs that the hook should have brought, and reconcile did.
MISSED = "missed"
#: When the newest of these that had run ended.
MISSED_END = "missed_end"
#: Rows of sacct that the latest reconcile, or a flush since then, could not read.
ODD_ROWS = "odd_rows"
#: When a reconcile of another controller has gone well.
OTHERS_RECONCILED = "others_reconciled"
#: When a daily reconcile has begun that has sent everything, and up to which end one has come that was interrupted.
RESENT = "resent_at"
RESENT_TO = "resent_to"
#: With the command's name behind it: jobs that it has delivered, repeats included.
DELIVERED_BY = "delivered_by_"
#: How many bytes the dashboard is trusted to take in one POST, 0 where nothing is known yet.
BATCH_BYTES = "batch_bytes"
#: The bytes above which batches have failed, 0 where none has; and since when that is known.
BATCH_CEILING = "batch_ceiling_bytes"
BATCH_CEILING_AT = "batch_ceiling_at"
#: 1 where slurm_cluster names a cluster that this host does not control: no slurmctld calls a hook for it here.
ELSEWHERE = "cluster_elsewhere"
#: When the hook called for the first time.
HOOK_SINCE = "hook_since"
#: When the first run was.
LEDGER_SINCE = "ledger_since"
#: What was reconciled last without a gap: its first and its last second.
HISTORY_SINCE = "history_since"
HISTORY_UNTIL = "history_until"
