"""Finds, reads and validates the configuration."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Any, Mapping, NamedTuple
from urllib.parse import urlsplit

from agent.config_keys import INGEST_PATH, KEY_HEADER, KEYS, describe_unknown
from agent.errors import ConfigError
from agent.sanitize import clean

NAME = "slurm-usage-history-exporter"
SYSTEM_FOLDER = Path("/etc") / NAME
SYSTEM_SPOOL = Path("/var/spool") / NAME
API_KEY_VARIABLE = "SLURM_USAGE_HISTORY_API_KEY"
SPOOL_VARIABLE = "SLURM_USAGE_HISTORY_SPOOL"
#: The placeholder for the key in our example, and those in the earlier exporter's manual and example.
PLACEHOLDER = "your-secret-api-key"
PLACEHOLDERS = frozenset({PLACEHOLDER, f"{PLACEHOLDER}-here"})
#: UTF-8, with or without the byte order mark that Windows editors write.
ENCODING = "utf-8-sig"


PLAIN_HTTP = "{} is not encrypted: anyone on the network path can read the jobs, and read and use the API key"
PLAIN_HTTP_HINT = "use https://, or set allow_http = true if you trust that network"


class Config(NamedTuple):
    """All settings of a run, with defaults filled in."""

    api_url: str
    api_key: str
    api_key_file: Path | None
    timeout: float  # seconds, for one HTTP request
    allow_http: bool  # the key may be sent over a network in plain text
    cluster_name: str | None  # on the dashboard; None: Slurm's ClusterName
    slurm_cluster: str | None  # None: the cluster in this host's slurm.conf
    collection_window_days: int
    resend_days: int  # 0: never
    spool_dir: Path
    batch_size: int  # records in one POST
    ca_bundle: Path | None
    client_cert: Path | None
    client_key: Path | None  # None: client_cert contains it
    receiver: str  # "dashboard" or "any"
    ingest_path: str
    ingest_header: str  # {api_key} is replaced with the key
    sacct: str
    scontrol: str
    sacct_timeout: float  # seconds, for one call
    requeued_runs: str  # "sum" or "last"
    never_started: str  # "submit" or "skip"
    retry_max_age_days: int
    metrics_file: Path | None
    status_queue_age_minutes: tuple[float, float]  # warning, critical
    status_coverage_percent: tuple[float, float]
    instance: str = ""  # one of several on this host; empty: the host's own
    path: Path | None = None  # the file these were read from
    warnings: tuple[str, ...] = ()

    @property
    def plain_http(self) -> str:
        """The problem of a key that crosses a network in plain text, unless ``allow_http`` permits that; or empty."""
        return PLAIN_HTTP.format(self.api_url) if is_plain_http(self.api_url) and not self.allow_http else ""

    @property
    def shown_as(self) -> str | None:
        """What the cluster is called on the dashboard; None: by its ClusterName, which only Slurm knows."""
        return self.cluster_name or self.slurm_cluster


def load_config(
    path: Path | None, environ: Mapping[str, str], *, cluster_name: str | None = None, instance: str = ""
) -> Config:
    """Reads the configuration from ``path``, or from the first default location that has one.

    :param instance: the instance to read it for; empty for the host's own.
    :param cluster_name: overrides the file's.
    :raises ConfigError: if there is none, or it cannot be read, or it is wrong.
    """
    found = path or find_config(environ, instance)
    instance = instance or _instance_of(found)
    config = parse_config(read_config_file(found), environ, folder=found.parent, instance=instance)
    warnings = [warn_of_readers(file) for file in (found, config.api_key_file) if file and is_exposed(file)]
    if config.plain_http:
        warnings.append(f"{config.plain_http} ({PLAIN_HTTP_HINT})")
    beside = passed_over(found)
    if beside:
        warnings.append(f"{beside} is ignored because {found} takes precedence: remove one of the two")
    return config._replace(
        path=found,
        cluster_name=cluster_name or config.cluster_name,
        warnings=tuple(warnings),
    )


def _instance_of(path: Path) -> str:
    """The instance that a configuration file belongs to, by its folder; so --config also finds the instance's spool."""
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100  # links stay: the folder may be one
    return folder.name if folder.parent == SYSTEM_FOLDER else ""


def candidate_paths(environ: Mapping[str, str], instance: str = "") -> list[Path]:
    """The default locations: the system's, then the user's. An instance has its own folder in each."""
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/nonexistent")) / ".config") / NAME
    folders = (SYSTEM_FOLDER / instance, user / instance)
    return [folder / name for folder in folders for name in ("config.toml", "config.json")]


def find_config(environ: Mapping[str, str], instance: str = "") -> Path:
    """The first default location that has a configuration.

    :raises ConfigError: if there is none.
    """
    candidates = candidate_paths(environ, instance)
    for path in candidates:
        # A folder that this user may not enter counts as a match: reading it will report the error.
        if path.exists() if os.access(path.parent, os.X_OK) else path.parent.exists():
            return path
    raise ConfigError(
        "no configuration found: looked for " + ", ".join(map(str, candidates)),
        hint=f"run `{NAME} setup`, or copy etc/config.toml.example to {candidates[0]} and fill it in",
    )


def passed_over(path: Path) -> Path | None:
    """An ignored config.json beside a config.toml, perhaps left by the earlier exporter and still edited."""
    beside = path.with_name("config.json")
    return beside if path.name == "config.toml" and beside.exists() else None


def read_config_file(path: Path) -> dict[str, Any]:
    """The keys and values of a TOML or JSON file.

    :raises ConfigError: if it cannot be read or parsed; with the line and column of a syntax error.
    """
    try:
        text = path.read_text(encoding=ENCODING)
        content = parse_text(text, path.suffix)
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8; some editors write UTF-16 and call it Unicode"
        raise ConfigError(f"{path} is not UTF-8 text: {error}", hint=hint) from error
    except (ValueError, RecursionError) as error:  # both parsers' errors
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"{path} is not valid {kind}: {error}", hint="fix the line it names") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must contain keys and values, not {type(content).__name__}")
    return content


