"""The lab that the other tests here build on."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.keeper import descendants
from tests.support.slurm import Slurm
from tests.support.slurm_conf import own_address
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slurm

OWNER = """\
import time
from tests.support.slurm import Slurm
with Slurm(nodes=1) as slurm:
    slurm.sbatch(command="sleep 1000")
    print(slurm.folder, flush=True)
    time.sleep(1000)
"""


def runs_below(pid: int, command: str) -> bool:
    """Whether a descendant of *pid* runs *command*."""
    for child in descendants(pid):
        with suppress(FileNotFoundError):  # it ended meanwhile
            if Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ").strip() == command:
                return True
    return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_leaves_nothing_however_its_owner_ends(how: signal.Signals) -> None:
    """When the process that started a lab ends, its daemons, jobs and folder are removed."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert owner.stdout
    folder = Path(owner.stdout.readline().strip())
    wait_for(lambda: runs_below(owner.pid, "sleep 1000"), "the job")
    processes = list(descendants(owner.pid))
    owner.send_signal(how)
    owner.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the end of every process")
    assert not folder.exists()


def test_a_daemon_can_be_killed_and_started_again() -> None:
    """A job that ends while slurmdbd is dead is in the accounting once slurmdbd is back."""
    with Slurm(nodes=1) as slurm:
        slurm.daemons.kill("slurmdbd")
        job = slurm.sbatch()
        slurm.wait_for_state(job, "COMPLETED")
        slurm.start("slurmdbd")
        wait_for(lambda: slurm.sql("select id_job from lab_job_table where state = 3"), "the job's row")


def test_a_time_out_names_what_is_unfinished() -> None:
    """The error shows a job that has not ended; for an ended one, its incomplete row in slurmdbd."""
    with Slurm(nodes=1) as slurm:
        job = slurm.sbatch("--hold")
        with pytest.raises(TimeoutError, match=rf"\n{job} PENDING JobHeldUser "):
            slurm.wait_until_idle(limit_seconds=0)
        slurm.run("scancel", str(job))
        slurm.wait_until_idle()
        slurm.sql(f"update lab_job_table set time_end = 0 where id_job = {job}")
        with pytest.raises(TimeoutError, match=rf"'id_job': '{job}', 'state': '4', .*'time_end': '0', 'tres_alloc'"):
            slurm.wait_until_idle(limit_seconds=0)


def test_two_labs_do_not_meet() -> None:
    """Labs side by side have clusters, ports and accounting of their own."""
    with Slurm(nodes=1, cluster="one") as one, Slurm(nodes=1, cluster="two") as two:
        one.sbatch("--array=1-3")
        two.sbatch()
        for slurm in (one, two):
            slurm.wait_until_idle()
        ended = [slurm.sql(f"select id_job from {slurm.cluster}_job_table") for slurm in (one, two)]
        assert [len(rows) for rows in ended] == [3, 1]


def test_listens_only_on_loopback() -> None:
    """No port of a lab is open to the network, where this machine's name resolves to a loopback address."""
    with Slurm(nodes=2) as slurm:
        ours = [f"pid={slurm.daemons.pid(name)}," for name in ("slurmdbd", "slurmctld", "n1", "n2")]
        sockets = [line for line in slurm.run("ss", "-Hltnp").splitlines() if any(pid in line for pid in ours)]
    assert [line.split()[3].rpartition(":")[0] for line in sockets] == [own_address()] * 4
