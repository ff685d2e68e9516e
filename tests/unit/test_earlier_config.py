"""The configurations of the earlier exporter keep working, whatever editor saved them."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest

from agent.admin import setup
from agent.admin.config_writer import ConfigWriter
from agent.config import load_config, parse_config, read_config_file
from agent.config_keys import KEYS
from agent.errors import ConfigError

#: By the program that wrote it. One of them has a URL with a path, for a dashboard behind a proxy.
SHAPES: dict[str, dict[str, Any]] = {
    "by hand, as its manual says": {
        "api_url": "https://your-dashboard.example.com",
        "api_key": "a-key",
        "timeout": 30,
    },
    "create-config": {
        "api_url": "https://dashboard.example.com",
        "api_key": "a-key",
        "cluster_name": "",
        "local_data_path": "",
        "timeout": 30,
        "collection_window_days": 14,
    },
    "create-config with every option": {
        "api_url": "https://dashboard.example.com/usage/",
        "api_key": "a-key",
        "cluster_name": "cluster01",
        "local_data_path": "/var/lib/slurm-usage-history/data",
        "timeout": 30,
        "collection_window_days": 14,
    },
    "setup": {
        "api_url": "https://dashboard.example.com",
        "api_key": "a-key",
        "cluster_name": "cluster01",
        "local_data_path": "",
        "timeout": 30,
        "collection_window_days": 14,
    },
    "its example, untouched": {
        "api_url": "https://your-dashboard-server.example.com",
        "api_key": "your-secret-api-key-here",
        "timeout": 30,
        "cluster_name": "cluster01",
        "collection_window_days": 7,
        "comments": {
            "api_url": "the URL of the dashboard's backend, without a trailing slash",
            "collection_window_days": "optional, default: 7",
        },
    },
    "its example, with comments": {
        "api_url": "https://dashboard.example.com",
        "api_key": "a-key",
        "cluster_name": "",
        "timeout": 120,
        "comments": {"api_url": "URL of your dashboard backend API", "timeout": "seconds"},
        "_comment": "mind the key",
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_read(tmp_path: Path, shape: str) -> None:
    """Its values are read without a complaint; an empty name counts as missing, so that Slurm is asked."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SHAPES[shape], indent=2))
    path.chmod(0o600)
    config = load_config(path, {})
    wanted = SHAPES[shape]
    assert (wanted["timeout"], wanted.get("cluster_name") or None) == (config.timeout, config.cluster_name)
    assert (wanted.get("collection_window_days", 7), ()) == (config.collection_window_days, config.warnings)


@pytest.mark.parametrize("blank", ["", "  ", "\t\n", None])
def test_empty_means_not_set(blank: str | None) -> None:
    """For every key with a default, which is what it then has."""
    least = {"api_url": "https://d", "api_key": "k"}
    optional = {key.name: blank for key in KEYS if key.name not in least}
    assert parse_config(least, {}) == parse_config({**optional, **least}, {})


@pytest.mark.parametrize("key", ["", None, "your-secret-api-key", "your-secret-api-key-here"])
def test_setup_replaces_a_placeholder_key_without_asking(tmp_path: Path, key: str | None) -> None:
    """An empty one and the placeholders of both exporters' examples hold nothing that could be lost."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"api_url": "https://d", "api_key": key, "cluster_name": ""}))
    setup.set_up(ConfigWriter(path), "https://d", lambda _: ("lab", "new"), may_replace=lambda: False)
    assert {"api_url": "https://d", "api_key": "new", "cluster_name": "lab"} == read_config_file(path)


@pytest.mark.parametrize("name", ["config.json", "config.toml"])
def test_a_byte_order_mark_is_ignored(tmp_path: Path, name: str) -> None:
    """Notepad writes one, in the configuration or the key's file; setup removes it."""
    (tmp_path / "key").write_bytes(codecs.BOM_UTF8 + b"from-file\r\n")
    text = '{"api_url": "https://d",\r\n "api_key_file": "key"}' if name.endswith("json") else _TOML
    path = tmp_path / name
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert "from-file" == load_config(path, {}).api_key
    setup.set_up(ConfigWriter(path), "https://d", lambda _: ("lab", "new"), may_replace=lambda: True)
    assert ("new", "lab") == (load_config(path, {}).api_key, load_config(path, {}).cluster_name)
    assert not path.read_bytes().startswith(codecs.BOM_UTF8)


_TOML = 'api_url = "https://d"\r\napi_key_file = "key"\r\n'


@pytest.mark.parametrize("name", ["config.json", "config.toml"])
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_text_that_is_not_utf_8_is_reported(tmp_path: Path, name: str, encoding: str) -> None:
    """With what to do about it."""
    path = tmp_path / name
    path.write_bytes('{"comments": "für"}'.encode(encoding))
    with pytest.raises(ConfigError, match="is not UTF-8 text") as caught:
        load_config(path, {})
    assert "save it as UTF-8; some editors write UTF-16 and call it Unicode" == caught.value.hint
