"""etc/config.toml.example describes the configuration correctly."""

from __future__ import annotations

import re
from pathlib import Path

from agent.config import parse_config, read_config_file
from agent.config_keys import KEYS

EXAMPLE = Path(__file__).parents[2] / "etc" / "config.toml.example"


def test_it_is_a_valid_configuration() -> None:
    """Only the URL and the key are set, both to something that has to be replaced."""
    assert {"api_url", "api_key"} == read_config_file(EXAMPLE).keys()


def test_every_key_is_listed_with_its_default(tmp_path: Path) -> None:
    """No key is missing or unknown, and one behind a # shows the default wherever there is one."""
    uncommented = tmp_path / "config.toml"
    uncommented.write_text(re.sub(r"^#(?=\w+ = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    content = read_config_file(uncommented)
    assert {key.name for key in KEYS} == content.keys()
    del content["api_key_file"]  # beside api_key there is no such file to read
    shown = parse_config(content, {})
    defaults = {key.name: key.default for key in KEYS if key.default is not None and not key.name.startswith("api_")}
    assert defaults == {name: getattr(shown, name) for name in defaults}
