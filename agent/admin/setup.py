"""Puts an API key into a configuration file, and keeps everything else in it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from agent.admin.config_writer import ConfigWriter
from agent.config import (
    ENCODING,
    PLACEHOLDER,
    PLACEHOLDERS,
    Config,
    candidate_paths,
    find_config,
    is_key,
    is_plain_http,
    parse_config,
    parse_text,
    read_config_file,
)
from agent.dashboard.answer import shown_clusters
from agent.dashboard.client import make_dashboard
from agent.errors import ConfigError, DashboardUnreachable, ExporterError, UsageError
from agent.install_paths import find_adapt

#: Takes precedence over api_key, and would hide the new key.
RIVAL = "api_key_file"
_HEADER = "# Configuration of slurm-usage-history-exporter. config.toml.example beside the program shows every key.\n"


def choose_path(environ: Mapping[str, str], instance: str = "") -> Path:
    """The configuration in use; if there is none, the system's path for root and the user's for others.

    :raises ConfigError: if the instance has not been created yet: root cannot guess its owner.
    """
    try:
        return find_config(environ, instance)
    except ConfigError:
        system, _, user, _ = candidate_paths(environ, instance)
        if instance and os.geteuid() == 0:
            hint = f"create it first: {find_adapt()} {instance}"
            raise ConfigError(f"instance {instance} does not exist: {system} is missing", hint=hint) from None
        return system if os.geteuid() == 0 else user


def set_up(
    writer: ConfigWriter,
    api_url: str,
    fetch_key: Callable[[Config], tuple[str, str]],
    *,
    may_replace: Callable[[], bool],
    instance: str = "",
    allow_http: bool = False,
) -> Config:
    """Writes a configuration for a dashboard, or updates the existing one.

    Everything that can fail is tried before the key is fetched, because a deploy key works only once.

    :param fetch_key: takes the future configuration without its key; returns the cluster's name, which may be empty,
        and the key.
    :param may_replace: called if there is a key already.
    :param allow_http: whether the key may go to another host in plain text; stored in the file.
    :returns: the new configuration.
    :raises ConfigError: if the configuration is wrong or cannot be written; a fetched key is saved.
    :raises UsageError: if the existing key must not be replaced.
    """
    path = writer.path
    there = path.exists()
    content = read_config_file(path) if there else {}
    text = path.read_text(encoding=ENCODING) if there else ""
    change = change_json if path.suffix == ".json" else change_toml
    config = parse_config(
        {**_without_rival(content), "api_url": api_url, "api_key": PLACEHOLDER}, {}, path.parent, instance=instance
    )
    plain = is_plain_http(config.api_url)
    if plain and not (allow_http or config.allow_http):
        raise UsageError(
            f"{config.api_url} is not encrypted: anyone on the network path could read the key and every job",
            hint="use https://, or add --allow-http if you trust that network",
        )

    def write(wanted: Mapping[str, Any], *, only_try: bool = False) -> None:
        if plain:
            wanted = {**wanted, "allow_http": True}
        changed = change(text, wanted)
        if _parsed(changed, path) != {**_without_rival(content), **wanted}:
            raise ConfigError(f"cannot edit {path}: its layout is unusual", hint="set api_url and api_key by hand")
        writer.write(changed, only_try=only_try)

    write({"api_url": config.api_url, "api_key": PLACEHOLDER, "cluster_name": "rehearsal"}, only_try=True)
    if _holds_key(content) and not may_replace():
        raise UsageError(f"{path} already holds an API key and was not changed", hint="use --yes to replace it")
    cluster, api_key = _fetched(fetch_key, config, path)
    wanted = {"api_url": config.api_url, "api_key": api_key, "cluster_name": cluster}
    try:
        write({key: value for key, value in wanted.items() if value})
    except ConfigError as error:
        raise ConfigError(str(error), hint=f"the new key {_keep(api_key, path)}") from error
    return config._replace(api_key=api_key, cluster_name=cluster or config.cluster_name)


def _fetched(fetch_key: Callable[[Config], tuple[str, str]], config: Config, path: Path) -> tuple[str, str]:
    """The cluster's name and its key. An unreadable answer is saved, because a deploy key works only once."""
    try:
        return fetch_key(config)
    except DashboardUnreachable as error:
        if isinstance(error.subject, str):
            error.hint = f"its answer, which cannot be requested again, {_keep(error.subject, path)}"
        raise


