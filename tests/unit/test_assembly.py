"""The parts are put together, and taken apart when one of them breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

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
