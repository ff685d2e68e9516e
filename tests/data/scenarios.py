"""What happens to the jobs that capture.py records. Each docstring describes the jobs of one scenario.

Those in SIDE_BY_SIDE run at the same time, where they do not disturb one another.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from agent.slurm.sacct_argv import make_window_selection
from tests.support.slurm import Slurm

if TYPE_CHECKING:
    from tests.data.capture import Capture

PROLOG = Path("/run/prolog.sh")
CONF = f"""\
FirstJobId=100
PartitionName=cpu Nodes=n[1-2] Default=YES
PartitionName=wide Nodes=n[1-2]
PartitionName=down Nodes=n3
PartitionName=dies Nodes=n[2,4]
PartitionName=busy Nodes=n8
PartitionName=broken Nodes=n5
PartitionName=low Nodes=n6 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=scavenge Nodes=n7 PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=n[6-7] PriorityTier=10 PreemptMode=OFF
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
RequeueExit=99
RequeueExitHold=98
SlurmdTimeout=20
Prolog={PROLOG}
PrologFlags=Alloc
"""
USERS = {"alice": 2001, "bob": 2002, "carol": 2003, "dave": 2004}
STATES = {
    "PENDING": 0,
    "RUNNING": 1,
    "SUSPENDED": 2,
    "COMPLETED": 3,
    "CANCELLED": 4,
    "FAILED": 5,
    "TIMEOUT": 6,
    "NODE_FAIL": 7,
    "PREEMPTED": 8,
    "DEADLINE": 10,
    "REQUEUED": 1024,
    "RESIZING": 8192,
}
#: Field separators, newlines, shell, and a byte that is not UTF-8.
HOSTILE = "a|b\x1fc\nJOBID=1\n$(touch /tmp/pwned);'\"\udcff"


def prepare_host() -> None:
    """Adds users to submit as, and a prolog that fails on one node."""
    PROLOG.write_text('#!/bin/sh\n[ "$SLURMD_NODENAME" != n5 ]\n')
    PROLOG.chmod(0o755)
    for name, uid in USERS.items():
        subprocess.run(["useradd", f"--uid={uid}", "--no-create-home", "--home-dir=/tmp", name], check=True)


def prepare_accounting(slurm: Slurm) -> None:
    """Adds accounts for all users except dave, whom the accounting does not know."""
    slurm.sacctmgr("add", "qos", "high")
    slurm.sacctmgr("add", "account", "physics,chemistry", "description=a", "organization=o")
    slurm.sacctmgr("add", "user", "alice,bob,carol", "account=physics,chemistry", "defaultaccount=physics", "qos+=high")


# Ends of all kinds


def completed(c: Capture) -> None:
    """Two CPUs for two seconds, under another QOS and account, by another user."""
    job = c.submit("completed", "-n2", "--qos=high", "--account=chemistry", command="sleep 2", user="bob")
    c.until_rows(job, "COMPLETED")


def failed(c: Capture) -> None:
    """Ended with exit status 3."""
    c.until_rows(c.submit("failed", command="sleep 1; exit 3"), "FAILED")


def timeout(c: Capture) -> None:
    """Reached its time limit of one minute."""
    c.until_rows(c.submit("timeout", "-t1", command="sleep 300"), "TIMEOUT")


def deadline(c: Capture) -> None:
    """Waited for a busy node until it could no longer end before its deadline."""
    busy = c.submit("deadline_passed_by", "--partition=busy", "--exclusive", command="sleep 300")
    c.until(busy, "RUNNING")
    c.until_rows(c.submit("deadline", "--partition=busy", "-t1", "--deadline=now+75"), "DEADLINE")
    c.cancel(busy)
    c.until_rows(busy, "CANCELLED")


def cancelled(c: Capture) -> None:
    """Cancelled by its user while running."""
    job = c.submit("cancelled", command="sleep 300")
    c.until(job, "RUNNING")
    c.cancel(job, user="alice")
    c.until_rows(job, "CANCELLED")


def cancelled_pending(c: Capture) -> None:
    """Cancelled by root while it waited for its begin."""
    job = c.submit("cancelled_pending", "--begin=now+1hour", "-n3")
    c.until(job, "PENDING")
    c.cancel(job)
    c.until_rows(job, "CANCELLED")


def cancelled_held(c: Capture) -> None:
    """Cancelled by its user while held, in two partitions at once."""
    job = c.submit("cancelled_held", "--hold", "-n3", "--partition=cpu,wide")
    c.until(job, "PENDING")
    c.cancel(job, user="alice")
    c.until_rows(job, "CANCELLED")


# Identities


def array(c: Capture) -> None:
    """Three tasks, two at a time; the last one runs under the array's own raw ID."""
    c.until_rows(c.submit("array", "--array=1-3%2", command="sleep 2"), "COMPLETED", "COMPLETED", "COMPLETED")


