"""The long-running mode instead of single runs: ``SOAK_MODE=run make soak``."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Mapping

from agent.errors import ConfigError
from tests.support.exporter import ROOT
from tests.support.forked_agent import KILLED
from tests.support.waiting import wait_for

#: Often enough that the process itself recovers after each round.
OPTIONS = ("run", "--every", "1s", "--reconcile-every", "15s")


class LongRunningAgent:
    """One ``run`` process: it is left alone for a while, killed, or stopped with SIGTERM.

    Has the interface of :class:`tests.support.forked_agent.ForkedAgents`.

    :param config: its configuration file.
    :param env: its environment.
    """

    def __init__(self, config: Path, env: Mapping[str, str], dice: random.Random) -> None:
        self._config = config
        self._argv = [sys.executable, "-m", "agent", "--config", str(config)]
        self._env = dict(env)
        self._dice = dice
        self._log = config.with_name("agent.log")
        self._health = config.with_name("health")
        self._process: subprocess.Popen[bytes] | None = None
        self.ended_by_term = 0
        self.refused_to_start = 0

    def __enter__(self) -> LongRunningAgent:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.returncode is None:
            self._process.terminate()
            assert 0 == self._process.wait(60), self.log()[-2000:]

    def run(self, *arguments: str, kill_at: int = 0, kill_after: float = 0.0) -> int:
        """Lets it run for about a second, then kills it if requested. ``queue`` is a process of its own.

        :param kill_at: any number: at a moment drawn at random.
        :param kill_after: the seconds after which it dies.
        """
        if arguments[0] == "queue":
            return subprocess.run([*self._argv, *arguments], check=False, cwd=ROOT, env=self._env).returncode
        process = self._alive()
        time.sleep(kill_after or self._dice.uniform(0.1, 1.5))
        if process.poll() == ConfigError.exit_code and not self._config_is_valid():
            self.refused_to_start += 1  # as documented; whatever restarts it tries again
            return ConfigError.exit_code
        assert process.poll() is None, f"it ended by itself: {self.log()[-2000:]}"
        if kill_at or kill_after:
            process.kill()
            process.wait()
            return KILLED
        if self._dice.random() < 0.1 and not self._health.is_dir():
            begun = time.time_ns()
            wait_for(self._health.exists, "its first run", limit_seconds=60)
            wait_for(lambda: self._health.stat().st_mtime_ns > begun, "another run", limit_seconds=60)
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            assert 0 == code, f"after TERM: exit {code}\n{self.log()[-2000:]}"
            self.ended_by_term += 1
        return 0

    def spoil_health_file(self) -> Callable[[], object]:
        """Puts a folder in its place, and returns what removes that."""
        if self._health.is_dir():
            return lambda: None
        self._health.unlink(missing_ok=True)
        self._health.mkdir()
        return self._health.rmdir

    def _config_is_valid(self) -> bool:
        try:
            json.loads(self._config.read_text())
        except ValueError:
            return False
        return True

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            argv = [*self._argv, *OPTIONS, "--health-file", str(self._health)]
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(argv, cwd=ROOT, env=self._env, stderr=log)
        return self._process

    def tell(self) -> str:
        """Its exit code, unless it was killed."""
        return f"ended by TERM {self.ended_by_term}, by its broken configuration {self.refused_to_start}"

    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text() if self._log.exists() else ""
