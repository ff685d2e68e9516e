"""Builds the packages for the tests, once for each release number that they upgrade to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.install.installation import CHECKOUT, NAME
from tests.support.tools import cannot_run

VERSION = "1.0.0"
#: The Pythons of Debian 11, 12 and 13: all wheels would take a minute more.
PYTHONS = ("3.9", "3.11", "3.12", "3.13")


def build_zipapp(folder: Path) -> Path:
    """Builds the zipapp; if that is impossible, skips the test, or fails it in CI."""
    options = [word for python in PYTHONS for word in ("--python", python)]
    build = [sys.executable, str(CHECKOUT / "etc/bundle.py"), "--zipapp", *options, str(folder)]
    made = subprocess.run(build, check=False, capture_output=True, text=True)
    if made.returncode:
        cannot_run(f"the zipapp can't be built without PyPI: {made.stderr[-300:]}")
    return folder / f"{NAME}.pyz"


def build_packages(folder: Path, zipapp: Path, *options: str) -> list[Path]:
    """Runs ``etc/packaging/package.py``, and returns the built files."""
    build = [sys.executable, str(CHECKOUT / "etc/packaging/package.py"), "--zipapp", str(zipapp), *options, str(folder)]
    made = subprocess.run(build, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return [Path(line) for line in made.stdout.splitlines()]
