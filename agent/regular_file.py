"""Reads files that others have named, such as slurmctld: a FIFO would block, and a device would never end."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Iterator

if TYPE_CHECKING:
    from pathlib import Path

#: Longer than any script or slurm.conf; the rest is not read.
LONGEST_TEXT = 16 << 20


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading.

    :raises OSError: also if it is anything else.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123  # a descriptor
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file


def read_regular(path: Path) -> str:
    """The text of a regular file. Bytes that are not UTF-8 are replaced.

    :raises OSError: see :func:`open_regular`.
    """
    with open_regular(path) as file:
        return file.read(LONGEST_TEXT).decode("utf-8", "replace")
