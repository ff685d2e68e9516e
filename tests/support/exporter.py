"""The exporter as installed on a cluster: a real process, with its own configuration and spool."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Mapping

from .dashboard import API_KEY

ROOT = Path(__file__).parents[2]


class Exporter:
    """Runs the command line.

    :param folder: gets the configuration.
    :param env: the environment of the runs; SLURM_USAGE_HISTORY_SPOOL in it says where the spool is.
    :param settings: keys of the configuration, except the API key.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], **settings: Any) -> None:
        self.config = folder / "config.json"
        self.config.touch(mode=0o600)
        self.config.write_text(json.dumps({"api_key": API_KEY, **settings}))
        self._env = dict(env)
        spool = self._env.get("SLURM_USAGE_HISTORY_SPOOL")
        if spool:  # root creates none
            Path(spool).mkdir(mode=0o750, parents=True, exist_ok=True)

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end.

        :param expect: its exit code; any other raises an AssertionError with the output.
        """
        done = subprocess.run(
            self.argv(*arguments),
            capture_output=True,
            check=False,
            cwd=ROOT,
            encoding="utf-8",
            env=self._env,
            timeout=100,
        )
        assert done.returncode == expect, f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command and leaves it running; its output can be read meanwhile."""
        return subprocess.Popen(
            self.argv(*arguments),
            cwd=ROOT,
            encoding="utf-8",
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "agent", "--config", str(self.config), *arguments]

    def backlog(self) -> int:
        """The number of queued and waiting jobs."""
        backlog = json.loads(self.run("status", "--json").stdout)["backlog"]
        return int(backlog["queued"]) + int(backlog["waiting"])
