"""An installation of the bundle into a folder used as /, or into a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Sequence

CHECKOUT = Path(__file__).parents[2]
NAME = "slurm-usage-history-exporter"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class Installation:
    """Runs install.sh from a folder with a wheelhouse, and inspects the result.

    :param root: stands for /, and holds the home of ``--user``.
    """

    def __init__(self, sources: Path, root: Path) -> None:
        self.sources = sources
        self.root = root
        self.home = root / "home"
        self.home.mkdir(parents=True)
        self._tools = root.with_name(f"{root.name}-tools")
        self._hide_slurm()
        self.program = root / "opt" / NAME
        self.hook = self.program / "bin" / "jobcomp.sh"
        self.etc = root / "etc" / NAME
        self.units = root / "etc" / "systemd" / "system"
        self.spool = root / "var" / "spool" / NAME

    def run(self, *options: str, expect: int = 0, stdin: str = "", within: Sequence[str] = (), **environ: str) -> str:
        """Runs install.sh and returns its output on both streams.

        :param within: a command that runs it.
        """
        place = {} if "--user" in options else {"DESTDIR": str(self.root)}
        done = subprocess.run(
            [*within, str(self.sources / "install.sh"), *options],
            check=False,
            env=self.environment(**{**place, **environ}),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
        assert done.returncode == expect, f"{options}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def environment(self, **environ: str) -> dict[str, str]:
        """The environment of install.sh: with the tests' Python, without this machine's Slurm."""
        path = f"{self._tools}:{PATH}"
        known = {"PATH": path, "PYTHON": sys.executable, "HOME": str(self.home), "DESTDIR": ""}
        return {**os.environ, **known, **environ}

    def _hide_slurm(self) -> None:
        """Hides a slurmctld that may run on this machine."""
        self._tools.mkdir()
        (self._tools / "scontrol").write_text("#!/bin/sh\nexit 1\n")
        (self._tools / "scontrol").chmod(0o755)

    def call(self, *arguments: str) -> str:
        """Runs the installed exporter below the root, and returns what it printed."""
        python = self.program / "venv" / "bin" / "python"
        return subprocess.run([python, "-m", "agent", *arguments], check=True, capture_output=True, text=True).stdout

    def environments(self) -> list[str]:
        """The virtual environments, oldest first."""
        return sorted(path.name for path in self.program.glob("venv-*"))

    def folders(self) -> set[str]:
        """Every folder below the root."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_dir()}

    def files(self) -> dict[str, bytes | str]:
        """Every file but those of the environments: its path below the root, and its content or link target."""
        found: dict[str, bytes | str] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if "/venv-" in name:
                continue
            if path.is_symlink():
                found[name] = os.readlink(path)
            elif path.is_file():
                found[name] = path.read_bytes()
        return found
