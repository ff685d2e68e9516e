"""What HTTPS_PROXY, HTTP_PROXY and NO_PROXY say: whether a proxy can be used, and which URLs need none."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from urllib.parse import urlsplit

from agent.config import is_here
from agent.errors import ConfigError
from agent.sanitize import clean


def check_proxy(proxy: str) -> str:
    """The URL of a proxy without user and password, for messages.

    :param proxy: as the environment has it, with or without a scheme.
    :raises ConfigError: if it can't be used.
    """
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
        host.encode("idna")
    except ValueError:  # a port that is not a number, a label that is too long
        raise unusable_proxy(proxy) from None
    speaks = parts.scheme in {"http", "https"} or (parts.scheme.startswith("socks") and _can_speak_socks())
    # A URL with a path is that of a PAC file: a script that names a proxy.
    if not (host and speaks) or parts.path not in {"", "/"} or clean(proxy) != proxy or " " in proxy:
        raise unusable_proxy(proxy)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def unusable_proxy(proxy: str) -> ConfigError:
    """The error to raise for a proxy that can't be used, without its password."""
    return ConfigError(
        f"the proxy in the environment can't be used: {clean(proxy.rpartition('@')[2])!r}",
        hint="HTTPS_PROXY and HTTP_PROXY must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, not a PAC file",
    )


def _can_speak_socks() -> bool:
    return importlib.util.find_spec("socks") is not None


def is_exempt(url: str) -> bool:
    """Whether a URL is reached without a proxy: NO_PROXY covers it, in the notations of curl, Go and others too.

    Nor is a proxy used for plain HTTP to this host: the key would reach that proxy in plain text.

    requests does not support ``*.example.com``, ``example.com:443``, spaces between names, ``[::1]``, ``fd00::/8`` and
    ``192.0.2.1:8443``.
    """
    parts = urlsplit(url)
    if parts.scheme == "http" and is_here(url):
        return True
    host = (parts.hostname or "").partition("%")[0].rstrip(".")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    entries = re.split(r"[,\s]+", os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "")
    return any(_covers(entry, host, port) for entry in entries)


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY covers a host, given by its name or address, and a port."""
    name, wanted = entry, ""
    if entry.count(":") == 1 or "]:" in entry:
        name, _, wanted = entry.rpartition(":")
    if wanted not in {"", str(port)}:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = name.lower().lstrip("*").strip(".")
        return name == "*" or (bool(domain) and f".{host}".endswith(f".{domain}"))
    try:
        return name == "*" or address in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        return False
