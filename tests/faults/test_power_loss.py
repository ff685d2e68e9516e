"""After a power loss, moved jobs are on disk in the new place, in whatever order the file system writes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.faults.site import Site
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import ROOT
from tests.support.tools import need


def calls_of(site: Site, log: Path) -> list[str]:
    """The system calls by which a flush changes the spool permanently, with the paths of their files."""
    names = "fsync,fdatasync,unlink,unlinkat,rename,renameat,renameat2"
    traced = ["strace", "-f", "-y", "-qq", "-e", f"trace={names}", "-o", str(log)]
    argv = [*traced, sys.executable, "-m", "agent", "--config", str(site.config), "flush"]
    subprocess.run(argv, check=True, cwd=ROOT, env=site.env, capture_output=True)
    return [line for line in log.read_text().splitlines() if str(site.spool) in line]


def test_a_claimed_file_is_removed_once_its_lines_are_on_disk(tmp_path: Path) -> None:
    """The ledger is synced, and so is its folder once the journal is deleted: a journal would undo the commit."""
    need("strace")
    with ReceivingDashboard() as dashboard:
        site = Site(tmp_path, dashboard)
        with site.agents:
            site.start_over()
            site.agents.run("status")
        site.queue_everything()
        calls = calls_of(site, tmp_path / "strace.log")
    first_gone = next(at for at, call in enumerate(calls) if re.search(r"unlink.*queue\.(claimed|side)", call))
    before = calls[:first_gone]
    journal_gone = max(at for at, call in enumerate(before) if re.search(r"unlink.*ledger\.db-journal", call))
    synced = [call for call in before[:journal_gone] if re.search(r"sync\(.*ledger\.db>", call)]
    folder_synced = [call for call in before[journal_gone:] if re.search(rf"sync\(.*<{site.spool}>", call)]
    assert (bool(synced), bool(folder_synced)) == (True, True), before
