"""The configuration is found, read and validated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import config as config_module
from agent.config import API_KEY_VARIABLE, SPOOL_VARIABLE, find_config, load_config, parse_config
from agent.config_keys import KEYS
from agent.errors import ConfigError

LEAST = {"api_url": "https://dashboard.example.com", "api_key": "s3cret"}


def problems(content: dict[str, Any], environ: dict[str, str] | None = None) -> list[str]:
    """The problems that are reported for a configuration."""
    with pytest.raises(ConfigError) as caught:
        parse_config(content, environ or {})
    found = caught.value.subject
    assert isinstance(found, list)
    return found


def test_defaults_of_the_seed() -> None:
    """The least configuration has the defaults of the earlier exporter."""
    config = parse_config(LEAST, {})
    assert (30, None, 7) == (config.timeout, config.cluster_name, config.collection_window_days)


def test_the_json_of_the_seed_keeps_working(tmp_path: Path) -> None:
    """A config.json with comments and local_data_path is read without complaint."""
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({**LEAST, "timeout": 60, "comments": {"a": "b"}, "_comment": "x", "local_data_path": "/d"})
    )
    path.chmod(0o600)
    config = load_config(path, {})
    assert (60, ()) == (config.timeout, config.warnings)


def test_toml(tmp_path: Path) -> None:
    """The same keys in TOML."""
    path = tmp_path / "config.toml"
    path.write_text('api_url = "https://d.example.com/"\napi_key = "k"\nbatch_size = 7\nca_bundle = "ca.pem"\n')
    config = load_config(path, {})
    assert ("https://d.example.com", 7, tmp_path / "ca.pem") == (config.api_url, config.batch_size, config.ca_bundle)


def test_all_problems_at_once() -> None:
    """Each wrong key is reported with its permitted values, so that an admin can fix them in one pass."""
    found = problems({"api_url": "dashboard", "timeout": "30", "batch_size": 0, "requeued_runs": "all", "api_key": "k"})
    assert ["api_url", "timeout", "batch_size", "requeued_runs"] == [line.split(":")[0] for line in found]
    assert "timeout: must be a number of seconds from 1 to 3600, not '30'" in found


def test_unknown_key_with_the_nearest_name() -> None:
    """A misspelt key is an error that names the one that was meant."""
    assert ["time_out: unknown key; did you mean timeout?"] == problems({**LEAST, "time_out": 30})


@pytest.mark.parametrize("value", [True, 0, -1, "5", 1.5, [], {}])
def test_a_number_is_a_number(value: object) -> None:
    """No boolean, text or list passes for a whole number."""
    assert ["collection_window_days"] == [
        line.split(":")[0] for line in problems({**LEAST, "collection_window_days": value})
    ]


@pytest.mark.parametrize(
    "url", ["ftp://x", "https://", "https://user:pw@host", "https://h/?a=b", "https://h:port", "h", 5]
)
def test_a_text_that_is_not_a_url(url: object) -> None:
    """A URL needs http(s) and a host, and holds no password that could end up in a log."""
    assert problems({**LEAST, "api_url": url})[0].startswith("api_url: must be")


def test_a_key_from_the_environment_takes_precedence() -> None:
    """The environment can hold the key if the file must not."""
    assert "from-env" == parse_config(LEAST, {API_KEY_VARIABLE: "from-env\n"}).api_key


def test_key_from_a_file(tmp_path: Path) -> None:
    """A file beside the configuration holds the key, with or without a newline."""
    (tmp_path / "key").write_text("from-file\n")
    content = {"api_url": LEAST["api_url"], "api_key_file": "key"}
    assert "from-file" == parse_config(content, {}, tmp_path).api_key


@pytest.mark.parametrize("key", ["two words", "tab\there", "line\nbreak", "ümlaut"])
def test_a_key_that_no_header_can_hold_is_not_repeated(key: str) -> None:
    """A key with a blank or a line break in it is refused, and its text is not in the message."""
    (problem,) = problems({**LEAST, "api_key": key})
    assert key not in problem
    assert problem.startswith("api_key: must be one word")


def test_missing_key_and_url() -> None:
    """An empty configuration says what has to be in it."""
    assert [
        "api_url: missing; set it to the dashboard's URL, such as https://dashboard.example.com",
        "api_key: missing; ask the dashboard's administrator for one",
    ] == problems({})


def test_a_file_without_a_key(tmp_path: Path) -> None:
    """The error has the system's own message and names the file."""
    file = tmp_path / "key"
    (problem,) = problems({**LEAST, "api_key_file": str(file)})
    assert f"api_key_file: cannot read it: [Errno 2] No such file or directory: '{file}'" == problem


