"""Several hosts on one machine: each is a process tree in namespaces of its own, and a switch connects them.

A host has its own name, address, process ids, /run, /etc/hosts, /var/spool and /var/log. The last two survive a power
loss; /tmp and everything else is the machine's. Nothing is added to the machine's own network, mounts or /etc, and
the kernel ends every process of a host with the :class:`Lan`, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Callable, Mapping, TypeVar

from tests.support.slurm import PATH
from tests.support.waiting import wait_for

T = TypeVar("T")

NETWORK = "10.77.0"  # for these namespaces only
FORBIDDEN = "the kernel forbids namespaces here"
CLONE_NEWNET = 0x40000000  # linux/sched.h
_INIT = Path(__file__).with_name("host.sh")
_NAMESPACES = ("--mount", "--uts", "--net", "--pid", "--ipc")
_SWITCH = """
ip link set lo up && ip link add br0 type bridge && ip link set br0 up && mount -t tmpfs tmpfs /run || exit
read -r outside _ </proc/self/stat; echo $outside
exec env --ignore-signal=CHLD cat # ends when the tests do
"""


def why_not_here() -> str:
    """Why this machine cannot run hosts; empty if it can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    missing = [name for name in ("unshare", "nsenter", "ip") if not shutil.which(name, path=PATH)]
    if missing:
        return f"not installed: {', '.join(missing)} (tests/support/provision.sh installs them)"
    return _what_the_kernel_forbids()


def _what_the_kernel_forbids() -> str:
    attempt = "mount -t tmpfs tmpfs /run && mount -t proc proc /proc && ip link add br0 type bridge"
    attempt += " && ip link add dev wire0 type veth peer name wire1 && hostname somebody"
    done = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "sh", "-c", attempt], capture_output=True, text=True, check=False
    )
    return f"{FORBIDDEN}: {done.stderr.strip()}" if done.returncode else ""


class HostError(RuntimeError):
    """A command failed on a host."""


class Lan:
    """A switch in a network namespace, and a folder shared by the hosts. Use it in a ``with``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-hosts-"))
        self.folder.chmod(0o755)
        self.hosts: dict[str, Host] = {}
        self.addresses = self.folder / "hosts"
        self.addresses.write_text("127.0.0.1 localhost\n")
        self._switch = subprocess.Popen(
            ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", _SWITCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._switch.stdout
        self.pid = int(self._switch.stdout.readline())

    def __enter__(self) -> Lan:
        return self

    def __exit__(self, *_: object) -> None:
        self._switch.communicate()
        for host in self.hosts.values():
            host.close()
        shutil.rmtree(self.folder)

    def add(self, name: str, number: int, env: Mapping[str, str]) -> Host:
        """Boots a new host, which all others can reach by its name."""
        with self.addresses.open("a") as file:
            file.write(f"{NETWORK}.{number} {name}\n")
        host = self.hosts[name] = Host(self, name, number, env)
        host.boot()
        return host

    def ip(self, *arguments: str) -> None:
        """Changes the network: runs ``ip`` in the switch's namespace."""
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--net", "ip", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise HostError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Host:
    """One host, created by :meth:`Lan.add`.

    :param env: the environment of its processes.
    """

    def __init__(self, lan: Lan, name: str, number: int, env: Mapping[str, str]) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self.disk = lan.folder / name
        self.disk.mkdir()
        self.env = {"PATH": PATH, "LC_ALL": "C.UTF-8", **env}
        self._lan = lan
        self._init: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process ID of its process 1 on this machine."""
        return int((self.disk / "pid").read_text())

    def boot(self) -> None:
        """Powers it on, and connects it to the switch."""
        with (self.disk / "boot.log").open("ab") as log:
            self._init = subprocess.Popen(
                [
                    *("nsenter", f"--target={self._lan.pid}", "--pid", "--net"),
                    *("unshare", *_NAMESPACES, "--fork", "--propagation", "private"),
                    *("sh", str(_INIT), self.name, str(self.disk), str(self._lan.addresses)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for((self.disk / "pid").exists, f"{self.name} boots", pause_seconds=0.02)
        self._lan.ip("link", "add", f"v-{self.name}", "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        self._lan.ip("link", "set", f"v-{self.name}", "master", "br0", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def power_off(self) -> None:
        """Kills all its processes at once."""
        os.kill(self.pid, signal.SIGKILL)
        self.close()
        # The kernel removes the network cable shortly after the last process.
        wait_for(self._is_unplugged, f"{self.name} is off")

    def close(self) -> None:
        """Waits until its process 1 has ended."""
        if self._init:
            self._init.wait()
            self._init = None
            (self.disk / "pid").unlink()

    def argv(self, *argv: str, folder: str = "/") -> list[str]:
        """The command line that runs a command on the host."""
        pid = self.pid
        return [
            *("nsenter", f"--target={pid}", *_NAMESPACES, f"--root=/proc/{pid}/root"),
            *("env", "-i", "-C", folder, *(f"{name}={value}" for name, value in self.env.items())),
            *argv,
        ]

    def run(self, *argv: str, folder: str = "/", limit_seconds: float = 100) -> str:
        """Runs a command on the host and returns what it printed.

        :raises HostError: if it does not exit 0 in time.
        """
        done = self.attempt(*argv, folder=folder, limit_seconds=limit_seconds)
        if done.returncode:
            raise HostError(
                f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {done.stdout}{done.stderr}".strip()
            )
        return done.stdout

    def attempt(self, *argv: str, folder: str = "/", limit_seconds: float = 100) -> subprocess.CompletedProcess[str]:
        """Runs a command that may fail; one that takes too long ends with 137, like a killed one."""
        limited = ("timeout", "--signal=KILL", str(limit_seconds), *argv)
        return subprocess.run(
            self.argv(*limited, folder=folder),
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
        )

    def start(self, *argv: str, log: str, folder: str = "/") -> subprocess.Popen[bytes]:
        """Starts a command on the host and leaves it running; its output goes to /var/log/``log`` there."""
        with (self.disk / "log" / log).open("ab") as file:
            return subprocess.Popen(
                self.argv(*argv, folder=folder),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def kill(self, pid_file: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Signals the process whose ID is in a file on the host."""
        self.attempt("sh", "-c", f"kill -{how.value} $(cat {pid_file})")

    def log(self, name: str) -> str:
        """A file in its /var/log; empty if it does not exist."""
        path = self.disk / "log" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def in_network(self, make: Callable[[], T]) -> T:
        """Calls a function in the host's network, for example to open a socket there.

        Each thread has its own network namespace, so a new thread enters the host's.
        """
        made: list[T] = []

        def work() -> None:
            with Path(f"/proc/{self.pid}/ns/net").open("rb") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return made[0]

    def _is_unplugged(self) -> bool:
        try:
            self._lan.ip("link", "show", f"v-{self.name}")
        except HostError:
            return True
        return False


if __name__ == "__main__":
    print(why_not_here() or "hosts are possible here")
    sys.exit(bool(why_not_here()))
