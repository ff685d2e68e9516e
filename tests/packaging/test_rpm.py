"""The RPM, installed by Debian's own rpm into a root folder: scripts, files, ownership, upgrade, downgrade, removal.

EL and SUSE are not available. What is simulated: the packages that they provide, and that EL 8's python3 is 3.6
with a python3.12 beside it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from tests.install.installation import CHECKOUT, NAME
from tests.packaging.building import VERSION, build_packages, build_zipapp
from tests.packaging.root import Root, finish
from tests.support.tools import need

ADAPT = f"/usr/libexec/{NAME}/adapt"
SPOOL = f"/var/spool/{NAME}"
CONFIG = f"/etc/{NAME}/config.toml"
#: What a distribution provides of the package's requirements.
DISTRIBUTION = """\
Name: distribution
Version: 1
Release: 1
Summary: Stands for what a distribution provides
License: none
BuildArch: noarch
Provides: /bin/sh coreutils sed util-linux {provides}
%description
%files
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The RPM in the releases 1 and 2, and the source RPM as release src."""
    need("rpmbuild")
    folder = tmp_path_factory.mktemp("rpms")
    zipapp = build_zipapp(folder)
    for release in ("1", "2"):
        build_packages(folder, zipapp, "--rpm", "--release", release)
    found = {release: folder / f"{NAME}-{VERSION}-{release}.noarch.rpm" for release in ("1", "2")}
    return {**found, "src": folder / f"{NAME}-{VERSION}-1.src.rpm"}


@pytest.fixture(scope="module")
def root() -> Iterator[Root]:
    """The root folder that the tests of this file share, in the order of an admin's work."""
    need("rpm")
    with Root() as root:
        yield root


def provide(root: Root, folder: Path, *provides: str) -> None:
    """Installs a package that simulates the distribution."""
    spec = folder / "distribution.spec"
    spec.write_text(DISTRIBUTION.format(provides=" ".join(provides)))
    finish(["rpmbuild", "-bb", "--quiet", f"--define=_topdir {folder}", str(spec)], 0)
    (made,) = folder.glob("RPMS/noarch/*.rpm")
    root.rpm("-Uvh", "--force", str(made))


def owner_and_mode(root: Root, path: str) -> str:
    return root.run("stat", "-c", "%U:%G %a", path).strip()


@pytest.mark.parametrize(
    ("provides", "missing"),
    [
        ("python3=3.6.8", True),
        ("python3=3.6.8 python3.12=3.12.1", False),
        ("python3=3.9.18", False),
        ("python3=3.6.15 python311=3.11.5", False),
    ],
    ids=["EL 8", "EL 8 with python3.12", "EL 9", "SUSE 15 with python311"],
)
def test_the_package_requires_a_suitable_python(
    rpms: dict[str, Path], tmp_path: Path, provides: str, missing: bool
) -> None:
    """The RPM requires no Python by name: the distribution's own if it is new enough, otherwise another one."""
    with Root() as root:
        provide(root, tmp_path, *[word.replace("=", " = ") for word in provides.split()])
        said = root.rpm("--test", "-Uvh", str(rpms["1"]), expect=1 if missing else 0)
        assert missing == ("python3.12" in said), said


def test_it_needs_no_slurm_package(rpms: dict[str, Path]) -> None:
    """The RPM does not require Slurm, which sites build under many names."""
    assert "slurm" not in finish(["rpm", "-qp", "--requires", str(rpms["1"])], 0).replace(NAME, "")


def test_installing_gives_the_spool_to_the_slurm_user(root: Root, rpms: dict[str, Path], tmp_path: Path) -> None:
    """Everything else is root's, and `rpm -V` finds no difference."""
    provide(root, tmp_path, "python3 = 3.11")
    said = root.rpm("-Uvh", str(rpms["1"]))
    assert "no user" not in said
    assert "warning" not in said
    assert "slurm:slurm 750" == owner_and_mode(root, SPOOL)
    assert "slurm:slurm 600" == owner_and_mode(root, CONFIG)
    assert "root:root 755" == owner_and_mode(root, f"/usr/libexec/{NAME}/jobcomp.sh")
    assert "" == root.rpm("-V", NAME)
    assert f"{NAME} {VERSION}\n" == root.run(NAME, "--version")


def test_the_slurm_user_can_run_it(root: Root, rpms: dict[str, Path]) -> None:
    """The command works, and `check` reports the example's key."""
    said = root.run("runuser", "-u", "slurm", "--", NAME, "check", expect=1)
    assert "still has the example's API key" in said


