"""When root runs a command, no file of the Slurm user or anyone else gains anyone privileges."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Iterator

import pytest

from agent.privilege import name_of
from tests.support.dashboard import API_KEY, ReceivingDashboard
from tests.support.open_house import copy_exporter, find_python

SLURM, SLURM_GROUP = 65534, 65534  # nobody, who stands for the Slurm user
BOB = 65533

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has anything to lose")


class House:
    """A copy of the exporter that everybody can run, and the Slurm user's configuration and spool."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        copy_exporter(folder)
        self.folder = folder
        self.python = find_python(folder, SLURM)
        if not self.python:
            pytest.skip("there is no system Python from 3.8 on that another user can run")
        self.environ = {"PATH": os.environ["PATH"], "HOME": "/root"}
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
        """Writes a configuration in which every command is the attacker's."""
        keys = {"api_url": "http://127.0.0.1:9", "api_key": "k", "spool_dir": str(self.spool), "timeout": ""}
        keys.update({"sacct": str(self.evil), "scontrol": str(self.evil), **settings})
        self.config.write_text("".join(f'{key} = "{value}"\n' for key, value in keys.items() if value))
        self.config.chmod(0o600)
        os.chown(self.config, owner, owner)

    def run(self, *command: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        argv = [self.python, "-m", "agent", "--config", str(config or self.config), *command]
        return subprocess.run(argv, cwd=self.folder, env=self.environ, check=False, capture_output=True, text=True)

    @property
    def ran_as(self) -> set[str]:
        """Every uid, gid and set of groups that the attacker's commands ran with."""
        return set(self.trace.read_text().splitlines())


@pytest.fixture
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="root.", dir="/tmp") as name:
        yield House(Path(name))


COMMANDS = (["flush"], ["reconcile"], ["status"], ["check"], ["queue", "list"], ["queue", "add", "7"])


@pytest.mark.parametrize("spool", ["/no/such", "/root", "/", "", "{bob}"])
def test_commands_of_the_configuration_run_only_as_its_owner(house: House, spool: str) -> None:
    """This holds for a missing spool_dir, one of root's, and one of another user's."""
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
    """The message names the owner of each, and how to give them to one user."""
    os.chown(house.spool, 1, 1)
    house.configure()
    done = house.run("flush")
    words = f"the configuration {house.config} belongs to nobody, and the spool {house.spool} to daemon"
    assert (78, True) == (done.returncode, words in done.stderr)


@pytest.mark.parametrize("owner", [0, 1])
def test_check_continues_after_a_spool_of_another_user(house: House, owner: int) -> None:
    """It reports the spool, and tests everything else as the configuration's owner."""
    os.chown(house.spool, owner, owner)
    house.configure()
    done = house.run("check", "--json")
    assert "" == done.stderr
    findings = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    words = f"the configuration {house.config} belongs to nobody, and the spool {house.spool} to {name_of(owner)}"
    assert (words, True) == (findings["spool"]["text"], findings["configuration"]["ok"])
    assert {str(SLURM)} == house.ran_as


def test_a_key_file_of_root_is_not_read(house: House) -> None:
    """The key would be sent to the attacker's dashboard."""
    secret = house.folder / "secret"
    secret.write_text("root-secret\n")
    secret.chmod(0o600)
    with ReceivingDashboard() as dashboard:
        house.configure(api_url=dashboard.url, api_key="", api_key_file=str(secret))
        (house.spool / "queue").write_text("7\n")
        done = house.run("flush")
        assert (78, []) == (done.returncode, dashboard.requests)
    assert "api_key_file: cannot read it" in done.stderr


@pytest.mark.parametrize("key", ["metrics_file", "ca_bundle", "client_cert"])
def test_files_that_the_configuration_names_are_used_as_its_owner(house: House, key: str) -> None:
    """Files of root are neither read nor written."""
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
    """No command of it runs, whether the file, a folder above it or a link on the way can be changed."""
    house.configure(owner)
    spoil(house)
    done = house.run("flush")
    assert (78, set()) == (done.returncode, house.ran_as)
    assert "users other than root and " in done.stderr