def parse_text(text: str, suffix: str) -> Any:
    """Parses JSON or TOML. Imports only the parser that is needed: both are slow to import.

    :raises ValueError: on a syntax error.
    """
    if suffix == ".json":
        import json  # noqa: PLC0415

        return json.loads(text)
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    return tomllib.loads(text)


def unreadable(path: Path, error: OSError) -> ConfigError:
    """The error to raise for a configuration that cannot be read."""
    return ConfigError(
        f"cannot read the configuration {path}: {error.strerror}",
        hint="check the path given to --config"
        if isinstance(error, FileNotFoundError)
        else "run as root or as the Slurm user, or name another file with --config",
    )


def parse_config(
    content: Mapping[str, Any], environ: Mapping[str, str], folder: Path = Path(), *, instance: str = ""
) -> Config:
    """Validates the keys of a configuration and fills in the defaults.

    An empty string means "not set": the earlier exporter writes ``"cluster_name": ""``.

    :param environ: may hold the API key and the spool, which take precedence over the file's.
    :param folder: the base of relative paths in the file.
    :raises ConfigError: listing every problem, one a line.
    """
    content = {name: None if _is_blank(value) else value for name, value in content.items()}
    problems = describe_unknown(content)
    values: dict[str, Any] = {}
    for key in KEYS:
        try:
            value = content.get(key.name)
            values[key.name] = key.default if value is None else key.kind.read(value)
        except (TypeError, ValueError):
            # A secret's value is never repeated.
            shown = "" if key.name == "api_key" else f", not {clean(_without_password(repr(content[key.name])))}"
            problems.append(f"{key.name}: must be {key.kind.wanted}{shown}")
    if environ.get(SPOOL_VARIABLE):
        values["spool_dir"] = Path(environ[SPOOL_VARIABLE])
    values["spool_dir"] = values.get("spool_dir") or default_spool(environ, instance, folder)
    for name in ("spool_dir", "ca_bundle", "client_cert", "client_key", "metrics_file", "api_key_file"):
        if values.get(name):
            values[name] = folder / values[name]
    if content.get("api_url") is None:
        problems.append("api_url: missing; set it to the dashboard's URL, such as https://dashboard.example.com")
    if values.get("client_key") and not values.get("client_cert"):
        problems.append("client_key: requires client_cert, the certificate it belongs to")
    if values.get("receiver") == "dashboard":
        for name, default in (("ingest_path", INGEST_PATH), ("ingest_header", KEY_HEADER)):
            problems += [f'{name}: requires receiver = "any"'] if values.get(name, default) != default else []
    problems += _find_api_key(values, environ)
    if problems:
        raise ConfigError("the configuration is wrong:\n  " + "\n  ".join(problems), subject=problems)
    return Config(**values, instance=instance)


def default_spool(environ: Mapping[str, str], instance: str = "", folder: Path = Path()) -> Path:
    """The system's spool, or the one in a user's home if there is no system spool. An instance's is beside it.

    It is not inside, because the instance's hook may run as another Slurm user, who could not enter it. The system's
    configuration always means the system's spool, even if that is missing: nobody would look in the Slurm user's home.

    :param folder: the configuration's folder.
    """
    home = environ.get("HOME")
    name = f"{NAME}@{instance}" if instance else NAME
    system = SYSTEM_SPOOL.with_name(name)
    is_system = folder == SYSTEM_FOLDER or SYSTEM_FOLDER in folder.parents
    if home and os.geteuid() != 0 and not is_system and not system.exists():
        return Path(home) / ".local/state" / name
    return system


def _find_api_key(values: dict[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Puts the API key into ``values``, whatever its source; returns the problems found."""
    source = "api_key"
    key = values.get("api_key")
    if values.get("api_key_file"):
        source = "api_key_file"
        try:
            key = values["api_key_file"].read_text(encoding=ENCODING).strip()
        except (OSError, UnicodeDecodeError) as error:
            return [f"api_key_file: cannot read it: {error}"]
    if environ.get(API_KEY_VARIABLE):
        source, key = API_KEY_VARIABLE, environ[API_KEY_VARIABLE].strip()
    if not key:
        needed = "api_key" in values and "{api_key}" in values.get("ingest_header", "{api_key}")
        return [] if not needed else ["api_key: missing; ask the dashboard's administrator for one"]
    if not is_key(key):
        return [f"{source}: must be one word of printable ASCII characters"]
    values["api_key"] = key
    return []


def is_key(text: str) -> bool:
    """Whether a text can be sent as a key in an HTTP header."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def is_plain_http(url: str) -> bool:
    """Whether data sent there crosses a network in plain text; plain HTTP to this host does not count.

    >>> is_plain_http("http://dashboard.example.com"), is_plain_http("http://127.0.0.1:8100")
    (True, False)
    """
    return urlsplit(url).scheme == "http" and not is_here(url)


def is_here(url: str) -> bool:
    """Whether a URL names this host itself, by its loopback address."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def is_exposed(path: Path) -> bool:
    """Whether users other than the owner can read or write a file."""
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IXGRP & ~stat.S_IXOTH)


def warn_of_readers(path: Path, key: str = "API key") -> str:
    """What is logged about a file that :func:`is_exposed`."""
    return f"{path} holds the {key}, but other users can read or write it: chmod 600 {path}"


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _without_password(text: str) -> str:
    """A text with the credentials in its URLs masked."""
    return re.sub(r"//[^/@]*@", "//***@", text)
