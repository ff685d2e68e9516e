"""Programs that a test needs on this machine."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> None:
    """Skips the test where the program is missing; in CI, which has to run every test, fails it."""
    if shutil.which(program):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to run every test, but there is no {program}")
    pytest.skip(f"there is no {program}")
