"""A spool belongs to one host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import SpoolError
from agent.spool.host_mark import LEFT_SECONDS, MARK, claim_for_host

NOW = 1_700_000_000.0


def test_another_host_is_refused(tmp_path: Path) -> None:
    """The refusal lasts as long as the first host uses the spool, and names both hosts."""
    claim_for_host(tmp_path, "ctl1", NOW)
    for later in (0, 300, 600, 900):
        claim_for_host(tmp_path, "ctl1", NOW + later)
    with pytest.raises(SpoolError) as caught:
        claim_for_host(tmp_path, "ctl2", NOW + 901)
    assert f"the spool {tmp_path} is shared with ctl1, which used it 1.0 s ago" == str(caught.value)
    assert "its own spool on a local disk" in caught.value.hint


def test_a_spool_that_its_host_has_left_is_taken_over(tmp_path: Path) -> None:
    """A disk that has moved to another host, and a host with a new name, need no admin."""
    claim_for_host(tmp_path, "ctl1", NOW)
    claim_for_host(tmp_path, "ctl2", NOW + LEFT_SECONDS)
    assert "ctl2\n" == (tmp_path / MARK).read_text()


def test_clocks_that_differ(tmp_path: Path) -> None:
    """A mark a few seconds in the future means that the other host's clock is ahead."""
    claim_for_host(tmp_path, "ctl1", NOW + 20)
    with pytest.raises(SpoolError):
        claim_for_host(tmp_path, "ctl2", NOW)


def test_a_link_in_its_place_is_not_written_through(tmp_path: Path) -> None:
    """A link could lead anywhere."""
    (tmp_path / "precious").write_text("")
    (tmp_path / MARK).symlink_to(tmp_path / "precious")
    claim_for_host(tmp_path, "ctl1", NOW)
    assert ("", "ctl1\n") == ((tmp_path / "precious").read_text(), (tmp_path / MARK).read_text())


@pytest.mark.timeout(10)
def test_a_fifo_instead_of_the_file_blocks_nothing(tmp_path: Path) -> None:
    """Opening a FIFO would wait for its other end, so it is replaced, even while another process has it open."""
    for open_too in (False, True):
        (tmp_path / MARK).unlink(missing_ok=True)
        os.mkfifo(tmp_path / MARK)
        other_end = os.open(tmp_path / MARK, os.O_RDWR) if open_too else None
        claim_for_host(tmp_path, "ctl1", NOW)
        assert "ctl1\n" == (tmp_path / MARK).read_text()
        if other_end is not None:
            os.close(other_end)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The mark is not what fails: the ledger reports its own error."""
    (tmp_path / MARK).mkdir()
    claim_for_host(tmp_path, "ctl1", NOW)


@pytest.mark.parametrize(("first", "second"), [("", "test"), ("test", ""), ("test", "physics")])
def test_two_instances_never_share_a_spool(tmp_path: Path, first: str, second: str) -> None:
    """However long ago the other one ran: each would take jobs that the other has to deliver."""
    claim_for_host(tmp_path, "ctl1", NOW, first)
    claim_for_host(tmp_path, "ctl1", NOW + 300, first)
    with pytest.raises(SpoolError) as caught:
        claim_for_host(tmp_path, "ctl1", NOW + 86_400, second)
    owner = f"the instance {first}" if first else "the host itself"
    assert f"the spool {tmp_path} belongs to {owner}" == str(caught.value)
    assert caught.value.hint.endswith(f"to hand this one over, remove {tmp_path}/{MARK}")


def test_an_instance_on_another_host_is_named_with_its_host(tmp_path: Path) -> None:
    """Such an error more likely means a shared disk."""
    claim_for_host(tmp_path, "ctl1", NOW, "test")
    with pytest.raises(SpoolError, match="is shared with ctl1, which"):
        claim_for_host(tmp_path, "ctl2", NOW, "physics")