def test_with_a_configuration_of_root_the_spools_owner_runs(house: House) -> None:
    """An admin may keep the Slurm user from changing the file. The groups are the user's, not the spool's."""
    os.chown(house.spool, SLURM, 0)
    house.configure(0)
    (house.spool / "queue").write_text("7\n")
    house.run("flush")
    assert house.ran_as == {str(SLURM)}


def test_a_spool_below_a_folder_of_another_user_is_refused(house: House) -> None:
    """That user could replace the folder, and root would run as the owner of the new one."""
    middle = house.folder / "bobs"
    middle.mkdir()
    house.spool.rename(middle / "spool")
    os.chown(middle, BOB, BOB)
    house.configure(0, spool_dir=str(middle / "spool"))
    done = house.run("flush")
    assert f"users other than root and nobody can change {middle}" in done.stderr
    assert set() == house.ran_as


@pytest.mark.parametrize("owner", [SLURM, 0], ids=["slurm's", "root's"])
@pytest.mark.parametrize("command", COMMANDS)
def test_root_creates_no_spool(house: House, owner: int, command: list[str]) -> None:
    """Another user's hook could not write there, and would not report it."""
    house.configure(owner)
    house.spool.rmdir()
    assert 0 != house.run(*command).returncode
    assert not house.spool.exists()


@pytest.mark.parametrize("kind", [Path.mkdir, os.mkfifo])
def test_a_configuration_that_is_not_a_file_blocks_nothing(house: House, kind: Callable[[Path], None]) -> None:
    """The command would hang on a FIFO."""
    kind(house.config)
    os.chown(house.config, SLURM, SLURM)
    done = house.run("flush")
    assert (78, True) == (done.returncode, "is not a regular file" in done.stderr)


def test_a_configuration_that_appears_after_roots_check_is_not_read(house: House) -> None:
    """Its owner creates it after root has looked up the owner, and before root reads it."""
    roots = house.folder / "roots"
    roots.mkdir(mode=0o750)
    (roots / "queue").write_text("7\n")
    os.chown(house.etc, SLURM, SLURM)
    house.configure(spool_dir=str(roots))  # not one of slurm's, as whose owner root would continue
    script = f"""
import pathlib, sys
sys.path.insert(0, {str(house.folder)!r})
from agent import call, cli
config = pathlib.Path({str(house.config)!r})
elsewhere = config.replace(config.with_name("elsewhere"))
def load_config(path, *rest, load=call.load_config, **options):
    elsewhere.replace(config)
    return load(path, *rest, **options)
call.load_config = load_config
raise SystemExit(cli.main(["--config", str(config), "flush"]))
"""
    done = subprocess.run([house.python, "-c", script], env=house.environ, check=False, capture_output=True, text=True)
    assert (78, set()) == (done.returncode, house.ran_as)
    assert f"cannot read the configuration {house.config}: No such file or directory" in done.stderr


