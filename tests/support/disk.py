"""Disks that are too small or read-only. Mounting them needs root."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from tests.support.tools import need_to_run


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk in memory, mounted at *folder* while the block runs; its size is in kilobytes."""
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "none", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave_kilobytes: int = 0) -> Path:
    """Fills the disk of *folder*, except for some kilobytes, with a file that can be removed again."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(file.tell() - leave_kilobytes * 1024, 0))
    return filler


def make_read_only(folder: Path, *, read_only: bool = True) -> None:
    """Remounts the disk at *folder*."""
    _mount("-o", "remount,ro" if read_only else "remount,rw", str(folder))


def _mount(*arguments: str) -> None:
    need_to_run(["mount", *arguments], "only root can mount a small disk")
