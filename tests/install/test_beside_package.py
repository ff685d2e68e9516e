"""install.sh and the packages recognize each other: neither removes anything of the other."""

from __future__ import annotations

from pathlib import Path

from tests.install.installation import NAME, Installation


def put_package(installation: Installation) -> Path:
    """How install.sh recognizes a package."""
    folder = installation.root / "usr/share" / NAME
    folder.mkdir(parents=True)
    return folder


def test_it_refuses_to_install_over_a_package(installation: Installation) -> None:
    """Its units would hide the package's, and two programs would use one spool."""
    put_package(installation)
    said = installation.run(expect=1)
    assert f"a package of {NAME} is installed: upgrade that, or remove it first" in said
    assert {} == installation.files()


def test_a_user_may_install_beside_a_package(installation: Installation) -> None:
    """All their files are in their home."""
    put_package(installation)
    installation.run("--user")


def test_purging_leaves_what_the_package_needs(installation: Installation) -> None:
    """The package owns configuration and spool now; install.sh removes its own files and names the next step."""
    installation.run()
    put_package(installation)
    said = installation.run("--purge")
    assert f"A package of {NAME} is installed, and keeps using /etc/{NAME}" in said
    assert (installation.etc / "config.toml").exists()
    assert installation.spool.is_dir()
    assert not installation.program.exists()
    assert [] == [path for path in installation.units.rglob("*") if path.is_file()]


def test_purging_removes_instances(installation: Installation) -> None:
    """What adapt has changed, and what an admin has edited and enabled, stays."""
    installation.run()
    made = [
        installation.etc / "physics/config.toml",
        installation.spool.with_name(f"{NAME}@physics") / "queue",
        installation.units / f"timers.target.wants/{NAME}-flush@physics.timer",
        installation.units / f"{NAME}@physics.service.d/slurm-user.conf",
        installation.root / f"etc/tmpfiles.d/{NAME}@physics.conf",
    ]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    installation.run("--purge")
    assert [] == [path for path in made if path.exists()]


def test_adapt_knows_the_places_of_install_sh(installation: Installation) -> None:
    """The hook that an instance calls, and the example that its configuration is based on."""
    installation.run("--prefix", "/apps")
    script = (installation.root / "apps" / NAME / "bin/adapt").read_text()
    assert f"\nHOOK=/apps/{NAME}/bin/jobcomp.sh\nEXAMPLE=/apps/{NAME}/config.toml.example\n" in script