def test_several_controllers_share_a_folder(root: Root, rpms: dict[str, Path]) -> None:
    """For a pair, the Slurm user creates the shared folder and the sandbox allows it; for one controller, neither."""
    folder = f"/var/lib/state/{NAME}"
    drop_ins = [f"etc/systemd/system/{service}.service.d/controllers.conf" for service in (NAME, f"{NAME}-flush")]
    root.run("install", "-d", "-o", "slurm", "-m", "700", "/var/lib/state")
    conf = root.path / "etc/slurm/slurm.conf"
    conf.parent.mkdir(exist_ok=True)
    before = conf.read_text() if conf.exists() else ""
    conf.write_text(
        "ClusterName=lab\nSlurmctldHost=one\nSlurmctldHost=two(192.0.2.2)\nStateSaveLocation=/var/lib/state\n"
    )
    root.run(ADAPT)
    assert "slurm:slurm 700" == owner_and_mode(root, folder)
    for drop_in in drop_ins:
        assert (root.path / drop_in).read_text().endswith(f"[Service]\nReadWritePaths=-{folder}\n")
    conf.write_text("ClusterName=lab\nSlurmctldHost=one\nStateSaveLocation=/var/lib/state\n")
    root.run(ADAPT)
    assert [] == [drop_in for drop_in in drop_ins if (root.path / drop_in).parent.exists()]
    root.run("rm", "-r", "/var/lib/state")
    conf.write_text(before)


def test_the_sites_changes_are_kept(root: Root, rpms: dict[str, Path]) -> None:
    """Upgrade and downgrade keep the configuration, the services' environment and the files in the spool."""
    (root.path / "etc" / NAME / "environment").write_text("HTTPS_PROXY=http://proxy\n")
    with (root.path / CONFIG.lstrip("/")).open("a") as config:
        config.write("# the site's own line\n")
    (root.path / SPOOL.lstrip("/") / "queue").write_text("1 - - -\n")
    for release, options in (("2", ["-Uvh"]), ("1", ["-Uvh", "--oldpackage"])):
        root.rpm(*options, str(rpms[release]))
        assert f"{NAME}-{VERSION}-{release}.noarch\n" == root.rpm("-q", NAME)
        assert "HTTPS_PROXY=http://proxy\n" == (root.path / "etc" / NAME / "environment").read_text()
        assert (root.path / CONFIG.lstrip("/")).read_text().endswith("# the site's own line\n")
        assert "1 - - -\n" == (root.path / SPOOL.lstrip("/") / "queue").read_text()
        assert "slurm:slurm 600" == owner_and_mode(root, CONFIG)
        assert "slurm:slurm 750" == owner_and_mode(root, SPOOL)
        changed = [line.split()[-1] for line in root.rpm("-V", NAME, expect=None).splitlines()]
        assert [f"/etc/{NAME}/environment"] == changed


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("/etc/slurm/slurm.conf", "JobCompLoc={hook}", True),
        ("/etc/slurm/slurm.conf", "JobCompType=jobcomp/script jobcomploc = {hook}", True),
        ("/etc/slurm/conf.d/jobs.conf", 'EpilogSlurmctld="/a/b,{hook}"', True),
        ("/etc/slurm/slurm.conf", "JobCompLoc=/etc/{name}/physics/jobcomp.sh", True),
        ("/srv/second/slurm.conf", "JobCompLoc=/etc/{name}/second/jobcomp.sh", True),
        ("/srv/site/jobs.inc", "JobCompLoc={hook}", True),
        ("/etc/slurm/jobs.inc", "JobCompLoc={hook}", True),
        ("/etc/slurm/slurm.conf", "#JobCompLoc={hook}", False),
        ("/etc/slurm/slurm.conf", "JobCompLoc=/opt/{name}/bin/jobcomp.sh", False),
        ("/etc/slurm/slurm.conf.old", "JobCompLoc={hook}", False),
        ("/etc/slurm/call-both.sh", "hook={hook}", False),
    ],
)
def test_the_package_stays_while_a_slurm_conf_names_a_hook(
    root: Root, rpms: dict[str, Path], file: str, text: str, named: bool
) -> None:
    """The RPM cannot be erased while slurm.conf names the hook: from 24.11 on, slurmctld would not start."""
    second = root.path / "etc" / NAME / "second/environment"
    second.parent.mkdir(exist_ok=True)
    second.write_text("SLURM_CONF=/srv/second/slurm.conf\n")
    including = root.path / "etc/slurm/including.conf"
    including.parent.mkdir(exist_ok=True)
    including.write_text('Include /srv/site/jobs.inc # the site\'s\n  include "jobs.inc"\n')
    conf = root.path / file.lstrip("/")
    conf.parent.mkdir(parents=True, exist_ok=True)
    before = conf.read_text() if conf.exists() else None
    conf.write_text(text.format(hook=f"/usr/libexec/{NAME}/jobcomp.sh", name=NAME) + "\n")
    try:
        said = root.run(f"/usr/libexec/{NAME}/unwired", expect=1 if named else 0)
        assert named == (f"start again:\n{file}\n" in said), said
        if named:
            assert "still names the hook" in root.rpm("-e", NAME, expect=1)
        assert f"{NAME}-{VERSION}-1.noarch\n" == root.rpm("-q", NAME)
    finally:
        conf.unlink() if before is None else conf.write_text(before)
        shutil.rmtree(second.parent)
        including.unlink()


