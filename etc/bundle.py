"""Builds installations that need no internet access: a bundle with wheels for every Python, and a single-file zipapp.

    python etc/bundle.py [--bundle] [--zipapp] [--python 3.X]... [FOLDER]

By default it builds both, for every Python, into dist/, with SHA256SUMS and an SBOM (CycloneDX). The versions are those
of etc/requirements/. Builds are reproducible.

Needs pip and access to PyPI, which the machines that it builds for need not have.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Iterable, Mapping, Sequence

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import sbom  # noqa: E402  # beside this file

NAME = "slurm-usage-history-exporter"
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
CHECKOUT = Path(__file__).resolve().parent.parent
#: Exact versions with their hashes: see etc/pin.py.
PINS = CHECKOUT / "etc" / "requirements"
#: What goes into the bundle beside the wheels.
FILES = ("install.sh", "hooks", "etc", "docs", "README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE")

#: Found by a shell: /usr/bin/env python3 is 3.6 on EL 8, whatever else is installed.
ZIPAPP_HEAD = """\
#!/bin/sh
# A Python program in a zip archive, whose first lines find the newest Python for it.
for python in {commands}; do
    if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
        exec "$python" -I "$0" "$@" # -I: nothing of the caller's folder, home or environment is imported
    fi
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

from agent.__main__ import run

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
    os.umask(0o022)  # the modes of files are part of what is built
    both = arguments.bundle == arguments.zipapp
    arguments.folder.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as work:
        own = build_own_wheel(Path(work))
        wheels = {python: download_wheels(own, python, Path(work, python)) for python in arguments.python or PYTHONS}
        if arguments.bundle or both:
            pip = download(PINS / "pip.txt", Path(work, "pip"))
            made.append(write_bundle(arguments.folder, own, [*pip, *itertools.chain(*wheels.values())]))
        if arguments.zipapp or both:
            made.append(write_zipapp(arguments.folder / f"{NAME}.pyz", own, wheels))
        if both and sbom.is_possible():
            made.append(sbom.write_sbom(arguments.folder, own, itertools.chain(*wheels.values()), int(source_date())))
    write_sums(arguments.folder, made)
    for path in made:
        print(path)


def source_date() -> str:
    """The time of the last commit in epoch seconds, which the build uses instead of the present time."""
    if "SOURCE_DATE_EPOCH" not in os.environ:
        ask = ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"]
        said = subprocess.run(ask, check=False, capture_output=True, text=True).stdout.strip()  # noqa: S603
        os.environ["SOURCE_DATE_EPOCH"] = said or str(int((CHECKOUT / "pyproject.toml").stat().st_mtime))
    return os.environ["SOURCE_DATE_EPOCH"]


def write_sums(folder: Path, made: Sequence[Path]) -> None:
    """Adds files to SHA256SUMS, or updates them there."""
    sums = folder / "SHA256SUMS"
    lines = sums.read_text().splitlines() if sums.exists() else []
    names = {path.name for path in made}
    lines = [line for line in lines if line.split("  ")[1] not in names and (folder / line.split("  ")[1]).exists()]
    lines += [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in made]
    sums.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.split("  ")[1])))


