"""Text that the screen can't show never ends in a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Sequence

import pytest

from agent.jobs.record import Record
from agent.spool.ledger import open_ledger

ROOT = Path(__file__).parents[2]
SCREENS: dict[str, dict[str, str]] = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strictly": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "utf-8": {"PYTHONIOENCODING": "utf-8:strict"},
    "the C locale": {"LC_ALL": "C"},
    "the C locale as it was": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "no locale": {"LC_ALL": "xx_XX.UTF-8"},
}
#: A folder as some other system has named it, and one that has no letters at all.
NAMES = ["spool", "spöol ☃", os.fsdecode(b"sp\xff\xfeool")]


@pytest.fixture(params=NAMES, ids=["plain", "letters", "bytes"])
def site(request: Any, tmp_path: Path) -> Path:
    """A configuration; its spool holds a record that was refused with words of many alphabets."""
    spool: Path = tmp_path / request.param
    spool.mkdir(mode=0o700)
    ledger, _ = open_ledger(spool / "ledger.db")
    record = Record((7, 1_700_000_000), 1_700_000_100, "7", 100, 0, "{}")
    with ledger.transaction():
        ledger.rejected.add("lab", record, "kein Nutzer „müller“ → ☃ 日本", 1_700_000_200.0, hooked=True)
    ledger.close()
    config = tmp_path / "config.toml"
    config.write_text('api_url = "http://127.0.0.1:1"\napi_key = "k"\ncluster_name = "lab"\nsacct = "/none/säcct ☃"\n')
    config.chmod(0o600)
    return spool


#: Runs some commands one after the other on the screen of one process, and prints how each ended.
ONE_AFTER_THE_OTHER = """
import sys
from agent.cli import main
for command in sys.argv[3:]:
    code = main([*sys.argv[1:3], *command.split()])
    print(f"exit code {code}")
"""
COMMANDS = ("queue list", "status", "status --check", "check")


def run(site: Path, screen: str, *arguments: str, program: Sequence[str], **options: Any) -> CompletedProcess[bytes]:
    env = {"PATH": os.environ["PATH"], "SLURM_USAGE_HISTORY_SPOOL": os.fspath(site), **SCREENS[screen]}
    argv = [sys.executable, *program, "--config", str(site.parent / "config.toml"), *arguments]
    return subprocess.run(argv, env=env, cwd=ROOT, check=False, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("screen", SCREENS)
def test_any_terminal_is_good_enough(site: Path, screen: str) -> None:
    """Unprintable characters are shown as escapes."""
    done = run(site, screen, *COMMANDS, program=["-c", ONE_AFTER_THE_OTHER], stdout=subprocess.PIPE)
    assert b"Traceback" not in done.stdout + done.stderr
    shown = re.split(rb"exit code (\d+)\n", done.stdout)
    assert len(COMMANDS) == len(shown[1::2])
    assert {*map(int, shown[1::2])} <= {0, 1, 2} or b"set LC_ALL=C.UTF-8" in done.stderr
    assert all(shown[:-1:2])
    assert b"kein Nutzer" in shown[0]


@pytest.mark.parametrize("site", NAMES[:1], indirect=True)
@pytest.mark.parametrize("command", [("queue", "list"), ("status",), ("check",), ("--help",)], ids=" ".join)
def test_a_closed_output(site: Path, command: tuple[str, ...]) -> None:
    """With standard output closed (`>&-`) the command still works."""
    done = run(site, "utf-8", *command, program=["-m", "agent"], preexec_fn=lambda: os.close(1))
    assert b"Traceback" not in done.stderr
    assert done.returncode in {0, 1}
