"""Ansible and other tools from PyPI, in a cached environment, and a connection to a booted machine without sshd."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.install.machine import Machine

#: ansible-core 2.19 needs 3.11 here, and 3.8 on the machine.
TOOLS = ("ansible-core==2.19.*", "ansible-lint==26.*", "kubernetes-validate==1.37.*", "logprep==21.*")


def install_tools() -> Path:
    """The folder with its commands."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slurm-usage-history-exporter-tests"
    folder = cache / f"tools-{hashlib.sha256(repr(TOOLS).encode()).hexdigest()[:8]}"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "--quiet", *TOOLS], check=True)
        (folder / "ready").touch()
    return folder / "bin"


def make_inventory(machine: Machine, folder: Path) -> Path:
    """An inventory with the host ``controller``. Ansible uses as ssh a program that enters the machine's namespaces."""
    ssh = folder / "ssh"
    clean = "env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    enter = f'exec {shlex.join(machine.door())} {clean} sh -c "$command"'
    ssh.write_text(f"#!/bin/sh\n# The last argument is the command.\nfor command; do :; done\n{enter}\n")
    ssh.chmod(0o755)
    inventory = folder / "inventory.ini"
    settings = f"ansible_ssh_executable={ssh} ansible_ssh_transfer_method=piped ansible_user=root"
    inventory.write_text(f"[slurm_controllers]\ncontroller {settings} ansible_ssh_args=''\n")
    return inventory
