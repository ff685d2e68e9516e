"""The daemons of a lab, each known by name, owned through a :mod:`tests.support.keeper`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Sequence

from . import keeper
from .waiting import wait_for


class Daemons:
    """Starts daemons, signals single ones, and finally ends all of them and removes their folder.

    :param folder: their working folder; each one's output goes to ``NAME.log`` there. Removed by :meth:`close`.
    :param env: their environment.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._pids: dict[str, int] = {}
        self._keeper = subprocess.Popen(
            [sys.executable, "-S", keeper.__file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C goes to the owner; when it ends, so does the keeper
        )

    def close(self) -> None:
        """Ends every process and removes the folder."""
        self._keeper.communicate()

    def start(self, name: str, argv: Sequence[str]) -> None:
        order = {"argv": argv, "env": self._env, "log": str(self._log_file(name))}
        assert self._keeper.stdin
        assert self._keeper.stdout
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        self._pids[name] = int(self._keeper.stdout.readline())

    def pid(self, name: str) -> int:
        return self._pids[name]

    def alive(self, name: str) -> bool:
        return Path(f"/proc/{self._pids[name]}").exists()

    def log(self, name: str) -> str:
        """Its output so far."""
        return self._log_file(name).read_text(errors="replace")

    def stop(self, name: str) -> None:
        """Terminates it (SIGTERM), and waits until it has ended."""
        self._end(name, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """Kills it (SIGKILL)."""
        self._end(name, signal.SIGKILL)

    def freeze(self, name: str) -> None:
        """Freezes it (SIGSTOP): connections to it hang."""
        os.kill(self._pids[name], signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Resumes a frozen one (SIGCONT)."""
        os.kill(self._pids[name], signal.SIGCONT)

    def _end(self, name: str, how: signal.Signals) -> None:
        os.kill(self._pids[name], how)
        wait_for(lambda: not self.alive(name), f"the end of {name}")

    def _log_file(self, name: str) -> Path:
        return self._folder / f"{name}.log"
