"""A separate root folder: an overlay over a built Debian, into which packages are installed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.install.machine import build_base
from tests.support.tools import cannot_run, need


class Root:
    """A root folder that a test may change freely; it is removed at the end of its ``with``.

    If this machine cannot create one, skips the test, or fails it in CI.

    :param suite: the Debian below it, with systemd, Slurm and their users.
    """

    def __init__(self, suite: str = "bookworm") -> None:
        need("debootstrap")
        if os.geteuid() != 0:
            cannot_run("a root folder needs root")
        try:
            self._base = build_base(suite)
        except subprocess.CalledProcessError as error:
            cannot_run(f"a Debian for the root folder can't be built: {error.stderr.strip()}")

    def __enter__(self) -> Root:
        self._folder = Path(tempfile.mkdtemp(prefix="root-"))
        for name in ("upper", "work", "root"):
            (self._folder / name).mkdir()
        self.path = self._folder / "root"
        layers = f"lowerdir={self._base},upperdir={self._folder}/upper,workdir={self._folder}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.path)], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", str(self.path / "proc")], check=True)
        subprocess.run(["mount", "--bind", "/dev/null", str(self.path / "dev/null")], check=False)
        return self

    def __exit__(self, *_: object) -> None:
        for place in ("dev/null", "proc", "."):
            subprocess.run(["umount", "--lazy", str(self.path / place)], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", str(self._folder)], check=True)

    def run(self, *argv: str, expect: int | None = 0, **environ: str) -> str:
        """Runs a command inside as root, without a network, and returns what it printed on either stream."""
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
        changes = [f"{name}={value}" for name, value in environ.items()]
        inside = ["unshare", "--net", "chroot", str(self.path), *clean, *changes, *argv]
        return finish(inside, expect)

    def rpm(self, *options: str, expect: int | None = 0) -> str:
        """Runs this machine's rpm on the root folder, with the package's scripts inside and no network."""
        return finish(["unshare", "--net", "rpm", "--root", str(self.path), *options], expect)


def finish(argv: list[str], expect: int | None) -> str:
    """Runs a command to its end, checks the exit code, and returns what it printed."""
    done = subprocess.run(
        argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )
    assert expect in {None, done.returncode}, f"{argv}: exit {done.returncode}\n{done.stdout}"
    return done.stdout
