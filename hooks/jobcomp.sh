#!/bin/sh
# Called by slurmctld for each finished job, as JobCompLoc (JobCompType=jobcomp/script) or as EpilogSlurmctld:
# appends "JOBID SUBMIT END ARRAYTASK" to the queue of slurm-usage-history-exporter, and always exits 0.
# Only variables that Slurm sets itself are read, and only digits of them are kept.

# jobcomp/script hands down nothing of slurmctld's environment: another spool is set in the next line.
: "${SLURM_USAGE_HISTORY_SPOOL:=/var/spool/slurm-usage-history-exporter}"
export PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin
export LC_ALL=C # with another locale flock reads a dozen files first
complaint_seconds=1
umask 077

digits() { # VALUE: the value where it is a number, else "-"
    case $1 in
    '' | *[!0-9]*) number=- ;;
    *) number=$1 ;;
    esac
}

describe_job() { # sets $line from the environment; fails where there is no JobID
    digits "${JOBID:-${SLURM_JOB_ID:-}}" && jobid=$number
    digits "${SUBMIT:-}" && submit=$number
    digits "${END:-${SLURM_JOB_END_TIME:-}}" && end=$number
    digits "${ARRAYJOBID:-${SLURM_ARRAY_JOB_ID:-}}" && array=$number
    digits "${ARRAYTASKID:-${SLURM_ARRAY_TASK_ID:-}}" && task=$number
    # The task is worth a word only where it runs under the raw ID of its whole array: there sacct -j ID answers
    # with every task. 4294967294 is Slurm's "no value".
    [ "$array" = "$jobid" ] && [ "$task" != 4294967294 ] || task=-
    line="$jobid $submit $end $task"
    [ "$jobid" != - ]
}

plain() { # FILE: absent, or a regular file: a link could lead anywhere, a FIFO would block
    [ ! -L "$1" ] && { [ -f "$1" ] || [ ! -e "$1" ]; }
}

append() { # FILE: a line of its own, even behind one that a full disk cut short
    plain "$1" && printf '\n%s\n' "$line" >>"$1"
}

append_locked() { # together with other hooks, as a line goes out in one piece; never waiting: slurmctld would
    lock=$SLURM_USAGE_HISTORY_SPOOL/queue.lock
    [ ! -e "$SLURM_USAGE_HISTORY_SPOOL/queue.claiming" ] && plain "$lock" && {
        flock -s -n 9 && still_there && append "$SLURM_USAGE_HISTORY_SPOOL/queue"
    } 9<>"$lock" # NFS shares a lock only where the file can be read
}

still_there() { # whoever cleans up may have removed the lock file meanwhile: then this lock keeps nobody out
    # shellcheck disable=SC3013  # -ef is POSIX since 2024; a shell without it leaves a side file each time
    [ "$lock" -ef /proc/self/fd/9 ]
}

append_beside() { # needs no lock: a file of this call's own, whole before it gets its name
    part=$SLURM_USAGE_HISTORY_SPOOL/queue.part.$$.$jobid
    append "$part" || { # what a full disk has cut short goes, where it can
        rm -f "$part"
        return 1
    }
    mv -f "$part" "$SLURM_USAGE_HISTORY_SPOOL/queue.side.$$.$jobid" # where that fails, an old part is read, too
    return 0
}

complain() { # a stuck syslog must not hold slurmctld
    timeout "$complaint_seconds" logger -p daemon.err -t slurm-usage-history-exporter \
        "job $jobid could not be queued in $SLURM_USAGE_HISTORY_SPOOL: the daily reconcile will bring it"
}

main() {
    describe_job || return 0
    { append_locked || append_beside; } 2>/dev/null && return 0
    complain >/dev/null 2>&1
}

main
exit 0
