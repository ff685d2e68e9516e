"""Fixtures of the installation's tests."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.install.installation import CHECKOUT, Installation
from tests.support.tools import cannot_run, need


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked result of ``make bundle``, for the Python that runs the tests."""
    folder = tmp_path_factory.mktemp("bundle")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    build = [sys.executable, str(CHECKOUT / "etc" / "bundle.py"), "--bundle", "--python", python, str(folder)]
    made = subprocess.run(build, check=False, capture_output=True, text=True)
    if made.returncode:
        cannot_run(f"the bundle can't be built without PyPI: {made.stderr[-300:]}")
    with tarfile.open(made.stdout.strip()) as archive:
        archive.extractall(folder)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


@pytest.fixture
def installation(bundle: Path, tmp_path: Path) -> Installation:
    """A folder used as /, into which the bundle is installed."""
    need("systemctl")
    return Installation(bundle, tmp_path / "root")
