"""Only their owner can open locks, and a lock that is held forever is reported."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.errors import Busy, SpoolError
from agent.spool.lock import LONGEST_RUN_SECONDS, QUEUE_LOCK, RUN_LOCK, locked, run_lock
from agent.spool.owner import check_spool


def take(spool: Path) -> None:
    with run_lock(spool):
        pass


def test_a_lock_held_for_longer_than_a_run_is_a_failure(tmp_path: Path) -> None:
    """systemd counts 75 as success: a process holding the lock would silently stop every delivery."""
    lock = tmp_path / RUN_LOCK
    with run_lock(tmp_path):
        with pytest.raises(Busy):
            take(tmp_path)
        os.utime(lock, (0, time.time() - LONGEST_RUN_SECONDS - 3600))
        with pytest.raises(SpoolError) as caught:
            take(tmp_path)
    words = f"{lock} has been held for 7 h 30 min, longer than a run may take: nothing is delivered meanwhile"
    assert (words, 1) == (str(caught.value), caught.value.exit_code)
    take(tmp_path)


def test_a_lock_counts_from_when_it_was_taken(tmp_path: Path) -> None:
    """A host that was off for a week has an old lock file, and a run of a second."""
    (tmp_path / RUN_LOCK).touch()
    os.utime(tmp_path / RUN_LOCK, (0, 0))
    with run_lock(tmp_path), pytest.raises(Busy):
        take(tmp_path)


@pytest.mark.parametrize("name", [RUN_LOCK, QUEUE_LOCK])
def test_no_other_user_can_open_a_lock(tmp_path: Path, name: str) -> None:
    """Anyone who can read a lock file could hold the lock: that of an earlier version is closed, too."""
    (tmp_path / name).touch()
    (tmp_path / name).chmod(0o664)
    with locked(tmp_path / name, 0, Busy("")):
        assert 0o600 == (tmp_path / name).stat().st_mode & 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_spool_that_another_group_can_write_is_refused(tmp_path: Path) -> None:
    """Group members could queue jobs and replace the ledger. The owner's own group is accepted."""
    os.chown(tmp_path, 0, 65533)
    tmp_path.chmod(0o770)
    with pytest.raises(SpoolError) as caught:
        check_spool(tmp_path)
    assert f"the spool {tmp_path} is writable by a group" == str(caught.value)
    os.chown(tmp_path, 0, 0)
    check_spool(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_spool_with_an_acl_is_judged_by_it(tmp_path: Path) -> None:
    """The ACL's mask is shown as the group's rights, and the group is the owner's own."""
    entries = ((1, 7, 2**32 - 1), (2, 7, 65533), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1), (32, 0, 2**32 - 1))
    acl = b"\x02\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + uid.to_bytes(4, "little")
        for tag, rights, uid in entries
    )
    try:
        os.setxattr(tmp_path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this filesystem knows no ACLs")
    with pytest.raises(SpoolError):
        check_spool(tmp_path)
