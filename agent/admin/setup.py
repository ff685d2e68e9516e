"""Puts an API key into a configuration file, and leaves everything else in it as it is."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from agent.config import (
    ENCODING,
    NAME,
    PLACEHOLDER,
    Config,
    candidate_paths,
    find_config,
    parse_config,
    read_config_file,
)
from agent.dashboard.answer import shown_clusters
from agent.dashboard.client import make_dashboard
from agent.errors import ConfigError, DashboardUnreachable, ExporterError, UsageError

#: Goes before api_key, and would hide the new one.
RIVAL = "api_key_file"
_HEADER = "# Configuration of slurm-usage-history-exporter. config.toml.example beside the program shows every key.\n"


def choose_path(environ: Mapping[str, str], instance: str = "") -> Path:
    """The configuration that is in use, else the system's for root and the user's for others.

    :raises ConfigError: where root has not made the instance yet: its owner can't be guessed.
    """
    try:
        return find_config(environ, instance)
    except ConfigError:
        system, _, user, _ = candidate_paths(environ, instance)
        if instance and os.geteuid() == 0:
            hint = f"make it first: {find_adapt()} {instance}"
            raise ConfigError(f"there is no instance {instance}: {system} is missing", hint=hint) from None
        return system if os.geteuid() == 0 else user


def set_up(
    path: Path,
    api_url: str,
    fetch_key: Callable[[Config], tuple[str, str]],
    *,
    may_replace: Callable[[], bool],
    instance: str = "",
) -> Config:
    """Writes a configuration for a dashboard, or renews the one that is there.

    What can go wrong is tried before the key is fetched, as a deploy key works only once. A file that is there keeps
    its owner; a new one belongs to the spool's.

    :param fetch_key: given the configuration as it will be but for its key, returns the cluster's name, which may be
        empty, and the key.
    :param may_replace: asked where there is a key already.
    :returns: what is configured then.
    :raises ConfigError: where the configuration is wrong or can't be written; a key that was fetched is kept.
    :raises UsageError: where the key that is there is to stay.
    """
    path = path.resolve()  # a link stays a link
    there = path.exists()
    content = read_config_file(path) if there else {}
    text = path.read_text(encoding=ENCODING) if there else ""
    change = change_json if path.suffix == ".json" else change_toml
    config = parse_config(
        {**_without_rival(content), "api_url": api_url, "api_key": PLACEHOLDER}, {}, path.parent, instance=instance
    )
    model = path if there else config.spool_dir

    def write(wanted: Mapping[str, str]) -> Path:
        expected = {**_without_rival(content), **wanted}
        return write_beside(path, change(text, wanted), expected, owner_like=model)

    write({"api_url": config.api_url, "api_key": PLACEHOLDER, "cluster_name": "rehearsal"}).unlink()
    if _holds_key(content) and not may_replace():
        raise UsageError(f"{path} holds an API key, and stays as it is", hint="--yes replaces it")
    try:
        cluster, api_key = fetch_key(config)
    except DashboardUnreachable as error:
        if isinstance(error.subject, str):
            error.hint = f"its answer, which will not come again, {_keep(error.subject, path)}"
        raise
    wanted = {"api_url": config.api_url, "api_key": api_key, "cluster_name": cluster}
    try:
        write({key: value for key, value in wanted.items() if value}).replace(path)
    except (ConfigError, OSError) as error:
        words = str(error) if isinstance(error, ConfigError) else f"cannot write {path}: {error.strerror}"
        raise ConfigError(words, hint=f"the new key {_keep(api_key, path)}") from error
    return config._replace(api_key=api_key, cluster_name=cluster or config.cluster_name)


def find_adapt(environment: Path = Path(sys.prefix), package: Path = Path(__file__).parents[1]) -> str:
    """What makes an instance: where a package puts it, beside install.sh's virtual environment, or in the checkout."""
    if package.parent == Path("/usr/share") / NAME:
        return f"/usr/libexec/{NAME}/adapt"
    installed = environment.parent / "bin" / "adapt"
    return str(installed if installed.exists() else package.parent / "etc" / "packaging" / "adapt.sh")


def exchange_deploy_key(config: Config, deploy_key: str) -> tuple[str, str]:
    """The cluster's name and its key, from the dashboard.

    :raises KeyRefused: where the deploy key is invalid, used or expired.
    :raises DashboardUnreachable: where there is no sensible answer.
    """
    # In the key's place, so that no error message shows it.
    return make_dashboard(config._replace(api_key=deploy_key)).exchange_deploy_key(deploy_key)


