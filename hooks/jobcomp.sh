#!/bin/sh
# Called by slurmctld for each finished job, as JobCompLoc (JobCompType=jobcomp/script) or as EpilogSlurmctld:
# appends "JOBID SUBMIT END ARRAYTASK" to the queue of slurm-usage-history-exporter, and always exits 0.
# It reads only variables that Slurm itself sets, and keeps only their digits.

# jobcomp/script passes on none of slurmctld's environment: set another spool in the next line.
: "${SLURM_USAGE_HISTORY_SPOOL:=/var/spool/slurm-usage-history-exporter}"
export PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin
export LC_ALL=C # with another locale flock would read a dozen files first
complaint_seconds=1
umask 077

digits() { # VALUE: sets $number to the value if it is a number, otherwise to "-"
    case $1 in
    '' | *[!0-9]*) number=- ;;
    *) number=$1 ;;
    esac
}

describe_job() { # sets $line from the environment; fails if there is no JobID
    digits "${JOBID:-${SLURM_JOB_ID:-}}" && jobid=$number
    digits "${SUBMIT:-}" && submit=$number
    digits "${END:-${SLURM_JOB_END_TIME:-}}" && end=$number
    digits "${ARRAYJOBID:-${SLURM_ARRAY_JOB_ID:-}}" && array=$number
    digits "${ARRAYTASKID:-${SLURM_ARRAY_TASK_ID:-}}" && task=$number
    # The task matters only if it runs under its array's own raw ID, for which sacct -j ID returns every task.
    # 4294967294 is Slurm's "no value".
    [ "$array" = "$jobid" ] && [ "$task" != 4294967294 ] || task=-
    line="$jobid $submit $end $task"
    [ "$jobid" != - ]
}

plain() { # FILE: whether it is absent or a regular file; a link could lead anywhere, and a FIFO would block
    [ ! -L "$1" ] && { [ -f "$1" ] || [ ! -e "$1" ]; }
}

append() { # FILE: adds $line, starting a new line in case a full disk cut the previous one short
    plain "$1" && printf '\n%s\n' "$line" >>"$1"
}

append_locked() { # shares the lock with other hooks (lines are written atomically); never waits for it, as slurmctld would
    lock=$SLURM_USAGE_HISTORY_SPOOL/queue.lock
    [ ! -e "$SLURM_USAGE_HISTORY_SPOOL/queue.claiming" ] && plain "$lock" && {
        flock -s -n 9 && still_there && append "$SLURM_USAGE_HISTORY_SPOOL/queue"
    } 9<>"$lock" # NFS shares a lock only where the file can be read
}

still_there() { # the lock excludes nobody if its file has been deleted meanwhile
    # shellcheck disable=SC3013  # -ef is POSIX since 2024; a shell without it always writes a side file
    [ "$lock" -ef /proc/self/fd/9 ]
}

append_beside() { # writes a file of its own, which needs no lock, and renames it when it is complete
    part=$SLURM_USAGE_HISTORY_SPOOL/queue.part.$$.$jobid
    append "$part" || { # deletes what a full disk has cut short, if possible
        rm -f "$part"
        return 1
    }
    mv -f "$part" "$SLURM_USAGE_HISTORY_SPOOL/queue.side.$$.$jobid" # if this fails, flush reads old parts, too
    return 0
}

complain() { # with a timeout: a stuck syslog must not block slurmctld
    timeout "$complaint_seconds" logger -p daemon.err -t slurm-usage-history-exporter \
        "job $jobid could not be queued in $SLURM_USAGE_HISTORY_SPOOL: the daily reconcile will deliver it"
}

main() {
    describe_job || return 0
    { append_locked || append_beside; } 2>/dev/null && return 0
    complain >/dev/null 2>&1
}

main
exit 0
