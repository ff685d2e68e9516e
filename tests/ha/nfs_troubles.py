"""What can happen to a pair whose StateSaveLocation is on NFS."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Iterator

from agent.config import NAME
from agent.spool.controller_turns import LOCK_NAME
from tests.ha import nfs, spread
from tests.ha.races import add_old_jobs
from tests.ha.sites import Pair
from tests.support.waiting import wait_for

_HOLD = """
import fcntl, os, sys, time
fcntl.lockf(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(3600)
"""


def flush_one(pair: Pair) -> tuple[str, int, str]:
    """Delivers one job on ctl2: how long that took, the exit code, and the warnings."""
    exporter = pair.exporters["ctl2"]
    exporter.run("queue", "add", str(add_old_jobs(pair, 1) + 1))
    began = time.monotonic()
    code, said = exporter.attempt("flush")
    warnings = [line.partition("WARNING - ")[2] for line in said.splitlines() if "WARNING" in line]
    return f"{time.monotonic() - began:.1f} s", code, "; ".join(warnings)


@contextmanager
def server_stopped(pair: Pair) -> Iterator[None]:
    """The file server does not answer while the block runs."""
    nfs.stop(pair.dbd)
    try:
        yield
    finally:
        nfs.start(pair.dbd)
        pair.ctl2.run("ls", str(pair.state))
        pair.wait_for_control(pair.ctl1)


def die_in_turn(pair: Pair) -> None:
    """ctl1 loses its power while it holds the lock."""
    pair.ctl1.start(sys.executable, "-c", _HOLD, str(pair.state / NAME / LOCK_NAME), log="hold.log")
    wait_for(lambda: "held" in pair.ctl1.log("hold.log"), "the lock")
    pair.ctl1.power_off()


def come_back(pair: Pair) -> None:
    """ctl1 boots again."""
    pair.wait_for_control(pair.ctl2)
    pair.boot(pair.ctl1)
    spread.start_slurmctld(pair.ctl1)
    pair.wait_for_control(pair.ctl1)