def read_api_key(config: Config, file: Path, find_name: Callable[[], str]) -> tuple[str, str]:
    """The cluster that a key belongs to, empty where nobody knows, and the key, which a file holds.

    :param find_name: asks Slurm for the cluster's name.
    :raises ConfigError: where the file can't be read.
    :raises KeyRefused: where the dashboard does not know the key.
    :raises DashboardUnreachable: where there is no sensible answer.
    """
    settings = {"api_url": config.api_url, "api_key_file": str(file.absolute())}
    api_key = parse_config(settings, {}).api_key
    if config.receiver == "any":
        return "", api_key  # only a delivery would show what it says
    try:
        name = config.cluster_name or find_name()
    except ExporterError:
        name = ""
    return make_dashboard(config._replace(api_key=api_key)).check_key(name), api_key


def describe_cluster(config: Config) -> Iterator[str]:
    """The name that jobs will go under, and what is still needed before they are seen, as far as that is known."""
    cluster = config.cluster_name
    if not cluster:
        return
    yield f"jobs go to the dashboard as {cluster}"
    try:
        shown = shown_clusters(make_dashboard(config).health())
    except ExporterError:
        return
    if shown is not None and cluster not in shown:
        yield f"it does not show {cluster} yet: it will, once jobs were delivered and the dashboard was restarted"


def _keep(secret: str, path: Path) -> str:
    """Puts something into a file that only its owner can read, and says so; it would be lost otherwise."""
    for folder in (path.parent, Path.home(), Path(tempfile.gettempdir())):
        try:
            number, name = tempfile.mkstemp(prefix=f"{path.stem}.key.", dir=folder)
            with open(number, "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # it is open already
                file.write(f"{secret}\n")
        except OSError:
            continue
        return f"is kept in {name}"
    return "could not be kept anywhere"


def change_toml(text: str, wanted: Mapping[str, str]) -> str:
    """A configuration in TOML with some keys set, its comments and other keys as they were."""
    changed = re.sub(rf"^(?=\s*{RIVAL}\s*=)", "#", text or _HEADER, flags=re.MULTILINE)
    for key, value in wanted.items():
        line = f"{key} = {json.dumps(value)}"  # JSON's strings are TOML's, too
        for place in (rf"^[ \t]*{key}[ \t]*=.*$", rf"^[ \t]*#[ \t]*{key}[ \t]*=.*$"):
            changed, count = re.subn(place, line.replace("\\", r"\\"), changed, count=1, flags=re.MULTILINE)
            if count:
                break
        else:
            changed = f"{line}\n{changed}" if text else f"{changed}{line}\n"
    return changed


def change_json(text: str, wanted: Mapping[str, str]) -> str:
    """A configuration in JSON with some keys set."""
    return json.dumps({**_without_rival(json.loads(text or "{}")), **wanted}, indent=2) + "\n"


def write_beside(path: Path, text: str, expected: Mapping[str, Any], *, owner_like: Path) -> Path:
    """Writes a text to a new file beside ``path``, for nobody but its owner to read, ready to take its place.

    :param expected: what the text has to say once it is on the disk.
    :param owner_like: whose owner, where it exists, gets a file that root writes.
    :raises ConfigError: where it can't be written, or says something else.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)  # mode 600 from the start
        try:
            with open(number, "w", encoding="utf-8") as file:  # noqa: PTH123  # it is open already
                file.write(text)
                file.flush()
                os.fsync(number)
            if _read_back(Path(name)) != expected:
                raise ConfigError(f"{path} is laid out in an unusual way", hint="set api_url and api_key by hand")
            if os.geteuid() == 0 and owner_like.exists():
                info = owner_like.stat()
                os.chown(name, info.st_uid, info.st_gid)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        hint = "run as root, or name a file of your own with --config"
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint=hint) from error
    return Path(name)


def _read_back(path: Path) -> dict[str, Any] | None:
    """What was written says, None where it can't be read: that is about a file which nobody else has seen."""
    try:
        return read_config_file(path)
    except ConfigError:
        return None


def _holds_key(content: Mapping[str, Any]) -> bool:
    return bool(content.get(RIVAL)) or content.get("api_key") not in {None, "", PLACEHOLDER}


def _without_rival(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != RIVAL}
