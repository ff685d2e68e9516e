"""The parts are put together, and taken apart when one of them breaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Iterator

import pytest

import agent
from agent.assembly import open_parts, open_view
from agent.check.host import name_of
from agent.config import Config, parse_config
from agent.errors import Busy, LedgerDamaged, SpoolError
from agent.spool.lock import run_lock
from agent.spool.owner import check_spool, step_down

STEP_DOWN = """
import pathlib, sys
from agent.spool.owner import step_down
from agent.errors import SpoolError
try:
    step_down(pathlib.Path(sys.argv[1]))
except SpoolError as error:
    print(f"{error} ({error.hint})")
"""


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
    (aside,) = config.spool_dir.glob("ledger.db.aside.*")
    assert f"it was put aside as {aside}; the next reconcile replays the whole window" == caught.value.hint
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
    command = [sys.executable, "-c", STEP_DOWN, str(spool_of_nobody)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    expected = (
        f"nobody, the owner of the spool {spool_of_nobody}, cannot read this program or its Python ({sys.executable})"
        f" (move {tmp_path} to where nobody can read it, or install it with install.sh)\n"
    )
    assert expected == done.stdout


def test_root_is_told_of_an_owner_without_a_name(tmp_path: Path) -> None:
    """Such a user has no groups that root could take on."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    nameless = next(uid for uid in range(64_000, 0, -1) if name_of(uid) == str(uid))
    os.chown(tmp_path, nameless, -1)
    with pytest.raises(SpoolError) as caught:
        step_down(tmp_path)
    assert str(caught.value).startswith(f"cannot become the owner of the spool {tmp_path}, uid {nameless}: ")
    assert f"run as that user, or chown the spool {tmp_path} to the Slurm user" == caught.value.hint


def told_as_another(call: Callable[[], object]) -> str:
    """What a user is told who is neither root nor the spool's owner."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65533)
        try:
            call()
        except SpoolError as error:
            os.write(writer, f"{error} ({error.hint})".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as file:
        return file.read()


def test_a_user_who_may_not_read_the_spool_is_told_who_may(spool_of_nobody: Path) -> None:
    """Only to look needs a right, too."""
    config = parse_config({"api_url": "http://127.0.0.1:9", "api_key": "k", "spool_dir": str(spool_of_nobody)}, {})
    said = told_as_another(lambda: open_view(config).__enter__())
    assert f"the spool {spool_of_nobody} can't be read (run as root or as the Slurm user)" == said


def test_a_user_who_may_not_write_the_spool_is_told_whose_it_is_to_be(spool_of_nobody: Path) -> None:
    """Before anything else is tried there."""
    said = told_as_another(lambda: check_spool(spool_of_nobody))
    mend = f"make it the Slurm user's: chown slurm {spool_of_nobody}"
    assert f"the spool {spool_of_nobody} can't be written ({mend})" == said
