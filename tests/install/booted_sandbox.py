"""The services' sandbox against its own user: code in flush.service, and another process of the Slurm user's.

Run by `make test-install`, on the systemd of Debian 12, and on that of Debian 13, which knows PrivatePIDs=.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import pytest

from tests.install.installation import CHECKOUT, NAME
from tests.install.machine import Machine

pytestmark = pytest.mark.timeout(600)

#: Tries to change a byte of another process, in each way that the kernel offers, and prints which ones worked.
ATTACK = r"""
import ctypes, json, os, sys
pid, address = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
def tried(call):
    try:
        return bool(call())
    except OSError:
        return False
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
def by_vector():
    byte = ctypes.create_string_buffer(b"X", 1)
    ours, theirs = Vector(ctypes.addressof(byte), 1), Vector(address, 1)
    return libc.process_vm_writev(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) == 1
def by_mem():
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        return memory.write(b"X") == 1
def by_ptrace():
    return libc.ptrace(16, pid, 0, 0) == 0
def by_file():
    number = libc.syscall(434, pid, 0)  # pidfd_open
    return number >= 0 and libc.syscall(438, number, 0, 0) >= 0  # pidfd_getfd
seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
found = {name: tried(call) for name, call in
         (("vector", by_vector), ("mem", by_mem), ("ptrace", by_ptrace), ("file", by_file))}
found["seen"] = pid in seen
found["etc"] = tried(lambda: open("/etc/by-the-service", "w"))
print("RESULT " + json.dumps(found))
"""
#: Another process of the Slurm user's, which prints its process ID and the address of a byte.
VICTIM = """
import ctypes, os, time
byte = ctypes.create_string_buffer(b"A", 1)
with open("/tmp/victim", "w") as file:
    file.write(f"{os.getpid()} {ctypes.addressof(byte)}")
time.sleep(3000)
"""


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path, request.param) as machine:
        yield machine


def attack(machine: Machine, unit: str) -> dict[str, bool]:
    """What code can do in the project's unit with another command."""
    pid, address = machine.run("cat", "/tmp/victim").split()
    text = (CHECKOUT / "etc/systemd" / unit).read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("ExecStart=", "PrivateTmp="))]
    lines.insert(lines.index("[Service]") + 1, f"ExecStart=/usr/bin/python3 /usr/local/attack.py {pid} {address}")
    machine.write(f"/etc/systemd/system/{unit}", "\n".join(lines))
    machine.run("install", "-d", "-o", "slurm", f"/var/spool/{NAME}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", unit)
    said = machine.run("journalctl", "--unit", unit, "--output", "cat")
    (result,) = [line[7:] for line in said.splitlines() if line.startswith("RESULT ")]
    found: dict[str, bool] = json.loads(result)
    return found


@pytest.mark.parametrize("unit", [f"{NAME}-flush.service", f"{NAME}.service"])
def test_code_in_a_service_cannot_change_another_process_of_its_user(machine: Machine, unit: str) -> None:
    """No system call can; /proc can with systemd older than 257, which is documented."""
    machine.write("/usr/local/attack.py", ATTACK)
    machine.write("/usr/local/victim.py", VICTIM)
    machine.run("systemd-run", "--quiet", "--uid=slurm", "--unit=victim", "/usr/bin/python3", "/usr/local/victim.py")
    machine.run("sh", "-c", "until [ -s /tmp/victim ]; do sleep 0.1; done")
    version = int(machine.run("systemctl", "--version").split()[1])
    by_proc = version < 257
    expected = {"vector": False, "mem": by_proc, "ptrace": False, "file": False, "seen": by_proc, "etc": False}
    assert expected == attack(machine, unit)
