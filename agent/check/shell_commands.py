"""The shell commands that `check` suggests where root can run them safely: for slurm.conf, scripts and modes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Sequence

from agent.privilege import CALLER, find_stranger
from agent.slurm.slurm_conf import Setting

RESTART = "systemctl restart slurmctld"
#: The reset is needed because systemd refuses to start a unit after several failures in a row.
START = "systemctl reset-failed slurmctld; systemctl start slurmctld"
#: What a restart does to a busy controller; install.sh prints the same.
RESTART_HINT = (
    "restart slurmctld: running jobs continue, and it first finishes all pending hook calls"
    " (this can take minutes after a burst; sdiag does not show them)"
)
#: Safe in a shell and in sed without quoting.
_PLAIN = re.compile(r"[\w/.+@-]+", re.ASCII)


def append(path: Path, lines: Sequence[str]) -> str:
    """A shell command that appends lines, after a newline in case the file does not end with one; empty if unsafe."""
    values = [line.partition("=")[2] for line in lines]
    if not all(map(_PLAIN.fullmatch, values)) or not _is_callers_conf(path):
        return ""
    form = "\\n" + "%s\\n" * len(lines)
    return f"printf '{form}' {' '.join(map(shlex.quote, lines))} >>{shlex.quote(str(path))}"


def _is_callers_conf(path: Path) -> bool:
    return path.suffix == ".conf" and _is_callers(path)


def _is_callers(path: Path) -> bool:
    """Whether root may be asked to write to a file that slurmctld names, which the Slurm user controls.

    That user could name any file of root's, or put a link to one in its place.
    """
    return _PLAIN.fullmatch(str(path)) is not None and find_stranger(path, {0, CALLER}) is None


def replace(place: Setting | Path, old: str, new: str) -> str:
    """A shell command that replaces a key's value in slurm.conf, or a path in a script; empty if unsafe."""
    may_write = _is_callers_conf(place.file) if isinstance(place, Setting) else _is_callers(place)
    if not may_write or not all(map(_PLAIN.fullmatch, (old, new))):
        return ""
    if isinstance(place, Setting):
        change = f's|\\({place.key}[[:blank:]]*=[[:blank:]]*"*\\){old}|\\1{new}|'
        return f"sed -i {shlex.quote(change)} {shlex.quote(str(place.file))}"
    return f"sed -i {shlex.quote(f's|{old}|{new}|')} {shlex.quote(str(place))}"


def set_key(config: Path, key: str, value: object) -> str:
    """A shell command that adds a key to a TOML configuration; empty if it is not TOML, has the key, or is unsafe."""
    if config.suffix != ".toml" or not stays(config):
        return ""
    if re.search(rf"^\s*{key}\s*=", config.read_text(encoding="utf-8"), re.MULTILINE):
        return ""
    return f"sed -i {shlex.quote(f'1i {key} = {json.dumps(value)}')} {shlex.quote(str(config))}"


def chmod(mode: str, path: Path) -> str:
    """A shell command that changes a file's mode; empty if unsafe."""
    return f"chmod {mode} {shlex.quote(str(path))}" if stays(path) else ""


def chown(user: str, path: Path) -> str:
    """A shell command that gives a file to a user; empty if unsafe."""
    return f"chown {shlex.quote(user)} {shlex.quote(str(path))}" if stays(path) else ""


def stays(path: Path) -> bool:
    """Whether a path will still lead to the same file when root acts on it.

    In a folder of its own the Slurm user could replace the file by a link to /etc/shadow meanwhile.
    """
    return not path.is_symlink() and find_stranger(path.parent, {0, CALLER}) is None


def then_restart(change: str) -> str:
    """A command, followed by a restart of slurmctld; empty if there is no command."""
    return f"{change} && {RESTART}" if change else ""
