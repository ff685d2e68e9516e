"""Runs the exporter hundreds of times: forked from a process that has imported it, and killed at any step.

A step is a call of Python into C that can outlast the process or can be seen from outside: a rename, an fsync, an SQL
statement, a request. Each is two: just before it happens, and just after.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Mapping

ROOT = Path(__file__).parents[2]
STEPS = {
    *("open", "rename", "replace", "unlink", "fsync", "flock", "mkdir"),
    *("execute", "executemany", "executescript", "rollback"),
    *("fork_exec", "connect", "sendall", "recv_into"),
}
KILLED = -int(signal.SIGKILL)


class ForkedAgents:
    """Runs commands; for single runs see :class:`tests.support.exporter.Exporter`.

    :param config: its configuration file.
    :param env: its environment.
    """

    def __init__(self, config: Path, env: Mapping[str, str]) -> None:
        self._config = config
        self._env = dict(env)
        self._log = config.with_name("agent.log")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked_agent"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> ForkedAgents:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(self, *arguments: str, kill_at: int = 0, kill_after: float = 0.0) -> int:
        """Runs a command; returns its exit code, or :data:`KILLED` if it was killed.

        :param kill_at: the step at which it dies, from 1 on.
        :param kill_after: the seconds after which it dies.
        """
        argv = ["--config", str(self._config), *arguments]
        order = {"argv": argv, "env": self._env, "log": str(self._log), "kill_at": kill_at, "kill_after": kill_after}
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def steps(self, *arguments: str) -> list[str]:
        """Runs a command to its end and returns the names of its steps, in order."""
        self._log.write_text("")
        self.run(*arguments, kill_at=sys.maxsize)
        return [line[5:] for line in self._log.read_text().splitlines() if line.startswith("step ")]

    def log(self) -> str:
        """The output of the runs."""
        return self._log.read_text()


class Doom:
    """Counts steps in every thread of a process and kills it at one of them."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self._tell = kill_at == sys.maxsize

    def watch(self) -> None:
        threading.setprofile(self)
        sys.setprofile(self)

    def __call__(self, frame: Any, event: str, called: Any) -> None:
        if event not in {"c_call", "c_return"} or called.__name__ not in STEPS or isinstance(called.__self__, str):
            return
        self._left -= 1
        if self._tell:
            words = "before" if event == "c_call" else "after"
            os.write(2, f"step {words} {called.__name__} in {frame.f_code.co_name}\n".encode())
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def serve() -> None:
    """Forks a run for each order on standard input, and reports how it ended."""
    for module in (
        "agent.cli",
        "agent.slurm.process",
        "agent.sync.flush",
        "agent.sync.reconcile",
        "agent.sync.session",
        "requests",
        "sqlite3",
    ):
        importlib.import_module(module)

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            run_forked(order)
        if order["kill_after"]:
            time.sleep(order["kill_after"])
            os.kill(pid, signal.SIGKILL)
        _, word = os.waitpid(pid, 0)
        print(-os.WTERMSIG(word) if os.WIFSIGNALED(word) else os.WEXITSTATUS(word), flush=True)


def run_forked(order: Mapping[str, Any]) -> None:
    """Becomes the ordered run, and never returns."""
    from agent.cli import main  # noqa: PLC0415

    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target in (1, 2):
        os.dup2(log, target)
    os.environ.clear()
    os.environ.update(order["env"])
    random.seed()
    if order["kill_at"]:
        Doom(order["kill_at"]).watch()
    status = 70
    try:
        status = main(order["argv"])
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
