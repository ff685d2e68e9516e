"""Reads slurm.conf from disk. slurmctld may still run with an older version of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, NamedTuple

from agent.regular_file import read_regular
from agent.slurm.controller_hosts import Controllers

#: Deeper than any site nests its files; stops a file that includes itself.
DEEPEST_INCLUDE = 8
_PAIR = re.compile(r'([A-Za-z][\w-]*)\s*=\s*("[^"]*"|\S*)')
_INCLUDE = re.compile(r"include\s+(\S+)", re.IGNORECASE)
_COMMENT = re.compile(r"(?<!\\)#.*")


class Setting(NamedTuple):
    """A key with its value, file and line."""

    key: str
    value: str
    file: Path
    line: int

    @property
    def place(self) -> str:
        """``FILE:LINE``, as compilers and grep print it."""
        return f"{self.file}:{self.line}"


class Conf(NamedTuple):
    """All settings, in the order in which Slurm reads them."""

    settings: tuple[Setting, ...]
    complete: bool  # whether every file could be read

    def get(self, key: str) -> Setting | None:
        """The effective setting of a key: Slurm uses the last line that sets it."""
        return next((setting for setting in reversed(self.settings) if setting.key.lower() == key.lower()), None)

    def get_all(self, key: str) -> list[Setting]:
        """Every setting of a key that may be repeated."""
        return [setting for setting in self.settings if setting.key.lower() == key.lower()]


def read_slurm_conf(path: Path, cluster: str = "") -> Conf:
    """Reads slurm.conf and the files it includes. Unreadable files are skipped.

    :param cluster: replaces %c in the name of an included file.
    """
    unreadable: list[Path] = []
    settings = tuple(_read(path, path.parent, cluster, unreadable, DEEPEST_INCLUDE))
    return Conf(settings, not unreadable)


def controllers_of(conf: Conf) -> Controllers:
    """The controllers that slurm.conf names."""
    cluster, state = conf.get("ClusterName"), conf.get("StateSaveLocation")
    hosts = conf.get_all("SlurmctldHost") or conf.get_all("ControlMachine")  # its name up to 18.08
    return Controllers(
        cluster.value if cluster else "", tuple(host.value for host in hosts), state.value if state else ""
    )


def _read(path: Path, folder: Path, cluster: str, unreadable: list[Path], depth: int) -> Iterator[Setting]:
    try:
        text = read_regular(path)
    except OSError:
        unreadable.append(path)
        return
    for number, line in _logical_lines(text):
        include = _INCLUDE.match(line)
        if include:
            name = include[1].replace("%c", cluster)
            if depth:  # a relative path starts at the folder of slurm.conf itself
                for file in _included(folder, name):
                    yield from _read(file, folder, cluster, unreadable, depth - 1)
            continue
        for key, value in _PAIR.findall(line):
            yield Setting(key, value.strip('"'), path, number)


def _included(folder: Path, name: str) -> list[Path]:
    path = folder / name
    return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line without its comment, joined with its continuation lines, and the number of its first line."""
    first, joined = 0, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        first = first or number
        line = _COMMENT.sub("", raw).rstrip()
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield first, (joined + line).strip()
        first, joined = 0, ""
    if joined:
        yield first, joined.strip()
