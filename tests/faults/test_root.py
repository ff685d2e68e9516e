"""Root works with files of others: what the Slurm user, or anybody, has written there gets nobody any further."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.support.dashboard import ReceivingDashboard
from tests.support.open_house import copy_exporter, find_python

SLURM, SLURM_GROUP = 65534, 65534  # nobody, who stands for the Slurm user
BOB = 65533

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has anything to lose")


class House:
    """A copy of the exporter that everybody can run, a configuration and a spool of the Slurm user's."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        copy_exporter(folder)
        self.folder = folder
        self.python = find_python(folder, SLURM)
        if not self.python:
            pytest.skip("there is no system Python from 3.8 on that another user can run")
        self.etc, self.spool = folder / "etc", folder / "spool"
        self.etc.mkdir()
        self.spool.mkdir(mode=0o750)
        os.chown(self.spool, SLURM, SLURM_GROUP)
        self.config = self.etc / "config.toml"
        self.trace = folder / "trace"
        self.trace.touch()
        self.trace.chmod(0o666)
        self.evil = folder / "evil"
        self.evil.write_text(f"#!/bin/sh\nid -u >>{self.trace}; id -g >>{self.trace}; id -G >>{self.trace}; exit 1\n")
        self.evil.chmod(0o755)

    def configure(self, owner: int = SLURM, /, **settings: str) -> None:
        """Writes the configuration, whose every command is one of the attacker's."""
        keys = {"api_url": "http://127.0.0.1:9", "api_key": "k", "spool_dir": str(self.spool), "timeout": ""}
        keys.update({"sacct": str(self.evil), "scontrol": str(self.evil), **settings})
        self.config.write_text("".join(f'{key} = "{value}"\n' for key, value in keys.items() if value))
        self.config.chmod(0o600)
        os.chown(self.config, owner, owner)

    def run(self, *command: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        argv = [self.python, "-m", "agent", "--config", str(config or self.config), *command]
        env = {"PATH": os.environ["PATH"], "HOME": "/root"}
        return subprocess.run(argv, cwd=self.folder, env=env, check=False, capture_output=True, text=True)

    @property
    def ran_as(self) -> set[str]:
        """Every uid, gid and set of groups that the attacker's commands have run with."""
        return set(self.trace.read_text().splitlines())


@pytest.fixture
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="root.", dir="/tmp") as name:
        yield House(Path(name))


COMMANDS = (["flush"], ["reconcile"], ["status"], ["check"], ["queue", "list"], ["queue", "add", "7"])


@pytest.mark.parametrize("spool", ["/no/such", "/root", "/", "", "{bob}"])
def test_commands_of_the_configuration_never_run_as_anybody_but_its_owner(house: House, spool: str) -> None:
    """Wherever spool_dir leads: nowhere, to root's, to another user's."""
    bob = house.folder / "bob"
    bob.mkdir()
    os.chown(bob, BOB, BOB)
    house.configure(spool_dir=spool.format(bob=bob) or str(house.spool))
    for command in COMMANDS:
        house.run(*command)
    house.run("setup", "--api-url", "http://127.0.0.1:9", "--api-key-file", "/etc/hostname", "--yes")
    assert house.ran_as <= {str(SLURM)}
    assert [] == list(bob.iterdir())


def test_a_configuration_and_a_spool_of_two_users_are_refused(house: House) -> None:
    """It says whose each is, and how to make them one user's."""
    os.chown(house.spool, 1, 1)
    house.configure()
    done = house.run("flush")
    words = f"the configuration {house.config} belongs to nobody, and the spool {house.spool} to daemon"
    assert (78, True) == (done.returncode, words in done.stderr)


def test_a_key_file_of_roots_is_not_read(house: House) -> None:
    """It would be posted to the attacker's dashboard."""
    secret = house.folder / "secret"
    secret.write_text("root-secret\n")
    secret.chmod(0o600)
    with ReceivingDashboard() as dashboard:
        house.configure(api_url=dashboard.url, api_key="", api_key_file=str(secret))
        (house.spool / "queue").write_text("7\n")
        done = house.run("flush")
        assert (78, []) == (done.returncode, dashboard.requests)
    assert "api_key_file: cannot be read" in done.stderr