def array_cancelled(c: Capture) -> None:
    """Cancelled as a whole while held."""
    job = c.submit("array_cancelled", "--array=5-9%3", "--hold")
    c.until(job, "PENDING")
    c.cancel(job, user="alice")
    c.until_rows(job, "CANCELLED")


def array_cut_short(c: Capture) -> None:
    """Cancelled after its first task, with about eighty left: a bracket text of hundreds of characters."""
    job = c.submit("array_cut_short", "--array=1-99:2,200-300:3%1", command="sleep 2")
    ended = {STATES["COMPLETED"], STATES["CANCELLED"]}
    c.wait(job, "the first task", lambda: STATES["COMPLETED"] in c.row_states(job))
    c.cancel(job, user="alice")
    c.wait(job, "the end of all tasks", lambda: set(c.row_states(job)) == ended)


def het(c: Capture) -> None:
    """Two parts, of one CPU and of two."""
    job = c.submit("het", "-n1", ":", "-n2", command="sleep 2")
    c.until_rows(job, "COMPLETED", "COMPLETED")


def begin_reuse(c: Capture) -> None:
    """The first jobs of the cluster: one COMPLETED, one REQUEUED and waiting, one RUNNING."""
    done = c.submit("reused", command="sleep 2")
    waiting, running = (c.submit("reused", "--nodelist=n1", command="sleep 1000") for _ in range(2))
    c.until_rows(done, "COMPLETED")
    c.until(waiting, "RUNNING")
    c.scontrol("requeuehold", str(waiting))
    c.until_rows(waiting, "REQUEUED", "PENDING")
    c.until_rows(running, "RUNNING")


def reuse(c: Capture) -> None:
    """slurmctld lost its state, and counts from the first JobID again; the jobs are another user's now."""
    c.slurm.daemons.kill("slurmctld")
    state = c.slurm.folder / "state"
    shutil.rmtree(state)
    state.mkdir(mode=0o700)
    c.slurm.start("slurmctld")
    # A node that knows the old job under this ID would refuse the new one.
    jobs = [c.submit("reused", "--nodelist=n2", command="sleep 2", user="bob") for _ in range(3)]
    for job in jobs:
        c.until_newest_row(job, "COMPLETED")
    c.keep("reused", *jobs)


# Allocations


def gpus(c: Capture) -> None:
    """Two of a type; one each of two types; one of any type; none."""
    for options in (["--gres=gpu:a100:2"], ["--gres=gpu:a100:1,gpu:h100:1"], ["--gres=gpu:1"], []):
        c.until_rows(c.submit("gpus", *options), "COMPLETED")


def memory(c: Capture) -> None:
    """600 MB a node; 300 MB a CPU on three CPUs; 40 GB."""
    for options in (["--mem=600M"], ["--mem-per-cpu=300M", "-n3"], ["--mem=40G"]):
        c.until_rows(c.submit("memory", *options), "COMPLETED")


def two_nodes(c: Capture) -> None:
    """Two CPUs on each of two nodes."""
    c.until_rows(c.submit("two_nodes", "-N2", "-n4", "--ntasks-per-node=2", command="sleep 2"), "COMPLETED")


def suspended(c: Capture) -> None:
    """Ran, was suspended for some seconds, and ran to its end."""
    job = c.submit("suspended", command="sleep 6")
    c.until(job, "RUNNING")
    c.scontrol("suspend", str(job))
    c.until(job, "SUSPENDED", seconds=4)
    c.keep("suspended_now", job)
    c.scontrol("resume", str(job))
    c.until_rows(job, "COMPLETED")


