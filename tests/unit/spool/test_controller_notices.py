"""The notices of controllers in the folder that they share."""

from __future__ import annotations

from pathlib import Path

from agent.localtime import Range
from agent.spool.controller_notices import CALLS_SLACK_SECONDS, LARGE_NOTICES_BYTES, NOTICE_PREFIX, Notices
from agent.spool.shared_folder import SharedFolder

NOW = 1_700_000_000


def called(*ends: Range) -> list[Range]:
    return [Range(first - CALLS_SLACK_SECONDS, last + CALLS_SLACK_SECONDS) for first, last in ends]


def test_each_controller_reads_the_others_notices_and_not_its_own(tmp_path: Path) -> None:
    """This holds for any number of controllers."""
    for number, host in enumerate(("ctl1", "ctl2", "ctl3")):
        Notices(SharedFolder(tmp_path), host).add_calls([Range(NOW + number, NOW + 100 + number)], forget_before=0)
    assert (
        called(Range(NOW, NOW + 100), Range(NOW + 2, NOW + 102))
        == Notices(SharedFolder(tmp_path), "ctl2").others_calls()
    )


def test_a_reconcile_forgets_what_is_old(tmp_path: Path) -> None:
    """The file does not grow forever, and keeps the latest reconcile."""
    own = Notices(SharedFolder(tmp_path), "ctl1")
    for number in range(4):
        own.add_calls([Range(NOW + 100 * number, NOW + 100 * number + 50)], forget_before=0)
    own.add_reconcile(NOW + 500, forget_before=NOW + 250)
    own.add_reconcile(NOW + 600, forget_before=NOW + 250)
    other = Notices(SharedFolder(tmp_path), "ctl2")
    assert (called(Range(NOW + 200, NOW + 250), Range(NOW + 300, NOW + 350)), NOW + 600) == (
        other.others_calls(),
        other.last_reconcile(),
    )
    assert 3 == len((tmp_path / f"{NOTICE_PREFIX}ctl1").read_text().splitlines())


def test_a_host_that_never_reconciles_forgets_too(tmp_path: Path) -> None:
    """If its timer is disabled, only the calls are forgotten when they are many, not its last reconcile."""
    own = Notices(SharedFolder(tmp_path), "ctl1")
    own.add_reconcile(NOW, forget_before=0)
    file = tmp_path / f"{NOTICE_PREFIX}ctl1"
    line = f"called {NOW} {NOW + 50}\n"
    with file.open("a") as notices:
        notices.write(line * (LARGE_NOTICES_BYTES // len(line)))
    own.add_calls([Range(NOW + 100, NOW + 200)], forget_before=NOW + 60)
    assert f"called {NOW + 100} {NOW + 200}\nreconciled {NOW}\n" == file.read_text()


def test_garbage_is_skipped(tmp_path: Path) -> None:
    """An incomplete line of a host that lost its power, and any other garbage."""
    (tmp_path / f"{NOTICE_PREFIX}ctl1").write_bytes(b"called 17\ncalled x y\n\xff\xfe\nreconciled\ncalled 100 200\n")
    other = Notices(SharedFolder(tmp_path), "ctl2")
    assert (called(Range(100, 200)), 0.0) == (other.others_calls(), other.last_reconcile())


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """Without the folder nothing is written, nothing is read, and nothing fails."""
    lonely = Notices(SharedFolder(tmp_path / "missing"), "ctl1")
    lonely.add_calls([Range(1, 2)], forget_before=0)
    lonely.add_reconcile(NOW, forget_before=0)
    assert ([], 0.0) == (lonely.others_calls(), lonely.last_reconcile())
