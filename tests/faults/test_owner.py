"""Everything in the spool belongs to the Slurm user, regardless of who runs the command."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from tests.faults.site import Site
from tests.support.dashboard import ReceivingDashboard
from tests.support.open_house import copy_exporter, find_python
from tests.support.tools import need

NOBODY = 65534


@pytest.fixture
def house() -> Iterator[Path]:
    """A folder that every user may look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="faults.", dir="/tmp") as name:
        folder = Path(name)
        copy_exporter(folder)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_works_as_the_owner_of_the_spool(house: Path) -> None:
    """A run by root leaves only files that the Slurm user can write; a file of root's is set aside."""
    need("setpriv")
    python = find_python(house, NOBODY)
    if not python:
        pytest.skip("there is no system Python from 3.8 on that another user can run")
    with ReceivingDashboard() as dashboard:
        site = Site(house, dashboard, python=python)
        with site.agents:
            site.start_over()
        site.queue_everything()
        slurm = site.sacct.path.parent
        for path in (site.spool, *site.spool.iterdir(), slurm, *slurm.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        (site.spool / "queue.side.9.9").write_text("100\n")
        (site.spool / "queue.side.9.9").chmod(0o600)
        for command in (["flush"], ["queue", "list"], ["status"], ["queue", "add", "100"], ["flush"]):
            argv = [python, "-m", "agent", "--config", str(site.config), *command]
            done = subprocess.run(argv, cwd=house, env=site.env, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        assert [path.name for path in site.spool.iterdir() if path.stat().st_uid == 0] == ["odd.queue.side.9.9"]
        assert len(site.dashboard.records) > 30
