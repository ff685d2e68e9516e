"""Builds what installs without internet: a bundle with wheels for every Python, and a single-file zipapp.

    python etc/bundle.py [--bundle] [--zipapp] [--python 3.X]... [FOLDER]

Both are built, for every Python, into dist/, where nothing else is said.

Needs pip, and the way to PyPI that the machines it is for do not have.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Iterable, Mapping, Sequence

NAME = "slurm-usage-history-exporter"
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
EXTRAS = "[metrics,progress]"
#: The last pip that runs on 3.8. It is for Pythons that come without one, and only installs what lies beside it.
PIP = "pip==25.0.1"
CHECKOUT = Path(__file__).resolve().parent.parent
#: What goes into the bundle beside the wheels.
FILES = ("install.sh", "hooks", "etc", "docs", "README.md", "CHANGELOG.md", "LICENSE")

#: Found by a shell: /usr/bin/env python3 is 3.6 on EL 8, whatever else is installed.
ZIPAPP_HEAD = """\
#!/bin/sh
# A Python program in a zip archive, whose first lines find the newest Python for it.
for python in {commands}; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then exec "$python" "$0" "$@"; fi
done
echo 'slurm-usage-history-exporter needs Python 3.8 or later' >&2
exit 1
"""

ZIPAPP_MAIN = """\
import sys

if sys.version_info < (3, 8):
    sys.exit("slurm-usage-history-exporter needs Python 3.8 or later, and this is " + sys.version.split()[0])
PACKAGES = {packages!r}
newest = max(PACKAGES)
sys.path[1:1] = [sys.path[0] + "/" + name for name in PACKAGES[min(sys.version_info[:2], newest)]]

from agent.cli import run

run()
"""


def main(argv: Sequence[str]) -> None:
    """Builds what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="store_true")
    parser.add_argument("--zipapp", action="store_true")
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("folder", type=Path, nargs="?", default=CHECKOUT / "dist")
    arguments = parser.parse_args(argv)
    both = arguments.bundle == arguments.zipapp
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        own = build_own_wheel(Path(work))
        wheels = {python: download_wheels(own, python, Path(work, python)) for python in arguments.python or PYTHONS}
        if arguments.bundle or both:
            pip = run_pip("download", "--no-deps", PIP, folder=Path(work, "pip"))
            print(write_bundle(arguments.folder, own, [*pip, *itertools.chain(*wheels.values())]))
        if arguments.zipapp or both:
            print(write_zipapp(arguments.folder / f"{NAME}.pyz", own, wheels))


def build_own_wheel(work: Path) -> Path:
    """The wheel of this project, built from a copy, as a build leaves files behind in its folder."""
    copy = work / "source"
    copy.mkdir()
    shutil.copytree(CHECKOUT / "agent", copy / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    (wheel,) = run_pip("wheel", "--no-deps", str(copy), folder=work / "own")
    return wheel


def download_wheels(own: Path, python: str, folder: Path) -> list[Path]:
    """The pure-Python wheels, ours included, that the exporter needs with one version of Python."""
    # pip evaluates `python_version < '3.11'` for the Python that runs it, so tomli is named.
    tomli = ["tomli"] if python in {"3.8", "3.9", "3.10"} else []
    target = ["--python-version", python, "--implementation", "py", "--abi", "none", "--platform", "any"]
    return run_pip("download", "--only-binary=:all:", *target, f"{own}{EXTRAS}", *tomli, folder=folder)


def run_pip(command: str, *arguments: str, folder: Path) -> list[Path]:
    """Has pip put wheels into a folder, and returns them."""
    pip = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check"]
    option = "--wheel-dir" if command == "wheel" else "--dest"
    subprocess.run([*pip, option, str(folder), *arguments], check=True)  # noqa: S603  # no shell, and nobody else's words
    return sorted(folder.glob("*.whl"))


def write_bundle(folder: Path, own: Path, wheels: Iterable[Path]) -> Path:
    """Writes the archive: install.sh and what it installs, with a wheelhouse that it finds by itself."""
    top = f"{NAME}-{own.name.split('-')[1]}"
    bundle = folder / f"{top}-bundle.tar.gz"
    with tarfile.open(bundle, "w:gz") as archive:
        for name in filter(lambda name: (CHECKOUT / name).exists(), FILES):
            archive.add(CHECKOUT / name, f"{top}/{name}", filter=_as_root)
        for wheel in {wheel.name: wheel for wheel in wheels}.values():
            archive.add(wheel, f"{top}/wheelhouse/{wheel.name}", filter=_as_root)
    return bundle


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return None if "__pycache__" in info.name else info


def write_zipapp(path: Path, own: Path, wheels: Mapping[str, Sequence[Path]]) -> Path:
    """Writes the program and its packages as one file; each Python takes those that are for it."""
    packages = {
        tuple(map(int, python.split("."))): [_package_folder(wheel) for wheel in chosen if wheel.name != own.name]
        for python, chosen in wheels.items()
    }
    others = {wheel.name: wheel for chosen in wheels.values() for wheel in chosen if wheel.name != own.name}
    commands = " ".join([*(f"python{python}" for python in reversed(list(wheels))), "python3"])
    path.write_text(ZIPAPP_HEAD.format(commands=commands), encoding="ascii")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", ZIPAPP_MAIN.format(packages=packages))
        _add_wheel(archive, own, "")
        for wheel in others.values():
            _add_wheel(archive, wheel, f"{_package_folder(wheel)}/")
    path.chmod(0o755)
    return path


def _package_folder(wheel: Path) -> str:
    return "packages/" + re.sub(r"-py[^-]*-none-any\.whl$", "", wheel.name)


def _add_wheel(archive: zipfile.ZipFile, wheel: Path, folder: str) -> None:
    with zipfile.ZipFile(wheel) as content:
        for name in content.namelist():
            if not name.endswith("/"):
                archive.writestr(folder + name, content.read(name))


if __name__ == "__main__":
    main(sys.argv[1:])
