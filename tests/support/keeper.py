"""Runs the daemons of a lab, and cleans up however the lab's owner ends.

Started as a program, ``keeper.py FOLDER``. Each line on standard input is an order, a JSON object with
``argv``, ``env`` and ``log``; the answer is a line with the process id. When standard input ends,
because the owner has finished, crashed or been killed, the keeper kills all its descendants and removes FOLDER.

As a "child subreaper" the keeper becomes the parent of processes that its daemons leave behind (slurmd forks each
slurmstepd away from itself), so that its descendants are exactly the lab's processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Iterator

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def start(argv: list[str], env: dict[str, str], log: str) -> int:
    """Starts a program with its output appended to the file *log*, and returns its process id."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawnp(
        argv[0],
        argv,
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsigdef=[signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE],
    )


def children_by_parent() -> dict[int, list[int]]:
    """All processes of the machine, by their parent's ID."""
    children: dict[int, list[int]] = {}
    # Not glob("[0-9]*/stat"), which fails if a process ends meanwhile.
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            # The name, in parentheses, may itself contain blanks and parentheses.
            parent = int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # the process has ended
            continue
        children.setdefault(parent, []).append(int(process.name))
    return children


def descendants(pid: int) -> Iterator[int]:
    """The children of *pid*, their children, and so on."""
    children = children_by_parent()
    below = list(children.get(pid, []))
    while below:
        child = below.pop()
        yield child
        below += children.get(child, [])


def kill_descendants() -> None:
    """Kills until no process is left: one may fork between being listed and being killed."""
    while True:
        pids = list(descendants(os.getpid()))
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def main(folder: str) -> None:
    """Serves the owner's orders, then cleans up."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps dead children at once
    os.chdir(folder)
    try:
        for order in sys.stdin:
            print(start(**json.loads(order)), flush=True)
    finally:
        os.chdir("/")
        kill_descendants()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1])