def build_own_wheel(work: Path) -> Path:
    """The wheel of this project, built from a copy, because a build leaves files in its folder."""
    copy = work / "source"
    copy.mkdir()
    shutil.copytree(CHECKOUT / "agent", copy / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    for path in copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # regardless of the checkout's umask
    source_date()
    tools = download(PINS / "build.txt", work / "tools")
    # The pinned setuptools, unpacked from its wheel, so that no other version can run the build.
    for tool in tools:
        with zipfile.ZipFile(tool) as archive:
            archive.extractall(work / "setuptools")  # noqa: S202  # it has the hash that is pinned
    environment = {**os.environ, "PYTHONPATH": str(work / "setuptools")}
    (wheel,) = run_pip(
        "wheel", "--no-deps", "--no-index", "--no-build-isolation", str(copy), folder=work / "own", env=environment
    )
    return wheel


def download_wheels(own: Path, python: str, folder: Path) -> list[Path]:
    """The pure-Python wheels, ours included, that the exporter needs with one version of Python."""
    target = ["--python-version", python, "--implementation", "py", "--abi", "none", "--platform", "any"]
    return [own, *download(PINS / f"{python}.txt", folder, *target)]


def download(pins: Path, folder: Path, *options: str) -> list[Path]:
    """The wheels that a file of pins names, by their hashes."""
    pinned = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement", str(pins)]
    return run_pip("download", *options, *pinned, folder=folder)


def run_pip(command: str, *arguments: str, folder: Path, env: Mapping[str, str] | None = None) -> list[Path]:
    """Downloads wheels into a folder with pip, and returns them."""
    pip = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check"]
    option = "--wheel-dir" if command == "wheel" else "--dest"
    subprocess.run(  # noqa: S603  # no shell, and only our own arguments
        [*pip, option, str(folder), *arguments], check=True, env=env, stdout=sys.stderr
    )
    return sorted(folder.glob("*.whl"))


def write_bundle(folder: Path, own: Path, wheels: Iterable[Path]) -> Path:
    """Writes the archive: install.sh and what it installs, with the wheelhouse that it uses by default."""
    top = f"{NAME}-{own.name.split('-')[1]}"
    bundle = folder / f"{top}-bundle.tar.gz"
    date = int(source_date())
    # Without the file's name and the time in its header, gzip's output is reproducible.
    with ExitStack() as stack:
        file = stack.enter_context(bundle.open("wb"))
        packed = stack.enter_context(gzip.GzipFile("", "wb", 9, file, mtime=date))
        archive = stack.enter_context(tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT))
        for name in filter(lambda name: (CHECKOUT / name).exists(), FILES):
            archive.add(CHECKOUT / name, f"{top}/{name}", filter=_as_root)
        for name, wheel in sorted({wheel.name: wheel for wheel in wheels}.items()):
            archive.add(wheel, f"{top}/wheelhouse/{name}", filter=_as_root)
    return bundle


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = int(source_date())
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    return None if "__pycache__" in info.name else info


def write_zipapp(path: Path, own: Path, wheels: Mapping[str, Sequence[Path]]) -> Path:
    """Writes the program and its packages as one file; each Python uses the packages built for it."""
    packages = {
        tuple(map(int, python.split("."))): [_package_folder(wheel) for wheel in chosen if wheel.name != own.name]
        for python, chosen in wheels.items()
    }
    others = {wheel.name: wheel for chosen in wheels.values() for wheel in chosen if wheel.name != own.name}
    commands = " ".join([*(f"python{python}" for python in reversed(list(wheels))), "python3"])
    path.write_text(ZIPAPP_HEAD.format(commands=commands), encoding="ascii")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_member("__main__.py"), ZIPAPP_MAIN.format(packages=packages))
        _add_wheel(archive, own, "")
        for _, wheel in sorted(others.items()):
            _add_wheel(archive, wheel, f"{_package_folder(wheel)}/")
    path.chmod(0o755)
    return path


def _package_folder(wheel: Path) -> str:
    return "packages/" + re.sub(r"-py[^-]*-none-any\.whl$", "", wheel.name)


def _add_wheel(archive: zipfile.ZipFile, wheel: Path, folder: str) -> None:
    with zipfile.ZipFile(wheel) as content:
        for name in sorted(content.namelist()):
            if not name.endswith("/"):
                archive.writestr(_member(folder + name), content.read(name))


@functools.lru_cache(maxsize=None)
def _date() -> tuple[int, int, int, int, int, int]:
    """The source's date for zip files, whose dates begin in 1980."""
    return max(time.gmtime(int(source_date()))[:6], (1980, 1, 1, 0, 0, 0))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _date())
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


if __name__ == "__main__":
    main(sys.argv[1:])