def test_a_configuration_that_others_can_read_causes_a_warning(tmp_path: Path) -> None:
    """A file with mode 644 causes a warning."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LEAST))
    path.chmod(0o644)
    assert [f"{path} holds the API key, but other users can read or write it: chmod 600 {path}"] == list(
        load_config(path, {}).warnings
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.toml", 'api_url = "x"\napi_key = \n', "line 2"),
        ("c.json", '{"api_url": "x",\n "api_key": }', "line 2"),
        ("c.json", "[1]", "must contain keys and values"),
        ("c.toml", b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_broken(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    """The line with the error is named."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=words):
        load_config(path, {})


def test_no_configuration_at_all(tmp_path: Path) -> None:
    """All places that were searched are named."""
    with pytest.raises(ConfigError, match=r"no configuration found: looked for .*config.toml, .*config.json") as caught:
        find_config({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    expected = (
        "run `slurm-usage-history-exporter setup`, or copy etc/config.toml.example to "
        "/etc/slurm-usage-history-exporter/config.toml and fill it in"
    )
    assert expected == caught.value.hint


def test_users_own_configuration(tmp_path: Path) -> None:
    """A user without a system installation keeps it at home; TOML takes precedence over JSON."""
    folder = tmp_path / ".config" / config_module.NAME
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert folder / "config.json" == find_config({"HOME": str(tmp_path)})
    (folder / "config.toml").write_text("")
    assert folder / "config.toml" == find_config({"HOME": str(tmp_path)})


def test_a_spool_from_the_environment_takes_precedence() -> None:
    """The hook knows nothing of the configuration, so its variable moves the agent's spool too."""
    config = parse_config({**LEAST, "spool_dir": "/elsewhere"}, {SPOOL_VARIABLE: "/spool"})
    assert Path("/spool") == config.spool_dir


def test_every_default_is_valid() -> None:
    """A default, written down in the file, is taken."""
    defaults = {key.name: key.default for key in KEYS if key.default not in (None, "")}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    assert parse_config({**plain, **LEAST}, {}) == parse_config(LEAST, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([key.name for key in KEYS]) | st.text(max_size=10), JSON, max_size=6))
def test_any_content_of_a_file(content: dict[str, Any]) -> None:
    """Any content is a configuration or a ConfigError that lists what is wrong."""
    content.pop("api_key_file", None)
    try:
        config = parse_config({**LEAST, **content}, {})
    except ConfigError as error:
        assert error.subject
    else:
        assert config.batch_size >= 1


EXAMPLE = (Path(__file__).parents[2] / "etc" / "config.toml.example").read_bytes().replace(b"\n#", b"\n")
WOUNDS = st.lists(st.tuples(st.integers(0, len(EXAMPLE)), st.integers(0, 9), st.binary(max_size=9)), max_size=4)


@given(wounds=WOUNDS, name=st.sampled_from(["config.toml", "config.json"]), as_json=st.booleans())
def test_any_damage_to_a_file(tmp_path: Path, wounds: list[tuple[int, int, bytes]], name: str, as_json: bool) -> None:
    """Any bytes in place of others make a configuration or a ConfigError, in either format, or one as the other."""
    content = json.dumps({**LEAST, "timeout": 30, "comments": "é"}).encode() if as_json else EXAMPLE
    for place, length, wound in wounds:
        content = content[:place] + wound + content[place + length :]
    path = tmp_path / name
    path.write_bytes(content)
    try:
        config = load_config(path, {})
    except ConfigError as error:
        assert str(error)
    else:
        assert config.api_key


@pytest.mark.parametrize("key", ["ca_bundle", "spool_dir", "api_key_file", "metrics_file"])
@pytest.mark.parametrize("value", ["~no-such-user/x", "a\0b"])
def test_paths_that_no_system_knows(key: str, value: str) -> None:
    """A missing user's home or a NUL is reported like any other mistake."""
    assert f"{key}: must be a path, not {value!r}" in problems({**LEAST, key: value})


@pytest.mark.parametrize("url", [None, "", "  "])
def test_an_empty_url_is_missing(url: str | None) -> None:
    """JSON's null and an empty text do not count as a URL."""
    assert "api_url: missing" in problems({**LEAST, "api_url": url})[0]


@pytest.mark.parametrize(("name", "text"), [("config.json", "[" * 100_000), ("config.toml", "a=" + "[" * 100_000)])
def test_brackets_without_end(tmp_path: Path, name: str, text: str) -> None:
    """A file that no parser can follow is reported like any other invalid JSON or TOML."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="is not valid"):
        load_config(tmp_path / name, {})
