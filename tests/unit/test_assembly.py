"""The parts are put together, and taken apart when one of them breaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

import agent
from agent.assembly import open_parts
from agent.config import Config, parse_config
from agent.errors import Busy, LedgerDamaged
from agent.queue import run_lock


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"api_url": "http://127.0.0.1:9", "api_key": "k", "spool_dir": str(tmp_path / "spool")}, {})


def lose_a_table(config: Config, *, alone: bool) -> None:
    """Damage that opening the file does not show."""
    with open_parts(config, {}, alone=alone) as parts:
        parts.ledger._execute("DROP TABLE waiting")
        parts.ledger.count_waiting()


def test_a_ledger_whose_damage_shows_late_is_put_aside(config: Config) -> None:
    """It fails one run, which says where it went; the next one begins anew."""
    with pytest.raises(LedgerDamaged) as caught:
        lose_a_table(config, alone=True)
    assert "it was put aside as" in caught.value.hint
    with open_parts(config, {}, alone=True) as parts:
        assert (0, None) == parts.ledger.count_waiting()


def test_a_look_at_a_damaged_ledger_leaves_it_alone(config: Config) -> None:
    """What another run may be writing is not renamed under it."""
    with pytest.raises(LedgerDamaged) as caught:
        lose_a_table(config, alone=False)
    assert "" == caught.value.hint


def test_two_runs_at_once(config: Config) -> None:
    """The second leaves at once; a look needs no lock."""
    with open_parts(config, {}, alone=True):
        with pytest.raises(Busy), open_parts(config, {}, alone=True):
            pass
        with open_parts(config, {}) as parts:
            assert [] == list(parts.ledger.rejected())
    with run_lock(config.spool_dir):
        pass


@pytest.fixture
def spool_of_nobody() -> Iterator[Path]:
    """In a folder that everybody may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        yield Path(folder)


def test_root_is_told_where_the_spools_owner_cannot_read_the_program(tmp_path: Path, spool_of_nobody: Path) -> None:
    """What is imported late would fail in the middle of a run."""
    shutil.copytree(Path(agent.__file__).parent, tmp_path / "agent")
    tmp_path.chmod(0o700)
    program = "import pathlib, sys; from agent.assembly import step_down; step_down(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(spool_of_nobody)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert f"cannot read this program or its Python ({sys.executable})" in done.stderr
