"""Explains errors of the spool's disk in one sentence, and replaces files that others read."""

from __future__ import annotations

import os
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


def replace_file(path: Path, content: bytes) -> None:
    """Atomically writes a file that everybody may read.

    Others may write to its folder, such as /tmp: under a name that they could guess, a link of theirs might be waiting.

    :raises OSError: if it can't be written.
    """
    import tempfile  # noqa: PLC0415  # slow to import, and an idle flush needs none

    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(number, "wb") as file:  # noqa: PTH123  # it is open already
            file.write(content)
            os.fchmod(number, 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
