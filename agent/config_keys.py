"""Every key of the configuration: its default, the values it accepts, and how they are checked. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Iterable, NamedTuple
from urllib.parse import urlsplit

from agent.sanitize import clean
from agent.wording import did_you_mean

#: The dashboard's ingest endpoint, and the header that carries the key.
INGEST_PATH = "/api/data/ingest"
KEY_HEADER = "X-API-Key: {api_key}"


class Kind(NamedTuple):
    """A kind of value: what is accepted, in words, and what converts it, or raises ValueError or TypeError."""

    wanted: str
    read: Callable[[Any], Any]


class Key(NamedTuple):
    """One key of the configuration file."""

    name: str
    default: Any
    kind: Kind
    about: str


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip().isprintable():  # it will be logged and printed
        raise ValueError
    return value.strip()


def _secret(value: Any) -> str:
    """Any string; ``is_key`` judges it later, without repeating it in the error."""
    if not isinstance(value, str):
        raise ValueError
    return value.strip()


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _url(value: Any) -> str:
    url = _text(value).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError
    _ = parts.port  # raises ValueError if it is not a number
    return url


def _url_path(value: Any) -> str:
    path = _text(value)
    if not re.fullmatch(r"/[!-~]*", path) or {"?", "#"} & set(path):
        raise ValueError
    return path


def _header(value: Any) -> str:
    header = _text(value)
    if header != "none" and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: ?[!-~][ -~]*", header):
        raise ValueError
    return header


def _path(value: Any) -> Path:
    text = _text(value)
    if "\0" in text:
        raise ValueError
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # "~name" of an unknown user
        raise ValueError from error


def _cluster(value: Any) -> str:
    """One cluster; sacct would also accept a list, or "all"."""
    name = _text(value)
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII) or name.lower() == "all":
        raise ValueError
    return name


def _number(value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError
    return value


def _pair(value: Any) -> tuple[float, float]:
    warning, critical = value
    return _number(warning, 0, 1e6), _number(critical, 0, 1e6)


def _one_of(one: str, other: str) -> Kind:
    def read(value: Any) -> str:
        if value not in (one, other):
            raise ValueError
        return str(value)

    return Kind(f'"{one}" or "{other}"', read)


def _seconds(most: int) -> Kind:
    return Kind(f"a number of seconds from 1 to {most}", lambda value: _number(value, 1, most))


def _whole(least: int, most: int) -> Kind:
    def read(value: Any) -> int:
        if not isinstance(value, int):
            raise ValueError
        return int(_number(value, least, most))

    return Kind(f"a whole number from {least} to {most}", read)


_STRING = Kind("a string", _text)
_PATH = Kind("a path", _path)
_COMMAND = Kind("a command or its path", _text)

#: Every key, in the order of etc/config.toml.example.
KEYS = (
    Key("api_url", "", Kind("an http(s) URL without user, query or fragment", _url), "the dashboard"),
    Key("api_key", "", Kind("a string", _secret), "this cluster's API key"),
    Key("api_key_file", None, _PATH, "a file that holds the API key, instead of api_key"),
    Key("timeout", 30, _seconds(3600), "time limit for one HTTP request"),
    Key(
        "allow_http",
        False,
        Kind("true or false", _flag),
        "allow an http:// api_url, which sends everything in plain text",
    ),
    Key("cluster_name", None, _STRING, "the cluster's name on the dashboard; by default Slurm's ClusterName"),
    Key(
        "slurm_cluster",
        None,
        Kind("the name of one cluster in Slurm", _cluster),
        "Slurm's name of the cluster to query, if it is not the one in this host's slurm.conf",
    ),
    Key("collection_window_days", 7, _whole(1, 366), "days that the daily reconcile covers"),
    Key("resend_days", 7, _whole(0, 366), "days between reconciles that resend delivered jobs; 0 for never"),
    Key("spool_dir", None, _PATH, "the folder of the queue and the ledger"),
    Key("batch_size", 5000, _whole(1, 100_000), "maximum number of records in one request"),
    Key("ca_bundle", None, _PATH, "CA certificates to verify the dashboard with"),
    Key("client_cert", None, _PATH, "the client certificate, if the dashboard requires one"),
    Key("client_key", None, _PATH, "the client certificate's key, if it is in a separate file"),
    Key(
        "receiver",
        "dashboard",
        _one_of("dashboard", "any"),
        "the receiver: the dashboard, or any HTTP endpoint that answers 2xx only after it has stored the jobs",
    ),
    Key("ingest_path", INGEST_PATH, Kind("a path that begins with /", _url_path), "the path to POST to, below api_url"),
    Key(
        "ingest_header",
        KEY_HEADER,
        Kind('a header such as "Authorization: Bearer {api_key}", or "none"', _header),
        "the header that carries the key, in place of {api_key}",
    ),
    Key("sacct", "sacct", _COMMAND, "the sacct command"),
    Key("scontrol", "scontrol", _COMMAND, "the scontrol command"),
    Key("sacct_timeout", 300, _seconds(86_400), "time limit for a sacct call"),
    Key("requeued_runs", "sum", _one_of("sum", "last"), "which runs of a requeued job count"),
    Key("never_started", "submit", _one_of("submit", "skip"), "what to do with jobs cancelled before they started"),
    Key(
        "retry_max_age_days",
        7,
        _whole(1, 366),
        "days that flush waits for a job's record before leaving it to reconcile",
    ),
    Key("metrics_file", None, _PATH, "a Prometheus textfile to write after each run"),
    Key(
        "status_queue_age_minutes",
        (30, 120),
        Kind("two numbers of minutes, [warning, critical]", _pair),
        "thresholds for the age of the oldest undelivered job",
    ),
    Key(
        "status_coverage_percent",
        (99, 90),
        Kind("two percentages, [warning, critical]", _pair),
        "thresholds for the share of jobs that the hook caught; [0, 0] if there is no hook",
    ),
)
_BY_NAME: dict[str, Key] = {key.name: key for key in KEYS}
#: Keys of the earlier exporter that are accepted and ignored.
_IGNORED = frozenset({"comment", "comments", "local_data_path"})


def describe_unknown(names: Iterable[str]) -> list[str]:
    """A complaint about each name that is not a key."""
    unknown = [name for name in names if name not in _BY_NAME and name.lstrip("_") not in _IGNORED]
    return [f"{clean(name, 60)}: unknown key{did_you_mean(name, _BY_NAME)}" for name in unknown]
