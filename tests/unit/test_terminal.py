"""At a terminal a command reports even what it does not log to the journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_flush(folder: Path, *, terminal: bool) -> str:
    """Runs a flush with nothing to do, and returns what it said on standard error."""
    config = folder / "config.json"
    config.touch(mode=0o600)
    (folder / "spool").mkdir()
    settings = {"api_url": "http://127.0.0.1:9", "api_key": "k", "cluster_name": "lab"}
    config.write_text(json.dumps({**settings, "spool_dir": str(folder / "spool")}))
    ours, theirs = os.openpty() if terminal else os.pipe()
    argv = [sys.executable, "-m", "agent", "--config", str(config), "flush"]
    subprocess.run(argv, check=True, stderr=theirs, timeout=60)
    os.write(theirs, b"end\n")
    said = b""
    while not said.rstrip().endswith(b"end"):
        said += os.read(ours, 4096)
    os.close(theirs)
    os.close(ours)
    return said.decode()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_flush_with_nothing_to_do(tmp_path: Path, terminal: bool) -> None:
    """An admin who runs it sees that it ran; in the journal, every five minutes, it would be noise."""
    assert terminal == ("Flush: nothing to do, in " in run_flush(tmp_path, terminal=terminal))
