"""Pins what install.sh and the bundle install: exact versions with their hashes, a file for each Python.

    python etc/pin.py

Asks PyPI for the newest versions that support each Python. `make pins` calls it; look at the changes before you commit
them. Needs uv, of the extra `release`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Sequence

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / "etc" / "requirements"
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
#: Builds the exporter from a clone: the last version that runs on 3.8, used for all Pythons.
BUILD = "setuptools<76"
#: The last pip that runs on 3.8. It is for Pythons without pip, and installs only the wheels beside it.
PIP = "pip<25.1"
_HEADER = "# Made by `make pins`: versions and their hashes, which install.sh and the bundle hold to.\n"


def main() -> None:
    """Rewrites every file."""
    FOLDER.mkdir(exist_ok=True)
    for python in PYTHONS:
        extras = ["--extra", "metrics", "--extra", "progress"]
        write(f"{python}.txt", compile_pins([str(CHECKOUT / "pyproject.toml"), *extras], python))
    for name, requirement in (("build", BUILD), ("pip", PIP)):
        write(f"{name}.txt", compile_pins(["-"], PYTHONS[0], requirement))


def compile_pins(what: Sequence[str], python: str, stdin: str = "") -> str:
    """Requirements resolved by uv for one Python version on Linux."""
    argv = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
    ]
    target = ["--python-version", python, "--python-platform", "linux", "--only-binary", ":all:"]
    done = subprocess.run(  # noqa: S603  # no shell, and only our own arguments
        [str(Path(sys.executable).with_name(argv[0])), *argv[1:], *target, *what],
        input=stdin,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout


def write(name: str, pins: str) -> None:
    """Writes one file, with a first line that says how it is generated."""
    (FOLDER / name).write_text(_HEADER + pins, encoding="utf-8")


if __name__ == "__main__":
    main()