@pytest.mark.parametrize("key", ["metrics_file", "ca_bundle", "client_cert"])
def test_files_that_the_configuration_names_are_used_as_its_owner(house: House, key: str) -> None:
    """root's are neither read nor written."""
    victim = house.folder / "rooms"
    victim.mkdir(mode=0o700)
    (victim / "file").write_text("root's\n")
    house.configure(**{key: str(victim / "file")})
    for command in COMMANDS:
        house.run(*command)
    assert ("root's\n", 1) == ((victim / "file").read_text(), len(list(victim.iterdir())))


def by_mode(house: House) -> None:
    house.etc.chmod(0o777)


def by_owner(house: House) -> None:
    os.chown(house.etc, BOB, BOB)


def by_group(house: House) -> None:
    os.chown(house.etc, 0, BOB)
    house.etc.chmod(0o775)


def by_a_parent(house: House) -> None:
    os.chown(house.folder, BOB, BOB)


def by_the_file(house: House) -> None:
    house.config.chmod(0o666)


def by_a_link(house: House) -> None:
    bobs = house.folder / "bobs"
    bobs.mkdir()
    house.config.rename(bobs / "config.toml")
    (house.config).symlink_to(bobs / "config.toml")
    os.chown(bobs, BOB, BOB)


def by_the_link_itself(house: House) -> None:
    house.config.rename(house.etc / "real.toml")
    house.config.symlink_to("real.toml")
    os.chown(house.config, BOB, BOB, follow_symlinks=False)


@pytest.mark.parametrize(
    "spoil", [by_mode, by_owner, by_group, by_a_parent, by_the_file, by_a_link, by_the_link_itself]
)
@pytest.mark.parametrize("owner", [SLURM, 0], ids=["slurm's", "root's"])
def test_a_configuration_that_a_third_user_can_change_is_refused(
    house: House, spoil: Callable[[House], None], owner: int
) -> None:
    """By the folder, by a folder above it, by the file, or by a link on the way: no command of it runs."""
    house.configure(owner)
    spoil(house)
    done = house.run("flush")
    assert (78, set()) == (done.returncode, house.ran_as)
    assert "can be changed by others than root and" in done.stderr


def test_a_configuration_of_roots_with_a_spool_of_slurms_runs_as_slurm(house: House) -> None:
    """As where an admin keeps slurm from changing it. The groups are the user's own, not those of the spool."""
    os.chown(house.spool, SLURM, 0)
    house.configure(0)
    (house.spool / "queue").write_text("7\n")
    house.run("flush")
    assert house.ran_as == {str(SLURM)}


def test_a_spool_below_a_folder_of_another_user_is_refused(house: House) -> None:
    """He could put another folder in its place, and have root become whoever owns that."""
    middle = house.folder / "bobs"
    middle.mkdir()
    house.spool.rename(middle / "spool")
    os.chown(middle, BOB, BOB)
    house.configure(0, spool_dir=str(middle / "spool"))
    done = house.run("flush")
    assert f"{middle} can be changed by others than root and nobody" in done.stderr
    assert set() == house.ran_as


@pytest.mark.parametrize("owner", [SLURM, 0], ids=["slurm's", "root's"])
@pytest.mark.parametrize("command", COMMANDS)
def test_root_makes_no_spool(house: House, owner: int, command: list[str]) -> None:
    """The hook of another user could not write there, and would be silent about it."""
    house.configure(owner)
    house.spool.rmdir()
    assert 0 != house.run(*command).returncode
    assert not house.spool.exists()


@pytest.mark.parametrize("kind", [Path.mkdir, os.mkfifo])
def test_a_configuration_that_is_no_file_holds_nobody_up(house: House, kind: Callable[[Path], None]) -> None:
    """A FIFO would be waited for."""
    kind(house.config)
    os.chown(house.config, SLURM, SLURM)
    done = house.run("flush")
    assert (78, True) == (done.returncode, "is no file" in done.stderr)
