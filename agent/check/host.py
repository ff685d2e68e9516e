"""What this host must have: Python, a configuration that is kept secret, and a folder for the metrics."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path

from agent.check.finding import NotWell
from agent.check.mounts import sandbox_allows
from agent.check.shell_commands import chmod, chown
from agent.config import (
    NAME,
    PLACEHOLDERS,
    SYSTEM_SPOOL,
    Config,
    is_exposed,
    passed_over,
)
from agent.privilege import name_of


def check_python() -> str:
    """The Python in use; since it runs, it is recent enough."""
    return f"{platform.python_version()}, {sys.executable}"


def check_configuration(config: Config) -> str:
    """Whether the configuration is the only one, and filled in. It has already been parsed."""
    beside = passed_over(config.path) if config.path else None
    if beside:
        raise NotWell(f"{beside} is ignored because {config.path} takes precedence", hint="remove one of the two")
    if config.api_key in PLACEHOLDERS:
        raise NotWell(f"{config.path} still has the example's API key", hint=f"enter yours, or run `{NAME} setup`")
    return str(config.path)


def check_secrecy(config: Config) -> str:
    """Whether the Slurm user, as whom the check runs by now, can read the configuration and no other user can."""
    for path in filter(None, (config.path, config.api_key_file)):
        roots = path == config.path or is_roots_choice(path, config.path)
        if not os.access(path, os.R_OK):
            line = chown(own_name(), path) if roots else ""
            hint = line or "set api_key_file to a file that this user owns"
            raise NotWell(f"{own_name()} cannot read {path}", hint=hint, run=line)
        if is_exposed(path):
            line = chmod("600", path) if roots else ""
            raise NotWell(
                f"{path} holds the API key, but other users can read or write it",
                hint=line or f"let only {own_name()} read it",
                run=line,
            )
    return f"only {own_name()} can read it"


def is_roots_choice(path: Path, config: Path | None) -> bool:
    """Whether root can safely be asked to change a path that the configuration names.

    The Slurm user writes the configuration, and could name /etc in it to have root hand that over.
    """
    if path.parent == SYSTEM_SPOOL.parent and path.name.partition("@")[0] == NAME:
        return True
    if config is None or not config.exists():
        return True
    return config.stat().st_uid in {0, path.stat().st_uid if path.exists() else 0}


def is_users_own(config: Path) -> bool:
    """Whether a configuration belongs to a user's own installation; the host's are in /etc."""
    return Path("/etc") not in config.resolve().parents


def check_metrics(config: Config, sandbox: str) -> str:
    """Whether the metrics file can be written, as far as can be seen from outside the services' sandbox.

    :param sandbox: the flush service's ReadWritePaths, empty if it has none.
    """
    if not config.metrics_file:
        return "no metrics_file configured"
    folder = config.metrics_file.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotWell(f"{own_name()} cannot write to {folder}", hint=f"make {folder} writable by {own_name()}")
    if not sandbox_allows(sandbox, folder):
        raise NotWell(
            f"the services' sandbox does not allow writing to {folder}",
            hint=f"systemctl edit {NAME}.service {NAME}-flush.service: [Service], ReadWritePaths={folder}",
            run=_open_sandbox(folder),
        )
    return str(config.metrics_file)


def _open_sandbox(folder: Path) -> str:
    """A shell command that does what ``systemctl edit`` would."""
    form = shlex.quote(r"[Service]\nReadWritePaths=%s\n")  # printf makes the newlines
    place = "/etc/systemd/system/$unit.service.d"
    return (
        f"for unit in {NAME} {NAME}-flush; do mkdir -p {place} &&"
        f" printf {form} {shlex.quote(str(folder))} >{place}/metrics.conf; done; systemctl daemon-reload"
    )


def own_name() -> str:
    """The user that this process runs as."""
    return name_of(os.geteuid())
