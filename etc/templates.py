"""Writes the template units for instances from the plain units, so that the two never differ.

python etc/templates.py [FOLDER]     into etc/systemd/ by default
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

NAME = "slurm-usage-history-exporter"
UNITS = Path(__file__).resolve().parent / "systemd"
_UNIT = re.compile(rf"({NAME}(?:-flush(?:-soon)?)?)\.(service|timer|path|target)")


def make_template(text: str) -> str:
    """The plain unit ``text`` with the folders, the units and the command of the instance %i."""
    return "\n".join(map(_adapt, text.splitlines())) + "\n"


def template_name(name: str) -> str:
    """
    >>> template_name("slurm-usage-history-exporter-flush.path")
    'slurm-usage-history-exporter-flush@.path'
    """
    return _UNIT.sub(r"\1@.\2", name)


def _adapt(line: str) -> str:
    comment = line.startswith("#")
    line = _UNIT.sub(r"\1@INSTANCE.\2" if comment else r"\1@%i.\2", line)
    line = line.replace("…-flush.", "…-flush@INSTANCE.")
    line = line.replace(f"/etc/{NAME}/", f"/etc/{NAME}/%i/").replace(f"/var/spool/{NAME}", f"/var/spool/{NAME}@%i")
    line = re.sub(rf"^(ExecStart=\S*/{NAME}) ", r"\1 --instance %i ", line)
    return re.sub(r"^(Description=.*)$", r"\1 (%i)", line)


def main() -> None:
    """Writes one template beside each plain unit."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else UNITS
    for unit in sorted(UNITS.iterdir()):
        if "@" not in unit.name:
            (folder / template_name(unit.name)).write_text(make_template(unit.read_text(encoding="utf-8")), "utf-8")


if __name__ == "__main__":
    main()
