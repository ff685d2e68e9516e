"""slurm.conf as it lies on the disk, which need not be what slurmctld has read of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple

from agent.slurm.controllers import Controllers

#: Where Slurm's packages look for it.
USUAL_PLACES = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/opt/slurm/etc/slurm.conf")
#: Deeper than any site nests its files: a file that includes itself ends there.
DEEPEST_INCLUDE = 8
_PAIR = re.compile(r'([A-Za-z][\w-]*)\s*=\s*("[^"]*"|\S*)')
_INCLUDE = re.compile(r"include\s+(\S+)", re.IGNORECASE)
_COMMENT = re.compile(r"(?<!\\)#.*")


class Setting(NamedTuple):
    """A key and its value, and where they stand."""

    key: str
    value: str
    file: Path
    line: int

    @property
    def place(self) -> str:
        """File and line, as compilers and grep write them."""
        return f"{self.file}:{self.line}"


class Conf(NamedTuple):
    """All settings in the order in which Slurm reads them."""

    settings: tuple[Setting, ...]
    complete: bool  # whether every file could be read

    def get(self, key: str) -> Setting | None:
        """The setting that counts: of several lines with one key Slurm takes the last."""
        return next((setting for setting in reversed(self.settings) if setting.key.lower() == key.lower()), None)

    def get_all(self, key: str) -> list[Setting]:
        """Every setting of a key that may stand on several lines."""
        return [setting for setting in self.settings if setting.key.lower() == key.lower()]


def find_slurm_conf(environ: Mapping[str, str]) -> Path | None:
    """Where Slurm's commands read it on this host; None where it is not on the disk, but got from slurmctld."""
    places = [environ["SLURM_CONF"]] if environ.get("SLURM_CONF") else USUAL_PLACES
    return next((Path(place) for place in places if Path(place).is_file()), None)


def read_slurm_conf(path: Path, cluster: str = "") -> Conf:
    """Reads slurm.conf with what it includes; what can't be read is left out.

    :param cluster: stands for %c in the name of an included file.
    """
    unreadable: list[Path] = []
    settings = tuple(_read(path, path.parent, cluster, unreadable, DEEPEST_INCLUDE))
    return Conf(settings, not unreadable)


def controllers_of(conf: Conf) -> Controllers:
    """What slurm.conf says of the controllers; nothing where there is no slurm.conf."""
    cluster, state = conf.get("ClusterName"), conf.get("StateSaveLocation")
    hosts = conf.get_all("SlurmctldHost") or conf.get_all("ControlMachine")  # as it was called up to 18.08
    return Controllers(
        cluster.value if cluster else "", tuple(host.value for host in hosts), state.value if state else ""
    )


def _read(path: Path, folder: Path, cluster: str, unreadable: list[Path], depth: int) -> Iterator[Setting]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        unreadable.append(path)
        return
    for number, line in _logical_lines(text):
        include = _INCLUDE.match(line)
        if include:
            name = include[1].replace("%c", cluster)
            if depth:  # a path that is not absolute counts from the folder of slurm.conf itself
                for file in _included(folder, name):
                    yield from _read(file, folder, cluster, unreadable, depth - 1)
            continue
        for key, value in _PAIR.findall(line):
            yield Setting(key, value.strip('"'), path, number)


def _included(folder: Path, name: str) -> list[Path]:
    path = folder / name
    return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line without its comment, joined with those that continue it; numbered by the first of them."""
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
