"""A real Slurm with faults: a frozen database, accounting that hides jobs, and hostile names and comments."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from agent.spool.ledger import view_ledger
from tests.support.accounting import expected_records
from tests.support.exporter import Exporter
from tests.support.job_kinds import HOSTILE
from tests.support.open_house import copy_exporter, find_python
from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

from .conftest import Site, flush_all, small_site

pytestmark = pytest.mark.slurm
GUEST = pwd.getpwnam("games")  # Slurm 26.05 does not accept the user nobody
BYTES = "\udcff\udcfe\udc80"  # as Python represents bytes that are not UTF-8


@pytest.mark.parametrize("daemon", ["mariadbd", "slurmdbd"])
def test_a_frozen_accounting(daemon: str) -> None:
    """sacct hangs and is killed at its time limit; the timer's other runs exit at once, and nothing is lost."""
    with small_site(jobcomp=True) as site:
        exporter = Exporter(site.slurm.folder, site.slurm.env, api_url=site.dashboard.url, sacct_timeout=8)
        site.slurm.sbatch("--array=1-5")
        site.slurm.wait_until_idle()
        site.slurm.daemons.freeze(daemon)
        with exporter.start("flush") as hanging:
            wait_for(lambda: children_of(site.slurm), "a sacct that hangs")
            for _ in range(2):  # on a busy machine, each takes a second of the eight
                exporter.run("flush", expect=75)
            assert len(children_of(site.slurm)) == 1
            hanging.communicate(timeout=60)
        assert (hanging.returncode, children_of(site.slurm)) == (69, [])
        assert exporter.backlog() == 5
        site.slurm.daemons.thaw(daemon)
        flush_all(site)
        assert expected_records(site.slurm) == site.dashboard.records


def children_of(slurm: Slurm) -> list[str]:
    """The sacct processes of a lab that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, environ = (folder / "comm").read_text().strip(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if name == "sacct" and f"SLURM_CONF={slurm.layout.slurm_conf}".encode() in environ:
            found.append(folder.name)
    return found


def test_users_who_write_arbitrary_text() -> None:
    """Names, comments, folders and environments of shell code, newlines and bytes that are not UTF-8 change nothing."""
    with small_site(jobcomp=True) as site, tempfile.TemporaryDirectory(prefix=f"a\n4711 1 1 -\n$(x) {BYTES}") as odd:
        hostile = f"{HOSTILE}{BYTES}"
        site.slurm.env.update({"ODD": hostile, "SLURM_JOB_NAME": hostile, "LC_ALL": "C.UTF-8"})
        options = (f"--job-name={hostile}", f"--comment={hostile}", f"--chdir={odd}", f"--output={odd}/%x.{BYTES}")
        jobs = [site.slurm.sbatch(*options, "--export=ALL"), site.slurm.sbatch()]
        site.slurm.wait_until_idle()
        lines = (site.slurm.spool / "queue").read_bytes().split()
        assert [word for word in lines if not word.isdigit() and word != b"-"] == []
        flush_all(site)
        assert sorted(site.dashboard.records) == sorted(map(str, jobs))
        assert expected_records(site.slurm) == site.dashboard.records
        assert list(Path("/tmp").glob("hostile*")) == []


@contextmanager
def hiding(slurm: Slurm) -> Iterator[None]:
    """slurmdbd shows each user only their own jobs."""
    conf = slurm.folder / "slurmdbd.conf"
    text = conf.read_text()
    conf.write_text(f"{text}PrivateData=jobs\n")
    slurm.daemons.stop("slurmdbd")
    slurm.start("slurmdbd")
    yield
    conf.write_text(text)
    slurm.daemons.stop("slurmdbd")
    slurm.start("slurmdbd")


def test_without_the_right_to_see_all_jobs() -> None:
    """If sacct shows nothing and exits 0, the jobs wait, `check` says why, and once privileged everything arrives."""
    with small_site(jobcomp=True) as site, tempfile.TemporaryDirectory(prefix="faults.", dir="/tmp") as name:
        copy_exporter(Path(name))
        python = find_python(Path(name), GUEST.pw_uid)
        if not python:
            pytest.skip("there is no system Python from 3.8 on that another user can run")
        site.slurm.sbatch("--array=1-5")
        site.slurm.wait_until_idle()
        (site.slurm.folder / "slurm.conf").chmod(0o644)
        for path in (site.slurm.spool, *site.slurm.spool.iterdir()):
            os.chown(path, GUEST.pw_uid, GUEST.pw_gid)

        def run(*command: str) -> subprocess.CompletedProcess[str]:
            argv = [python, "-m", "agent", "--config", str(site.exporter.config), *command]
            return subprocess.run(argv, cwd=name, env=site.slurm.env, check=False, capture_output=True, text=True)

        with hiding(site.slurm):
            assert (run("flush").returncode, run("reconcile").returncode) == (0, 0)
            assert (site.dashboard.posts, reasons(site)) == ([], {"no record yet": 5})
            # Slurm 26.05 does not report that it hides jobs, only that it may.
            assert re.search(r"PrivateData in slurmdbd.conf .*other users' jobs from games", run("check").stdout)
            site.slurm.sacctmgr("add", "user", "games", "account=root", "adminlevel=Operator")
            assert "games sees all jobs, as Operator" in run("check").stdout
            run("queue", "retry")
            assert run("flush").returncode == 0
        assert expected_records(site.slurm) == site.dashboard.records


def reasons(site: Site) -> dict[str, int]:
    """How many jobs wait, by reason."""
    ledger = view_ledger(site.slurm.spool / "ledger.db")
    found = ledger.waiting.reasons()
    ledger.close()
    return found
