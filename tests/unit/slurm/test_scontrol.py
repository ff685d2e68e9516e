"""What slurmctld says about jobs whose accounting does not show whether they continue."""

from __future__ import annotations

from io import BytesIO

import pytest

from agent.errors import SlurmUnreachable
from agent.jobs.finality import is_alive
from agent.slurm.process import Output
from agent.slurm.scontrol import make_squeue_argv, parse_states


def output(stdout: str = "", stderr: str = "", returncode: int = 0) -> Output:
    return Output(returncode, BytesIO(stdout.encode()), stderr)


def test_argv() -> None:
    """One call for all of them, in every state that slurmctld still remembers."""
    argv = ["/opt/squeue", "--local", "--noheader", "--states=all", "--format=%A|%T", "--jobs=1,2"]
    assert argv == make_squeue_argv("/opt/squeue", [1, 2])


def test_states_by_raw_id() -> None:
    """As 22.05 printed them of two preempted jobs while their Epilog ran, and afterwards."""
    assert {1: "COMPLETING", 2: "COMPLETING"} == parse_states(output("1|COMPLETING\n2|COMPLETING\n"))
    assert {1: "PENDING", 2: "PREEMPTED"} == parse_states(output("1|PENDING\n2|PREEMPTED\n"))


def test_a_job_that_slurmctld_has_forgotten() -> None:
    """Asked for one alone, squeue fails; asked for several, it leaves out what it does not know (22.05)."""
    forgotten = output("", "slurm_load_jobs error: Invalid job id specified\n", 1)
    assert [{}, {}] == [parse_states(forgotten), parse_states(output())]


def test_a_silent_slurmctld_decides_about_no_job() -> None:
    """A slurmctld that does not answer is not taken for one that has forgotten the jobs."""
    down = output("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1)
    with pytest.raises(SlurmUnreachable, match="Unable to contact slurm controller"):
        parse_states(down)


@pytest.mark.parametrize(
    ("state", "alive"),
    [("COMPLETING", True), ("PENDING", True), ("RUNNING", True), ("NEW_WORD", True), ("PREEMPTED", False)],
)
def test_the_meaning_of_each_state(state: str, alive: bool) -> None:
    """A job is final only if it has ended and is not COMPLETING."""
    assert alive is is_alive(state)
