"""Builds the deb and the RPM, for every architecture and every Python from 3.8 on.

    python etc/packaging/package.py [--deb] [--rpm] [--release N] [--zipapp FILE] [FOLDER]

By default it builds both into dist/, with SHA256SUMS. The program comes from the zipapp, which needs access to PyPI to
build; installing the packages needs neither pip nor a network. dpkg-deb and rpmbuild are in Debian's packages dpkg and
rpm.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Iterator, Sequence

PACKAGING = Path(__file__).resolve().parent
CHECKOUT = PACKAGING.parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "etc")]

import bundle  # noqa: E402  # beside this folder

from agent import __version__  # noqa: E402  # the checkout's, whatever else is installed

NAME = bundle.NAME
#: Where install.sh puts the command and the hook, and where packages do.
PLACES = {f"/opt/{NAME}/venv/bin/{NAME}": f"/usr/bin/{NAME}", f"/opt/{NAME}/bin/": f"/usr/libexec/{NAME}/"}
DOCUMENTS = ("README.md", "CHANGELOG.md", "docs")
#: With these only the build folder's path still differs between builds; the time comes from SOURCE_DATE_EPOCH.
REPRODUCIBLE = {
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "_buildhost": "reproducible",
}


#: The file descriptor by which rpmbuild finds its folder.
RPM_FOLDER = 9


def main(argv: Sequence[str]) -> None:
    """Builds what the arguments ask for, and prints the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deb", action="store_true")
    parser.add_argument("--rpm", action="store_true")
    parser.add_argument("--release", default="1", help="the package's own number behind the version")
    parser.add_argument("--zipapp", type=Path, help="the program, built before")
    parser.add_argument("folder", type=Path, nargs="?", default=CHECKOUT / "dist")
    arguments = parser.parse_args(argv)
    both = arguments.deb == arguments.rpm
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        zipapp = arguments.zipapp or build_zipapp(Path(work))
        made = []
        if arguments.deb or both:
            made.append(build_deb(Path(work, "deb"), zipapp, arguments.release, arguments.folder))
        if arguments.rpm or both:
            made += build_rpm(Path(work, "rpm"), zipapp, arguments.release, arguments.folder)
    bundle.write_sums(arguments.folder, made)
    for path in made:
        print(path)


def build_zipapp(work: Path) -> Path:
    """The one-file program, by ``make zipapp``'s own code."""
    bundle.main(["--zipapp", str(work)])
    return work / f"{NAME}.pyz"


def lay_out(root: Path, zipapp: Path) -> None:
    """Puts every file that both kinds of package install below ``root``, with its mode."""
    share, libexec = root / "usr/share" / NAME, root / "usr/libexec" / NAME
    documents = root / "usr/share/doc" / NAME
    unpack(zipapp, share, documents / "third-party.txt")
    put(PACKAGING / "command.sh", root / "usr/bin" / NAME, 0o755)
    put(PACKAGING / "python.sh", libexec / "python", 0o755)
    put(PACKAGING / "adapt.sh", libexec / "adapt", 0o755)
    put(PACKAGING / "unwired.sh", libexec / "unwired", 0o755)
    put(CHECKOUT / "hooks/jobcomp.sh", libexec / "jobcomp.sh", 0o755)
    put(CHECKOUT / "etc/config.toml.example", share / "config.toml.example")
    put(CHECKOUT / "etc/hooks/call-both.sh", share / "call-both.sh", 0o755)
    put(PACKAGING / "environment", root / "etc" / NAME / "environment")
    put(PACKAGING / "tmpfiles.conf", root / "usr/lib/tmpfiles.d" / f"{NAME}.conf")
    for unit in sorted((CHECKOUT / "etc/systemd").iterdir()):
        put(unit, root / "usr/lib/systemd/system" / unit.name)
    completion = CHECKOUT / "etc/completion"
    put(completion / f"{NAME}.bash", root / "usr/share/bash-completion/completions" / NAME)
    compress((CHECKOUT / f"etc/man/{NAME}.8").read_bytes(), root / f"usr/share/man/man8/{NAME}.8.gz")
    for name in DOCUMENTS:
        for document in sorted((CHECKOUT / name).rglob("*.md")) or [CHECKOUT / name]:
            put(document, documents / document.relative_to(CHECKOUT))


def unpack(zipapp: Path, folder: Path, licences: Path) -> None:
    """Unpacks the program, and writes the licences of the packages in it into one file.

    Leaves out pip's metadata, shell completions, and the shebangs of modules.
    """
    texts = []
    with zipfile.ZipFile(zipapp) as program:
        for name in sorted(program.namelist()):
            content = program.read(name)
            if ".dist-info/" in name:
                is_ours = not name.startswith("packages/")
                if "licen" in name.lower().partition(".dist-info/")[2] and not is_ours:
                    texts += [f"=== {name.split('/')[1]} ===\n\n".encode(), content, b"\n"]
            elif name.endswith(".py") or name.endswith("py.typed"):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.partition(b"\n")[2] if content.startswith(b"#!") else content)
            elif name.endswith(".pem"):  # certifi's authorities, for a host without its own
                (folder / name).write_bytes(content)
    licences.parent.mkdir(parents=True, exist_ok=True)
    licences.write_bytes(b"".join(texts))