def set_up(house: House, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Root runs setup with a key that only root can read."""
    key = house.folder / "key"
    key.write_text(f"{API_KEY}\n")
    key.chmod(0o600)
    return house.run("setup", "--api-url", url, "--api-key-file", str(key), "--yes", *options)


@pytest.mark.parametrize("folder_of", [0, SLURM], ids=["root's folder", "slurm's folder"])
def test_setup_renews_the_key_as_the_configurations_owner(house: House, folder_of: int) -> None:
    """In a folder of root's, where that owner can't write, as well as in one of his own."""
    os.chown(house.etc, folder_of, folder_of)
    house.configure(cluster_name="lab")
    with ReceivingDashboard() as dashboard:
        done = set_up(house, dashboard.url)
    assert 0 == done.returncode, done.stderr
    info = house.config.stat()
    assert (SLURM, 0o600, ["config.toml"]) == (
        info.st_uid,
        info.st_mode & 0o777,
        [path.name for path in house.etc.iterdir()],
    )
    assert f'api_key = "{API_KEY}"' in house.config.read_text()
    assert house.ran_as <= {str(SLURM)}


def test_a_new_configuration_belongs_to_the_spools_owner(house: House) -> None:
    """The request to the dashboard also ran as that user."""
    env = {"SLURM_USAGE_HISTORY_SPOOL": str(house.spool)}
    with ReceivingDashboard() as dashboard:
        house.environ.update(env)
        done = set_up(house, dashboard.url, "--cluster-name", "lab")
    assert (0, SLURM, 0o600) == (done.returncode, house.config.stat().st_uid, house.config.stat().st_mode & 0o777)


def test_setup_gives_no_file_of_root_to_anyone(house: House) -> None:
    """In a folder of slurm's, whatever setup makes there is replaced by a link to a file of root's, repeatedly."""
    victim = house.folder / "victim"
    victim.write_text("root's\n")
    victim.chmod(0o600)
    os.chown(house.etc, SLURM, SLURM)
    house.configure(cluster_name="lab")
    racer = f"""
import os
os.setgroups([]); os.setgid({SLURM_GROUP}); os.setuid({SLURM}); os.chdir({str(house.etc)!r})
while True:
    for name in os.listdir("."):
        if name.startswith("."):
            try:
                os.unlink(name); os.symlink({str(victim)!r}, name)
            except OSError:
                pass
"""
    process = subprocess.Popen([house.python, "-c", racer])
    try:
        with ReceivingDashboard() as dashboard:
            for _ in range(5):
                set_up(house, dashboard.url)
    finally:
        process.kill()
        process.wait()
    info = victim.stat()
    assert ("root's\n", 0, 0o600) == (victim.read_text(), info.st_uid, info.st_mode & 0o777)


def test_setup_writes_as_root_only_if_every_folder_on_the_way_is_roots(house: House) -> None:
    """A folder of root's in one of slurm's can be moved away, and a link put in its place, before root writes there."""
    os.chown(house.folder, SLURM, SLURM)
    house.configure(cluster_name="lab")
    with ReceivingDashboard() as dashboard:
        done = set_up(house, dashboard.url)
    assert (78, True) == (done.returncode, f"cannot write {house.config}: Permission denied" in done.stderr)


def test_memory_of_a_process_that_was_root_cannot_be_read(house: House) -> None:
    """The process holds root's terminal and the writer's connection: its new user can't trace it."""
    script = f"""
import ctypes, os, sys
sys.path.insert(0, {str(house.folder)!r})
from agent.errors import ConfigError
from agent.privilege import become
attacker = os.fork()
if attacker == 0:
    os.setgroups([]); os.setgid({SLURM_GROUP}); os.setuid({SLURM})
    os.execv({house.python!r}, ["python", "-c", '''
import ctypes, sys
sys.stdin.readline()
print(ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0))
''', str(os.getppid())])
become({SLURM}, "it", ConfigError)
print(os.getresuid(), os.getresgid(), os.getgroups())
print([line.split()[1] for line in open("/proc/thread-self/status") if line.startswith("Cap") and "Bnd" not in line])
sys.stdout.flush()
os.write({{pipe}}, b"go\\n")
os.wait()
"""
    reader, writer = os.pipe()
    done = subprocess.run(
        [house.python, "-c", script.replace("{pipe}", str(writer))],
        stdin=reader,
        capture_output=True,
        text=True,
        pass_fds=[writer],
        check=False,
        timeout=60,
    )
    os.close(reader)
    os.close(writer)
    ids, caps, traced = done.stdout.splitlines()
    assert (f"{(SLURM,) * 3} {(SLURM_GROUP,) * 3} [{SLURM_GROUP}]", "-1") == (ids, traced), done.stderr
    assert {"0" * 16} == set(ast.literal_eval(caps))
