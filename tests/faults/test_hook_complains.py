"""The hook reports failed writes through logger: a job that is missed silently is found a day later at best."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Iterator

import pytest

HOOK = Path(__file__).parents[2] / "hooks" / "jobcomp.sh"
NOBODY = 65534


class Place:
    """A spool, and a hook whose logger writes into a file."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.syslog = folder / "syslog"
        self.syslog.touch(mode=0o666)
        self.syslog.chmod(0o666)
        tools = folder / "tools"
        tools.mkdir()
        (tools / "logger").write_text(f'#!/bin/sh\necho "$*" >>{self.syslog}\n')
        (tools / "logger").chmod(0o755)
        self.script = folder / "jobcomp.sh"
        self.script.write_text(HOOK.read_text().replace("PATH=/usr/bin", f"PATH={tools}:/usr/bin", 1))

    def call(self, *, umask: int = 0o022) -> str:
        """The messages of a call by another user than slurmctld's."""
        env = {"JOBID": "7", "SLURM_USAGE_HISTORY_SPOOL": str(self.spool)}
        become = f"import os; os.umask({umask}); os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); "
        run = f"os.execve('/bin/sh', ['sh', {str(self.script)!r}], {env!r})"
        subprocess.run(["python3", "-c", become + run], check=True, timeout=60)
        return self.syslog.read_text()


@pytest.fixture
def place() -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Place(Path(name))


def not_to_be_entered(spool: Path) -> None:
    """Makes it a folder of root's with mode 700, which the Slurm user cannot enter."""
    spool.chmod(0o700)


def not_to_be_written(spool: Path) -> None:
    spool.chmod(0o755)


def not_there(spool: Path) -> None:
    spool.rmdir()


def a_folder_for_each_file(spool: Path) -> None:
    """Root's folders with the names of the queue and of every part: rm and mv fail on them, too."""
    os.chown(spool, NOBODY, NOBODY)
    (spool / "queue").mkdir()
    spool.chmod(0o500)


@pytest.mark.parametrize("spoil", [not_to_be_entered, not_to_be_written, not_there, a_folder_for_each_file])
def test_a_job_that_cannot_be_queued_is_logged(place: Place, spoil: Callable[[Path], None]) -> None:
    """The hook logs each cause that keeps it out of the spool, and still exits 0."""
    spoil(place.spool)
    assert f"job 7 could not be queued in {place.spool}" in place.call()


@pytest.mark.parametrize("umask", [0, 0o777])
def test_only_its_user_reads_and_writes_the_queue_whatever_the_umask(place: Place, umask: int) -> None:
    """A job that is queued is not logged."""
    os.chown(place.spool, NOBODY, NOBODY)
    assert "" == place.call(umask=umask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.spool.iterdir()}
    assert {"queue": 0o600, "queue.lock": 0o600} == modes