def put(source: Path, target: Path, mode: int = 0o644) -> None:
    """Copies a text file, with the packages' places in it."""
    text = source.read_text(encoding="utf-8")
    for ours, theirs in PLACES.items():
        text = text.replace(ours, theirs)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    target.chmod(mode)


def build_deb(root: Path, zipapp: Path, release: str, folder: Path) -> Path:
    """Builds the deb with dpkg-deb alone."""
    lay_out(root, zipapp)
    completion = root / "usr/share/zsh/vendor-completions" / f"_{NAME}"
    put(CHECKOUT / f"etc/completion/_{NAME}", completion)
    put(PACKAGING / "deb/lintian-overrides", root / "usr/share/lintian/overrides" / NAME)
    documents = root / "usr/share/doc" / NAME
    put(PACKAGING / "deb/copyright", documents / "copyright")
    version = f"{__version__}-{release}"
    compress((documents / "CHANGELOG.md").read_bytes(), documents / "changelog.gz")
    (documents / "CHANGELOG.md").unlink()
    compress(debian_changelog(version).encode(), documents / "changelog.Debian.gz")
    control = root / "DEBIAN"
    control.mkdir()
    sums = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"  # noqa: S324  # dpkg's own format
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    (control / "md5sums").write_text("".join(sums))
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024
    text = (PACKAGING / "deb/control").read_text(encoding="utf-8")
    (control / "control").write_text(text.format(version=version, size=size), encoding="utf-8")
    (control / "conffiles").write_text(f"/etc/{NAME}/environment\n")
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(PACKAGING / "deb" / script, control / script)
        (control / script).chmod(0o755)
    deb = folder / f"{NAME}_{version}_all.deb"
    # xz: Debian 11 cannot read zstd, the default on some build machines.
    run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, deb)
    return deb


def debian_changelog(version: str) -> str:
    """The one entry that Debian requires; the changes are in the project's own changelog."""
    date = formatdate(int(bundle.source_date()))
    return f"{NAME} ({version}) stable; urgency=medium\n\n  * See changelog.gz.\n\n -- {maintainer()}  {date}\n"


def maintainer() -> str:
    """As the deb's control file says."""
    text = (PACKAGING / "deb/control").read_text(encoding="utf-8")
    return text.partition("Maintainer: ")[2].splitlines()[0]


def build_rpm(work: Path, zipapp: Path, release: str, folder: Path) -> list[Path]:
    """Builds the binary and the source RPM with rpmbuild; the source RPM builds again without a network."""
    root = work / f"{NAME}-{__version__}"
    lay_out(root, zipapp)
    put(CHECKOUT / f"etc/completion/_{NAME}", root / "usr/share/zsh/site-functions" / f"_{NAME}")
    put(CHECKOUT / "LICENSE", root / "usr/share/licenses" / NAME / "LICENSE")
    for name in ("SOURCES", "SPECS"):
        (work / name).mkdir()
    source = work / "SOURCES" / f"{root.name}.tar"
    with tarfile.open(source, "w") as archive:
        archive.add(root, root.name, filter=bundle._as_root)
    compress(source.read_bytes(), source.with_suffix(".tar.gz"))
    source.unlink()
    spec = (PACKAGING / "rpm" / f"{NAME}.spec").read_text(encoding="utf-8")
    date = time.strftime("%a %b %d %Y", time.gmtime(int(bundle.source_date())))
    for mark, value in (("@VERSION@", __version__), ("@RELEASE@", release), ("@DATE@", date)):
        spec = spec.replace(mark, value)
    (work / "SPECS" / f"{NAME}.spec").write_text(spec, encoding="utf-8")
    with open_at(work, RPM_FOLDER) as top:
        defines = [f"--define={name} {value}" for name, value in {"_topdir": top, **REPRODUCIBLE}.items()]
        options = ["-ba", "--quiet", *defines, "--target=noarch"]
        run("rpmbuild", *options, f"{top}/SPECS/{NAME}.spec", pass_fds=[RPM_FOLDER])
    built = sorted([*work.glob("RPMS/noarch/*.rpm"), *work.glob("SRPMS/*.rpm")])
    return [Path(shutil.move(str(path), str(folder / path.name))) for path in built]


@contextmanager
def open_at(folder: Path, number: int) -> Iterator[str]:
    """A path to *folder* that does not contain its location, because rpm records it in the headers."""
    opened = os.open(folder, os.O_RDONLY)
    os.dup2(opened, number)
    os.close(opened)
    try:
        yield f"/dev/fd/{number}"
    finally:
        os.close(number)


def compress(content: bytes, path: Path) -> None:
    """Compresses content like gzip -9n: the same input gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 9, mtime=0))


def run(*argv: object, pass_fds: Sequence[int] = ()) -> None:
    """Runs a command with its output on standard error."""
    bundle.source_date()
    subprocess.run(list(map(str, argv)), check=True, stdout=sys.stderr, pass_fds=pass_fds)  # noqa: S603


if __name__ == "__main__":
    main(sys.argv[1:])
