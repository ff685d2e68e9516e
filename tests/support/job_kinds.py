"""Jobs of every kind that Slurm knows, each with its expected records, written by hand."""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple

from .slurm import Slurm
from .waiting import wait_for

#: JobID → some of the fields of its record.
Records = Dict[str, Dict[str, Any]]

NEVER_STARTED = {
    "State": "CANCELLED",
    "NodeList": "",
    "CPUHours": 0.0,
    "GPUHours": 0.0,
    "AllocCPUS": 0,
    "AllocNodes": 0,
    "ElapsedHours": 0.0,
}
HOSTILE = "a|b\x1fc\n4711 1 1 -\t';\"`touch hostile`$(touch hostile) %s \\ é ✘"
#: Makes a job run until :func:`let_go`, for kinds whose running jobs must be acted on first.
UNTIL_LET_GO = 'until [ -e "${SLURM_CONF%/*}/go.$SLURM_JOB_ID" ]; do sleep 0.1; done'
FIRST_RUN_ONLY = '[ -n "$SLURM_RESTART_COUNT" ] || '
#: Makes a job run until it is requeued, and then for a second.
UNTIL_REQUEUED = FIRST_RUN_ONLY + '{ touch "${SLURM_CONF%/*}/runs.$SLURM_JOB_ID"; sleep 300; }; sleep 1'


def leave_alone(slurm: Slurm, job: int) -> None:
    """Leaves a job alone."""


class Kind(NamedTuple):
    """A kind of job.

    ``act`` turns the submitted job into this kind; ``started`` is False for a job that never runs.
    """

    options: tuple[str, ...]
    command: str
    records: Callable[[int], Records]
    act: Callable[[Slurm, int], None] = leave_alone
    started: bool = True

    def submit(self, slurm: Slurm) -> int:
        """Submits a job of this kind and returns its raw JobID."""
        return slurm.sbatch(*self.options, command=self.command)


def one(**fields: Any) -> Callable[[int], Records]:
    """One record, under the job's own ID."""
    return lambda job: {str(job): fields}


def let_go(slurm: Slurm, job: int) -> None:
    (slurm.folder / f"go.{job}").touch()


def cancel(slurm: Slurm, job: int) -> None:
    slurm.run("scancel", str(job))


def cancel_running(slurm: Slurm, job: int) -> None:
    slurm.wait_for_state(job, "RUNNING")
    cancel(slurm, job)


def run_out_of_time(slurm: Slurm, job: int) -> None:
    """Takes up to 30 s, the interval at which slurmctld checks time limits."""
    slurm.wait_for_state(job, "RUNNING")
    slurm.run("scontrol", "update", f"JobId={job}", "EndTime=now+6")


def wait_for_script(slurm: Slurm, job: int) -> None:
    """Waits until the script of a job that runs :data:`UNTIL_REQUEUED` is running; RUNNING comes earlier.

    On 20.11 a job requeued in between may stay held ("launch failed requeued held"): its first script is in the way.
    """
    wait_for((slurm.folder / f"runs.{job}").exists, f"job {job} runs")


def requeue_running(slurm: Slurm, job: int) -> None:
    wait_for_script(slurm, job)
    slurm.run("scontrol", "requeue", str(job))


def requeue_ended(slurm: Slurm, job: int) -> None:
    """Not before the accounting knows the first run: 20.11 never completes the row of a requeued run of seconds."""
    slurm.wait_for_state(job, "COMPLETED")
    wait_for(
        lambda: slurm.sql(f"select 1 from {slurm.cluster}_job_table where id_job = {job} and time_eligible > 0"),
        "its row",
    )
    slurm.run("scontrol", "requeue", str(job))


def shrink(slurm: Slurm, job: int) -> None:
    slurm.wait_for_state(job, "RUNNING")
    slurm.run("scontrol", "update", f"JobId={job}", "NumNodes=1")
    let_go(slurm, job)


def suspend_for_a_while(slurm: Slurm, job: int) -> None:
    slurm.wait_for_state(job, "RUNNING")
    slurm.run("scontrol", "suspend", str(job))
    slurm.wait_for_state(job, "SUSPENDED")
    slurm.run("scontrol", "resume", str(job))
    let_go(slurm, job)


KINDS: dict[str, Kind] = {
    "plain": Kind((), "true", one(State="COMPLETED", AllocCPUS=1, AllocNodes=1, AllocGPUS=0, QOS="normal")),
    "failing": Kind((), "exit 3", one(State="FAILED")),
    "timeout": Kind(("--time=1",), "sleep 300", one(State="TIMEOUT"), run_out_of_time),
    "cancelled": Kind((), "sleep 300", one(State="CANCELLED", AllocCPUS=1, AllocNodes=1), cancel_running),
    "cancelled pending": Kind(("--begin=now+1hour",), "true", one(**NEVER_STARTED), cancel, started=False),
    "cancelled held": Kind(("--hold",), "true", one(**NEVER_STARTED), cancel, started=False),
    "array": Kind(
        ("--array=1-3",),
        "true",
        lambda job: {f"{job}_{task}": {"State": "COMPLETED", "AllocCPUS": 1} for task in (1, 2, 3)},
    ),
    "array cancelled whole": Kind(
        ("--array=1,3-5%1", "--hold"), "true", lambda job: {f"{job}_[1,3-5%1]": NEVER_STARTED}, cancel, started=False
    ),
    "burst": Kind(
        ("--array=1-40",), "true", lambda job: {f"{job}_{task}": {"State": "COMPLETED"} for task in range(1, 41)}
    ),
    "het": Kind(
        ("-n1", "--gres=gpu:h100:1", ":", "-n4"),
        "sleep 1",
        lambda job: {f"{job}+0": {"AllocCPUS": 1, "AllocGPUS": 1}, f"{job}+1": {"AllocCPUS": 4, "AllocGPUS": 0}},
    ),
    "GPU typed": Kind(("--gres=gpu:a100:2",), "sleep 1", one(AllocGPUS=2)),
    "GPU untyped": Kind(("--gres=gpu:1",), "sleep 1", one(AllocGPUS=1)),
    "several nodes": Kind(("-N3", "-n6", "--mem=20"), "sleep 1", one(AllocNodes=3, AllocCPUS=6, AllocMemoryMB=60.0)),
    "requeued running": Kind(("--requeue",), UNTIL_REQUEUED, one(State="COMPLETED"), requeue_running),
    "requeued ended": Kind(("--requeue", "-n2"), "sleep 1", one(State="COMPLETED"), requeue_ended),
    "resized": Kind(("-N2", "-n2"), UNTIL_LET_GO, one(State="COMPLETED", AllocNodes=1, AllocCPUS=1), shrink),
    "suspended": Kind((), UNTIL_LET_GO, one(State="COMPLETED"), suspend_for_a_while),
    "hostile names": Kind((f"--job-name={HOSTILE}", f"--comment={HOSTILE}"), "true", one(State="COMPLETED")),
    "another user": Kind(("--uid=65534", "--account=physics"), "true", one(User="nobody", Account="physics")),
    "no account": Kind(("--uid=65534",), "true", one(User="nobody", Account="unknown")),
}


def submit_all(slurm: Slurm) -> dict[str, int]:
    """Submits a job of each kind and acts on it; returns their raw JobIDs by the kind's name."""
    jobs = {name: kind.submit(slurm) for name, kind in KINDS.items()}
    for name, job in jobs.items():
        KINDS[name].act(slurm, job)
    return jobs
