"""Puts an API key into a configuration file, and leaves everything else in it as it is."""

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
from agent.installed import find_adapt

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
    writer: ConfigWriter | None = None,
    allow_http: bool = False,
) -> Config:
    """Writes a configuration for a dashboard, or renews the one that is there.

    What can go wrong is tried before the key is fetched, as a deploy key works only once. A file that is there keeps
    its owner; a new one belongs to the spool's.

    :param fetch_key: given the configuration as it will be but for its key, returns the cluster's name, which may be
        empty, and the key.
    :param may_replace: asked where there is a key already.
    :param writer: writes the file; where none is given it is this process, and the file keeps its owner.
    :param allow_http: whether the key may go to another host in plain text; it is written down.
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
    plain = is_plain_http(config.api_url)
    if plain and not (allow_http or config.allow_http):
        raise UsageError(
            f"{config.api_url} would get the key, and every job, in plain text: whoever is on the way can read it",
            hint="use https://, or add --allow-http where that network is yours alone",
        )
    info = path.stat() if there else None
    writer = writer or ConfigWriter(path, (info.st_uid, info.st_gid) if info else None)

    def write(wanted: Mapping[str, Any], *, only_try: bool = False) -> None:
        if plain:
            wanted = {**wanted, "allow_http": True}
        changed = change(text, wanted)
        if _parsed(changed, path) != {**_without_rival(content), **wanted}:
            raise ConfigError(f"{path} is laid out in an unusual way", hint="set api_url and api_key by hand")
        writer.write(changed, only_try=only_try)

    write({"api_url": config.api_url, "api_key": PLACEHOLDER, "cluster_name": "rehearsal"}, only_try=True)
    if _holds_key(content) and not may_replace():
        raise UsageError(f"{path} holds an API key, and stays as it is", hint="--yes replaces it")
    cluster, api_key = _fetched(fetch_key, config, path)
    wanted = {"api_url": config.api_url, "api_key": api_key, "cluster_name": cluster}
    try:
        write({key: value for key, value in wanted.items() if value})
    except ConfigError as error:
        raise ConfigError(str(error), hint=f"the new key {_keep(api_key, path)}") from error
    return config._replace(api_key=api_key, cluster_name=cluster or config.cluster_name)


def _fetched(fetch_key: Callable[[Config], tuple[str, str]], config: Config, path: Path) -> tuple[str, str]:
    """The cluster's name and its key; an answer that can't be read is kept, as a deploy key works only once."""
    try:
        return fetch_key(config)
    except DashboardUnreachable as error:
        if isinstance(error.subject, str):
            error.hint = f"its answer, which will not come again, {_keep(error.subject, path)}"
        raise


def exchange_deploy_key(config: Config, deploy_key: str) -> tuple[str, str]:
    """The cluster's name and its key, from the dashboard.

    :raises KeyRefused: where the deploy key is invalid, used or expired.
    :raises DashboardUnreachable: where there is no sensible answer.
    """
    # In the key's place, so that no error message shows it.
    return make_dashboard(config._replace(api_key=deploy_key)).exchange_deploy_key(deploy_key)


def read_api_key(file: Path) -> str:
    """The key that a file holds, which the caller may read.

    :raises ConfigError: where it can't be read, or holds none.
    """
    return parse_config({"api_url": "http://localhost", "api_key_file": str(file.absolute())}, {}).api_key


def read_deploy_key(file: Path) -> str:
    """The same for a deploy key. A name that is none of a file's may be the key itself, and is not repeated.

    :raises UsageError: where there is no such file.
    """
    try:
        key = file.read_text(encoding=ENCODING).strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            "--deploy-key takes - (standard input) or a file that holds the key",
            hint="a key on the command line can be seen by every user of this machine: what was typed is not repeated",
        ) from error
    if not is_key(key):
        raise UsageError("the file of --deploy-key holds no key", hint="it must hold one word of ASCII characters")
    return key


def try_api_key(config: Config, api_key: str, find_name: Callable[[], str]) -> tuple[str, str]:
    """The cluster that a key belongs to, empty where nobody knows, and the key.

    :param find_name: asks Slurm for the cluster's name.
    :raises KeyRefused: where the dashboard does not know the key.
    :raises DashboardUnreachable: where there is no sensible answer.
    """
    if config.receiver == "any":
        return "", api_key  # only a delivery would show what it says
    try:
        name = config.shown_as or find_name()
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


def change_toml(text: str, wanted: Mapping[str, Any]) -> str:
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


def change_json(text: str, wanted: Mapping[str, Any]) -> str:
    """A configuration in JSON with some keys set."""
    return json.dumps({**_without_rival(json.loads(text or "{}")), **wanted}, indent=2) + "\n"


def _parsed(text: str, path: Path) -> dict[str, Any] | None:
    """What a text says, None where it is no configuration: nobody else has seen it."""
    try:
        content = parse_text(text, path.suffix)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _holds_key(content: Mapping[str, Any]) -> bool:
    return bool(content.get(RIVAL)) or content.get("api_key") not in {None, "", PLACEHOLDER}


def _without_rival(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != RIVAL}