def exchange_deploy_key(config: Config, deploy_key: str) -> tuple[str, str]:
    """Fetches the cluster's name and its key from the dashboard.

    :raises KeyRefused: if the deploy key is invalid, used or expired.
    :raises DashboardUnreachable: if there is no usable answer.
    """
    # Passed as the API key, so that error messages mask it.
    return make_dashboard(config._replace(api_key=deploy_key)).exchange_deploy_key(deploy_key)


def read_api_key(file: Path) -> str:
    """The API key in a file.

    :raises ConfigError: if it cannot be read, or holds no key.
    """
    return parse_config({"api_url": "http://localhost", "api_key_file": str(file.absolute())}, {}).api_key


def read_deploy_key(file: Path) -> str:
    """The deploy key in a file. If there is no such file, the name may be the key itself, and is not repeated.

    :raises UsageError: if there is no such file, or it holds no key.
    """
    try:
        key = file.read_text(encoding=ENCODING).strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            "--deploy-key takes - (standard input) or a file that holds the key",
            hint="never put a key on the command line, where every user of this machine can see it",
        ) from error
    return check_key(key, "the file of --deploy-key")


def check_key(key: str, source: str) -> str:
    """Returns the key.

    :param source: where it was read, in words.
    :raises UsageError: if it can't be one.
    """
    if not is_key(key):
        raise UsageError(f"{source} holds no key", hint="it must hold one word of ASCII characters")
    return key


def try_api_key(config: Config, api_key: str, find_name: Callable[[], str]) -> tuple[str, str]:
    """The cluster that a key belongs to (empty if unknown), and the key.

    :param find_name: asks Slurm for the cluster's name.
    :raises KeyRefused: if the dashboard does not know the key.
    :raises DashboardUnreachable: if there is no usable answer.
    """
    if config.receiver == "any":
        return "", api_key  # only a delivery would show whether it is accepted
    try:
        name = config.shown_as or find_name()
    except ExporterError:
        name = ""
    return make_dashboard(config._replace(api_key=api_key)).check_key(name), api_key


def describe_cluster(config: Config) -> Iterator[str]:
    """The name that jobs are sent under, and when the dashboard will display them, if known."""
    cluster = config.cluster_name
    if not cluster:
        return
    yield f"jobs are sent to the dashboard as {cluster}"
    try:
        shown = shown_clusters(make_dashboard(config).health())
    except ExporterError:
        return
    if shown is not None and cluster not in shown:
        yield f"it will display {cluster} once jobs have been delivered and the dashboard has been restarted"


def _keep(secret: str, path: Path) -> str:
    """Saves a text that would otherwise be lost, in a file that only its owner can read; returns where, in words."""
    for folder in (path.parent, Path.home(), Path(tempfile.gettempdir())):
        try:
            number, name = tempfile.mkstemp(prefix=f"{path.stem}.key.", dir=folder)
            with open(number, "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # it is open already
                file.write(f"{secret}\n")
        except OSError:
            continue
        return f"is saved in {name}"
    return "could not be saved anywhere"


def change_toml(text: str, wanted: Mapping[str, Any]) -> str:
    """Sets keys in a TOML configuration, and keeps its comments and other keys."""
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


def change_json(text: str, wanted: Mapping[str, Any]) -> str:
    """Sets keys in a JSON configuration."""
    return json.dumps({**_without_rival(json.loads(text or "{}")), **wanted}, indent=2) + "\n"


def _parsed(text: str, path: Path) -> dict[str, Any] | None:
    """The content of a text that we have changed, None if it is not a valid configuration."""
    try:
        content = parse_text(text, path.suffix)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _holds_key(content: Mapping[str, Any]) -> bool:
    return bool(content.get(RIVAL)) or content.get("api_key") not in {None, "", *PLACEHOLDERS}


def _without_rival(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != RIVAL}
