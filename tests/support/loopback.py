"""A network of its own for this process, with a loopback device on which Slurm's commands don't wait."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .slurm import PATH
from .slurm_conf import own_address

CLONE_NEWNET = 0x40000000  # linux/sched.h
_SETUP = Path(__file__).with_name("loopback.sh")
_NAMESPACE = "/proc/thread-self/ns/net"


@contextmanager
def own_loopback() -> Iterator[None]:
    """Moves this thread and its children to a separate network (see loopback.sh), and the thread back at the end.

    The machine's name resolves there to the same address. Needs root.
    """
    address = own_address()
    outside = os.open(_NAMESPACE, os.O_RDONLY)
    try:
        _call("unshare", CLONE_NEWNET)
        try:
            subprocess.run(["sh", str(_SETUP), address], check=True, env={"PATH": PATH})
            yield
        finally:
            _call("setns", outside, CLONE_NEWNET)
    finally:
        os.close(outside)


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)
