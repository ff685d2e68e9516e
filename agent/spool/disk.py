"""Explains errors of the spool's disk in one sentence."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from agent.errors import SpoolError


@contextmanager
def explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(
            f"cannot use {error.filename or path}: {error.strerror or error}",
            hint="check that the spool's disk is mounted, writable and not full, and belongs to the Slurm user",
        ) from error
