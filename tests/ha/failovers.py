"""Five kinds of fail-over of a pair. Each ends with ctl1 in control again and ctl2 as its backup."""

from __future__ import annotations

import time
from typing import Callable

from tests.ha import spread
from tests.ha.sites import Pair, wait_until


def kill(pair: Pair, seconds: float) -> None:
    """kill -9 of the primary, which is restarted after ``seconds`` and takes control again."""
    pair.kill_slurmctld(pair.ctl1)
    pair.wait_for_control(pair.ctl2)
    time.sleep(seconds)
    spread.start_slurmctld(pair.ctl1)


def hand(pair: Pair, seconds: float) -> None:
    """``scontrol takeover`` from a running primary, which is then started again."""
    pair.ctl2.attempt("scontrol", "takeover")
    pair.wait_for_control(pair.ctl2)
    time.sleep(seconds)
    if pair.is_running(pair.ctl1):
        pair.kill_slurmctld(pair.ctl1)
    spread.start_slurmctld(pair.ctl1)


def both(pair: Pair, seconds: float) -> None:
    """kill -9 of both at once, then both are started."""
    pair.kill_slurmctld(pair.ctl1)
    pair.kill_slurmctld(pair.ctl2)
    time.sleep(seconds)
    spread.start_slurmctld(pair.ctl1)
    time.sleep(3)
    spread.start_slurmctld(pair.ctl2)


def back(pair: Pair, seconds: float) -> None:
    """kill -9 of the primary, then of the backup once it is in control; then the primary is started."""
    pair.kill_slurmctld(pair.ctl1)
    pair.wait_for_control(pair.ctl2)
    time.sleep(seconds)
    pair.kill_slurmctld(pair.ctl2)
    time.sleep(2)
    spread.start_slurmctld(pair.ctl1)
    time.sleep(2)
    spread.start_slurmctld(pair.ctl2)


def power(pair: Pair, seconds: float) -> None:
    """The primary's host loses its power, hook and flush included, and boots again."""
    pair.ctl1.power_off()
    pair.wait_for_control(pair.ctl2)
    time.sleep(seconds)
    pair.boot(pair.ctl1)
    spread.start_slurmctld(pair.ctl1)


KINDS: dict[str, Callable[[Pair, float], None]] = {
    "kill": kill,
    "hand": hand,
    "both": both,
    "back": back,
    "power": power,
}


def fail_over(pair: Pair, kind: str, *, seconds: float) -> None:
    """Runs a fail-over, and waits until both controllers work again.

    :param seconds: how long the other controller, or none, is in control.
    """
    KINDS[kind](pair, seconds)
    pair.wait_for_control(pair.ctl1)
    # slurmctld 22.05 hangs now and then as it gives control back: its purge thread misses the wake-up.
    if not wait_until("the backup", lambda: len(pair.up()) == 2, limit_seconds=8):
        pair.kill_slurmctld(pair.ctl2)
        time.sleep(1)
        spread.start_slurmctld(pair.ctl2)
        wait_until("the backup", lambda: len(pair.up()) == 2, limit_seconds=20)
    # A JobID that is assigned twice drains the node of its first owner.
    pair.nodes.attempt("scontrol", "update", "nodename=ALL", "state=resume")


def drain(pair: Pair) -> None:
    """Waits for the end of all jobs, and cancels those that slurmctld lists but no node runs."""
    nobody = wait_until("no jobs", lambda: not _running(pair), limit_seconds=30)
    for _ in range(1 if nobody else 3):
        for user in spread.USERS:
            pair.nodes.attempt("scancel", "-u", user)
        if wait_until("no jobs", lambda: not pair.nodes.run("squeue", "-h"), limit_seconds=15):
            return


def _running(pair: Pair) -> str:
    return pair.nodes.attempt("squeue", "-h", "-t", "R,CG,CF").stdout