def suspended_cancelled(c: Capture) -> None:
    """Cancelled some seconds after it was suspended."""
    job = c.submit("suspended_cancelled", command="sleep 300")
    c.until(job, "RUNNING")
    c.scontrol("suspend", str(job))
    c.until(job, "SUSPENDED", seconds=5)
    c.cancel(job)
    c.until_rows(job, "CANCELLED")


def resized(c: Capture) -> None:
    """Released one of its two nodes half-way."""
    job = c.submit("resized", "--partition=wide", "-N2", "-n2", command="sleep 8")
    c.until(job, "RUNNING", seconds=3)
    c.scontrol("update", f"jobid={job}", "numnodes=1")
    c.until_rows(job, "RESIZING", "RUNNING")
    c.keep("resized_running", job)
    c.until_rows(job, "RESIZING", "COMPLETED")


# Runs of one job


def requeued(c: Capture) -> None:
    """Requeued while running, and run again to its end."""
    job = c.submit("requeued", "-n2", command="sleep 12")
    c.until(job, "RUNNING", seconds=7)
    c.scontrol("requeue", str(job))
    c.until_rows(job, "REQUEUED", "PENDING")
    c.keep("requeued_waiting", job)
    c.until_rows(job, "REQUEUED", "RUNNING")
    c.keep("requeued_running", job)
    c.until_rows(job, "REQUEUED", "COMPLETED")


def requeued_held(c: Capture) -> None:
    """Requeued and held within two seconds of its start, and cancelled there."""
    job = c.submit("requeued_held", "-n2", command="sleep 300")
    c.until(job, "RUNNING")
    c.scontrol("requeuehold", str(job))
    _cancel_requeued(c, job)


def requeued_completed(c: Capture) -> None:
    """Requeued some seconds after it had completed, and run again."""
    job = c.submit("requeued_completed", "-n2", command="sleep 2")
    c.until_rows(job, "COMPLETED")
    c.until(job, "COMPLETED", seconds=4)
    c.scontrol("requeue", str(job))
    c.wait(job, "the next run's row", lambda: len(c.row_states(job)) == 2)
    c.keep("requeued_completed_waiting", job)
    c.until_newest_row(job, "COMPLETED")


def requeue_exit(c: Capture) -> None:
    """Ended with an exit status that RequeueExit names, and run again."""
    job = c.submit("requeue_exit", command='sleep 7; [ "${SLURM_RESTART_COUNT:-0}" -ge 1 ] || exit 99')
    c.wait(job, "its second run", lambda: "Restarts=1" in c.slurm.run("scontrol", "show", "job", str(job)))
    # 20.11 starts it again within the second, keeps no more than one row, and the node may refuse the job.
    ends = ("COMPLETED", "FAILED")
    c.until(job, *ends)
    c.wait(job, "its end", lambda: set(c.row_states(job)[-1:]) & {STATES[state] for state in ends})


def requeue_exit_hold(c: Capture) -> None:
    """Ended with an exit status that RequeueExitHold names, and cancelled while held."""
    job = c.submit("requeue_exit_hold", command="sleep 7; exit 98")
    _cancel_requeued(c, job)


def preempted_requeued(c: Capture) -> None:
    """Preempted by a job of a higher partition, requeued, and run to its end."""
    job = c.submit("preempted_requeued", "--partition=low", "--exclusive", command="sleep 12")
    c.until(job, "RUNNING", seconds=7)
    c.submit("preempting", "--partition=urgent", "--nodelist=n6", "--exclusive", command="sleep 2")
    c.until_rows(job, "PREEMPTED", "PENDING")
    c.keep("preempted_waiting", job)
    c.until_rows(job, "PREEMPTED", "COMPLETED")


def preempted(c: Capture) -> None:
    """Preempted and not requeued: PreemptMode=CANCEL."""
    job = c.submit("preempted", "--partition=scavenge", "--exclusive", command="sleep 300")
    c.until(job, "RUNNING")
    c.submit("preempting", "--partition=urgent", "--nodelist=n7", "--exclusive", command="sleep 2")
    c.until_rows(job, "PREEMPTED")


