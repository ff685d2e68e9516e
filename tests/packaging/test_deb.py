"""The deb as a file; `make test-packages` tests it in booted Debians."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.install.installation import NAME
from tests.packaging.building import build_packages, build_zipapp
from tests.packaging.root import finish
from tests.support.tools import need

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("dpkg-deb")
    folder = tmp_path_factory.mktemp("deb")
    (deb,) = build_packages(folder, build_zipapp(folder), "--deb")
    return deb


def test_lintian_finds_nothing_that_is_not_explained(deb: Path) -> None:
    """lintian finds nothing, even with hints; each exception is listed in etc/packaging/deb/lintian-overrides."""
    need("lintian")
    assert "" == finish(["lintian", "--allow-root", "--pedantic", "--display-info", str(deb)], 0)


def test_everything_in_it_belongs_to_root(deb: Path) -> None:
    """All files belong to root, and nobody else can write to them."""
    for line in finish(["dpkg-deb", "--contents", str(deb)], 0).splitlines():
        mode, owner, *_ = line.split()
        assert "root/root" == owner, line
        assert "w" not in mode[2:].replace(mode[2], "", 1), line


def test_it_depends_only_on_python(deb: Path) -> None:
    """The package depends neither on Slurm, which sites build themselves, nor on packages of Python libraries."""
    assert "python3 (>= 3.8)\n" == finish(["dpkg-deb", "--field", str(deb), "Depends"], 0)


def test_no_question_is_asked_on_an_upgrade(deb: Path) -> None:
    """config.toml is not a conffile: setup changes it, so dpkg would prompt and stop an unattended upgrade."""
    control = finish(["dpkg-deb", "--info", str(deb), "conffiles"], 0)
    assert f"/etc/{NAME}/environment\n" == control


def test_the_same_files_make_the_same_package(deb: Path, tmp_path: Path) -> None:
    """Two builds are the same byte for byte, so that anyone can verify a package against the sources."""
    zipapp = deb.parent / f"{NAME}.pyz"
    (again,) = build_packages(tmp_path, zipapp, "--deb")
    assert deb.read_bytes() == again.read_bytes()