def test_erasing_leaves_the_key_and_the_queue(root: Root, rpms: dict[str, Path]) -> None:
    """Erasing keeps configuration and spool, and says so; nothing else remains."""
    said = root.rpm("-e", NAME)
    assert f"Kept: /etc/{NAME} and {SPOOL}" in said
    found = root.run("find", "/", "-xdev", "-name", f"*{NAME}*", "-not", "-path", "/proc/*").split()
    assert {f"/etc/{NAME}", SPOOL, f"/etc/tmpfiles.d/{NAME}.conf"} == set(found)
    left = sorted(path.name for path in (root.path / "etc" / NAME).iterdir())
    assert ["config.toml", "environment.rpmsave"] == left
    assert (root.path / SPOOL.lstrip("/") / "queue").exists()


def test_with_the_earlier_exporters_configuration_no_other_is_created(root: Root, rpms: dict[str, Path]) -> None:
    """An earlier exporter's config.json gets no config.toml beside it, which would take precedence."""
    folder = root.path / "etc" / NAME
    (folder / "config.toml").unlink()
    (folder / "config.json").write_text('{"api_url": "https://dashboard.example.com", "api_key": "key"}')
    root.rpm("-Uvh", str(rpms["1"]))
    assert ["config.json", "environment", "environment.rpmsave"] == sorted(path.name for path in folder.iterdir())
    assert "slurm:slurm 600" == owner_and_mode(root, f"/etc/{NAME}/config.json")
    root.rpm("-e", NAME)


def test_an_installation_by_install_sh_is_reported(root: Root, rpms: dict[str, Path]) -> None:
    """install.sh's installation is reported with how to remove it; erasing the package stops none of its units."""
    (root.path / "opt" / NAME / "venv").mkdir(parents=True)
    wants = root.path / "etc/systemd/system/timers.target.wants"
    wants.mkdir(exist_ok=True)
    unit = root.path / f"etc/systemd/system/{NAME}.timer"
    unit.write_text("[Timer]\nOnCalendar=daily\n")
    (wants / unit.name).symlink_to(f"/etc/systemd/system/{unit.name}")
    said = root.rpm("-Uvh", str(rpms["1"]))
    assert "install.sh has installed it as well; those units and that command take precedence." in said
    assert f"/opt/{NAME}/install.sh --uninstall" in said
    root.rpm("-e", NAME)
    assert (wants / unit.name).is_symlink()
    for path in (wants / unit.name, unit):
        path.unlink()
    (root.path / "opt" / NAME / "venv").rmdir()


def test_the_python3_of_el_8_is_skipped(root: Root, rpms: dict[str, Path]) -> None:
    """As on EL 8, where python3 is 3.6 through /etc/alternatives, python3.12 is used."""
    binaries = root.path / "usr/bin"
    real = next(binaries.glob("python3.1[0-9]"))
    shutil.copy(real, binaries / "python3.12")
    for old in ("python3", real.name):
        (binaries / old).rename(binaries / f"{old}.away")
    (binaries / "python3.6").write_text("#!/bin/sh\necho 'this is Python 3.6' >&2\nexit 1\n")
    (binaries / "python3.6").chmod(0o755)
    (root.path / "etc/alternatives").mkdir(exist_ok=True)
    (root.path / "etc/alternatives/python3").symlink_to("/usr/bin/python3.6")
    (binaries / "python3").symlink_to("/etc/alternatives/python3")
    root.rpm("-Uvh", str(rpms["1"]))
    assert f"{NAME} {VERSION}\n" == root.run(NAME, "--version")
    (binaries / "python3.12").unlink()
    assert "needs Python 3.8 or later in /usr/bin" in root.run(NAME, "--version", expect=1)
    root.rpm("-e", NAME)
    (binaries / "python3").unlink()
    for old in ("python3", real.name):
        (binaries / f"{old}.away").rename(binaries / old)