def node_down(c: Capture) -> None:
    """Its node was set down by an admin: requeued, and cancelled while it waited; one with --no-requeue ended."""
    job = c.submit("node_down", "--partition=down", command="sleep 300")
    final = c.submit("node_fail", "--partition=down", "--no-requeue", command="sleep 300")
    c.until(job, "RUNNING")
    c.until(final, "RUNNING")
    c.scontrol("update", "nodename=n3", "state=down", "reason=capture")
    c.until_rows(job, "NODE_FAIL", "PENDING")
    c.cancel(job)
    c.until_rows(job, "NODE_FAIL", "CANCELLED")
    c.until_rows(final, "NODE_FAIL")


def node_died(c: Capture) -> None:
    """Its slurmd was killed: requeued, and cancelled; a job of two nodes with --no-kill continued on the other."""
    job = c.submit("node_died", "--partition=dies", "--nodelist=n4", command="sleep 300")
    both = c.submit("node_lost", "--partition=dies", "-N2", "--nodelist=n[2,4]", "--no-kill", command="sleep 300")
    c.until(job, "RUNNING")
    c.until(both, "RUNNING")
    c.slurm.daemons.kill("n4")
    c.until_rows(job, "NODE_FAIL", "PENDING")
    c.until_rows(both, "RESIZING", "RUNNING")
    c.cancel(job, both)
    c.until_rows(job, "NODE_FAIL", "CANCELLED")
    c.until_rows(both, "RESIZING", "CANCELLED")


def prolog_failed(c: Capture) -> None:
    """Its prolog failed some seconds after its submit: requeued and held, and cancelled there."""
    job = c.submit("prolog_failed", "--partition=broken", "--begin=now+3")
    _cancel_requeued(c, job)


def _cancel_requeued(c: Capture, job: int) -> None:
    c.wait(job, "the requeue", lambda: STATES["REQUEUED"] in c.row_states(job))
    # On 20.11 the row of a held job's next run may appear only at the job's next change.
    c.until(job, "PENDING", "SPECIAL_EXIT", seconds=3)
    c.cancel(job)
    c.wait(job, "the end", lambda: c.row_states(job)[-1:] == [STATES["CANCELLED"]])


# Texts


def hostile_text(c: Capture) -> None:
    """A name and a comment full of separators, newlines, shell, and a byte that is not UTF-8."""
    job = c.submit("hostile_text", f"--job-name={HOSTILE}", f"--comment={HOSTILE}")
    c.until_rows(job, "COMPLETED")


def user_gone(c: Capture) -> None:
    """Jobs of two users who were deleted afterwards: carol had an association in the accounting, dave had none."""
    for user in ("carol", "dave"):
        c.until_rows(c.submit("user_gone", user=user), "COMPLETED")
        subprocess.run(["userdel", user], check=True)


def fail(c: Capture) -> None:
    """No jobs: queries that sacct can't, or refuses to, answer."""
    known = str(c.jobs["completed"][0])
    window = make_window_selection(c.began, int(time.time()))
    c.keep_failure("no_such_id", c.ask("--jobs=99999"))
    c.keep_failure("no_id", c.ask(f"--jobs={known},zz"))
    c.keep_failure("no_such_field", c.ask("--format=JobID,Nonsense"))
    c.keep_failure("no_such_state", c.ask("--state=CA,ZZ"))
    c.keep_failure("no_such_cluster", c.ask("--clusters=nowhere", *window))
    c.slurm.daemons.stop("slurmdbd")
    c.keep_failure("no_slurmdbd", c.ask(*window))
    with (c.slurm.folder / "slurmdbd.conf").open("a") as conf:
        conf.write("PrivateData=jobs\n")
    c.slurm.start("slurmdbd")
    c.keep_failure("private_data", c.ask(*window, user="bob"))
    c.slurm.daemons.kill("mariadbd")
    c.keep_failure("no_mariadb", c.ask(*window))


SIDE_BY_SIDE: tuple[Callable[[Capture], None], ...] = (
    completed,
    failed,
    timeout,
    deadline,
    cancelled,
    cancelled_pending,
    cancelled_held,
    array,
    array_cancelled,
    array_cut_short,
    het,
    gpus,
    memory,
    two_nodes,
    suspended,
    suspended_cancelled,
    resized,
    requeued,
    requeued_held,
    requeued_completed,
    requeue_exit,
    requeue_exit_hold,
    preempted_requeued,
    preempted,
    node_down,
    node_died,
    prolog_failed,
    hostile_text,
    user_gone,
)