def test_adapt_completes_an_installation_before_slurm(root: Root, rpms: dict[str, Path]) -> None:
    """The package can be installed before Slurm, as in an image."""
    shutil.copy(root.path / "etc/passwd", root.path / "root/passwd")
    root.run("sed", "-i", "s/^slurm:/later:/", "/etc/passwd")
    root.run("rm", "-rf", SPOOL, f"/etc/{NAME}", f"/etc/tmpfiles.d/{NAME}.conf")
    said = root.rpm("-Uvh", str(rpms["1"]))
    assert f"There is no user slurm yet. Once Slurm is installed, run: sudo {ADAPT}" in said
    assert "root:root 750" == owner_and_mode(root, SPOOL)
    shutil.copy(root.path / "root/passwd", root.path / "etc/passwd")
    assert "" == root.run(ADAPT)
    assert "slurm:slurm 750" == owner_and_mode(root, SPOOL)
    assert "" == root.rpm("-V", NAME)


READ_ONLY_ETC = 'mount --bind /etc /etc && mount -o remount,ro,bind /etc && exec "$0" "$@"'


def run_with_read_only_etc(root: Root, *argv: str, expect: int = 0) -> str:
    return root.run("unshare", "--mount", "sh", "-c", READ_ONLY_ETC, *argv, expect=expect)


def test_an_image_with_a_read_only_etc_needs_only_var(root: Root, rpms: dict[str, Path]) -> None:
    """adapt made /etc right when the image was built; on the host it makes what /var lacks, and writes nothing else."""
    root.run(ADAPT, "physics")
    root.run("rm", "-rf", SPOOL, f"{SPOOL}@physics", f"/var/cache/{NAME}")
    run_with_read_only_etc(root, ADAPT)
    run_with_read_only_etc(root, ADAPT, "physics")
    for spool in (SPOOL, f"{SPOOL}@physics"):
        assert "slurm:slurm 750" == owner_and_mode(root, spool)
    assert "cli." in root.run("find", f"/var/cache/{NAME}", "-name", "*.pyc")


def test_what_a_read_only_etc_lacks_is_reported(root: Root, rpms: dict[str, Path]) -> None:
    """The error says what to do, and nothing is left half created."""
    said = run_with_read_only_etc(root, ADAPT, "chemistry", expect=1)
    assert "Read-only file system" in said
    assert f"Run {ADAPT} chemistry again once that is possible" in said
    assert not (root.path / f"{SPOOL}@chemistry".lstrip("/")).exists()
    root.run("rm", "-r", f"/etc/{NAME}/physics", f"{SPOOL}@physics", f"/etc/tmpfiles.d/{NAME}@physics.conf")


@pytest.mark.parametrize(
    "name", ["", "..", "../etc", "a b", "-x", "a/b", "ä", "a.b", "a@b", "%i", r"a\x2db", "a\n", "environment", "a" * 65]
)
def test_an_instance_is_named_with_plain_letters(root: Root, rpms: dict[str, Path], name: str) -> None:
    """No name of an instance creates a folder elsewhere; an empty one means the host itself."""

    def everything() -> set[Path]:
        return {path for folder in ("etc", "var/spool") for path in (root.path / folder).rglob("*")}

    before = everything()
    root.run(ADAPT, name, expect=2 if name else 0)
    assert before == everything()


def test_the_source_rpm_builds_again_without_a_network(rpms: dict[str, Path], tmp_path: Path) -> None:
    """The source RPM builds the same files again, as in mock, koji or on a site's own build host."""
    rebuild = ["unshare", "--net", "rpmbuild", "--rebuild", "--quiet", f"--define=_topdir {tmp_path}"]
    finish([*rebuild, str(rpms["src"])], 0)
    (again,) = tmp_path.glob("RPMS/noarch/*.rpm")
    dump = ["rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEDIGESTS} %{FILEMODES:perms}\\n]"]
    assert finish([*dump, str(rpms["1"])], 0) == finish([*dump, str(again)], 0)


def test_the_same_files_make_the_same_rpms(rpms: dict[str, Path]) -> None:
    """The packages are identical byte for byte: rpm records no build folder."""
    for rpm in rpms.values():
        assert "/tmp/" not in finish(["rpm", "-qp", "--xml", str(rpm)], 0).partition('<rpmTag name="Spec">')[2]


def test_rpmlint_finds_nothing_that_is_not_explained(rpms: dict[str, Path]) -> None:
    """rpmlint finds nothing; each exception is listed in etc/packaging/rpm/rpmlint.toml, with its reason."""
    need("rpmlint")
    settings = CHECKOUT / "etc/packaging/rpm/rpmlint.toml"
    said = finish(["rpmlint", "-c", str(settings), str(rpms["1"]), str(rpms["src"])], 0)
    assert "0 errors, 0 warnings" in said, said


def test_the_sums_are_of_the_files(rpms: dict[str, Path]) -> None:
    """SHA256SUMS lists the packages, for a site with its own repository."""
    folder = rpms["1"].parent
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], check=True, cwd=folder)
    summed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert {path.name for path in folder.glob("*.rpm")} <= summed
