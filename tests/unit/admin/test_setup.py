"""setup writes a key into the configuration completely or not at all, readable by the owner alone."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Callable

import pytest

from agent.admin import setup
from agent.admin.config_writer import ConfigWriter, write_beside
from agent.cli import main
from agent.config import Config, load_config, read_config_file
from agent.errors import ConfigError, DashboardUnreachable, ExporterError, KeyRefused, UsageError
from tests.support.dashboard import API_KEY, DEPLOY_KEY, Answer, ReceivingDashboard

URL = "https://dashboard.example.com"
EXAMPLE = Path(__file__).parents[3] / "etc" / "config.toml.example"


def fetch_new_key(_: Config) -> tuple[str, str]:
    return "cluster01", "new-key"


def never_fetch(_: Config) -> tuple[str, str]:
    raise AssertionError("the key was fetched, which works only once")


def set_up(path: Path, fetch: Callable[[Config], tuple[str, str]] = fetch_new_key, *, replace: bool = False) -> None:
    setup.set_up(ConfigWriter(path.resolve()), URL, fetch, may_replace=lambda: replace)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_configuration_is_made_with_its_folder(tmp_path: Path) -> None:
    """A new file holds the URL, the key and the cluster's name on the dashboard, and only its owner can read it."""
    path = tmp_path / "new" / "config.toml"
    set_up(path)
    config = load_config(path, {})
    assert (URL, "new-key", "cluster01") == (config.api_url, config.api_key, config.cluster_name)
    assert (0o600, ()) == (mode_of(path), config.warnings)
    assert ["config.toml"] == names_in(path.parent)


def test_the_example_is_filled_in_on_its_own_lines(tmp_path: Path) -> None:
    """Three lines of the example change, and its placeholder key needs no confirmation."""
    path = tmp_path / "config.toml"
    path.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    set_up(path, replace=False)
    before, after = EXAMPLE.read_text(encoding="utf-8").splitlines(), path.read_text(encoding="utf-8").splitlines()
    changed = [new for old, new in zip(before, after) if old != new]
    assert [f'api_url = "{URL}"', 'api_key = "new-key"', 'cluster_name = "cluster01"'] == changed
    assert len(before) == len(after)


def test_a_json_configuration_stays_json(tmp_path: Path) -> None:
    """The file of the earlier exporter gets the new key, and keeps its other keys."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"api_url": "https://old", "api_key": "old", "timeout": 9, "comments": ["mine"]}))
    set_up(path, replace=True)
    wanted = {"api_url": URL, "api_key": "new-key", "timeout": 9, "comments": ["mine"], "cluster_name": "cluster01"}
    assert wanted == read_config_file(path)


def test_an_existing_key_is_not_replaced_without_asking(tmp_path: Path) -> None:
    """The file stays unchanged, and the deploy key unused."""
    path = tmp_path / "config.toml"
    text = 'api_url = "https://old"\napi_key = "old"\n'
    path.write_text(text)
    with pytest.raises(UsageError):
        set_up(path, never_fetch, replace=False)
    assert text == path.read_text()


def test_a_key_in_the_file_is_moved_after_a_question(tmp_path: Path) -> None:
    """api_key_file takes precedence over api_key: left in, it would hide the new key."""
    path = tmp_path / "config.toml"
    path.write_text('api_url = "https://old"\napi_key_file = "key"\nbatch_size = 100\n')
    with pytest.raises(UsageError):
        set_up(path, never_fetch, replace=False)
    set_up(path, replace=True)
    config = load_config(path, {})
    assert ("new-key", None, 100) == (config.api_key, config.api_key_file, config.batch_size)


def test_a_key_with_odd_characters_arrives_unchanged(tmp_path: Path) -> None:
    """Quotes and backslashes are neither TOML's nor the regular expression's."""
    path = tmp_path / "config.toml"
    odd = 'a"b\\1c\\g<0>#'
    set_up(path, lambda _: ("", odd))
    assert (odd, None) == (load_config(path, {}).api_key, load_config(path, {}).cluster_name)


@pytest.mark.parametrize(
    "content",
    [
        'api_url = "https://old"\nbatchsize = 5\n',  # an unknown key
        'api_url = """\nhttps://old"""\n',  # laid out so that a line can't be replaced
        "api_url = [\n",  # not TOML
    ],
)
def test_a_configuration_that_cannot_be_changed_costs_no_deploy_key(tmp_path: Path, content: str) -> None:
    """An invalid file is reported before the key is fetched; it stays unchanged, and no temporary file is left."""
    path = tmp_path / "config.toml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        set_up(path, never_fetch, replace=True)
    assert (content, ["config.toml"]) == (path.read_text(), names_in(tmp_path))


def test_a_configuration_in_an_unusual_layout_is_not_edited(tmp_path: Path) -> None:
    """An edit could change something else, so the error says what to enter by hand."""
    path = tmp_path / "config.toml"
    path.write_text('api_url = """\nhttps://old"""\n')
    with pytest.raises(ConfigError) as caught:
        set_up(path, never_fetch, replace=True)
    known = str(caught.value), caught.value.hint
    assert (f"cannot edit {path}: its layout is unusual", "set api_url and api_key by hand") == known


def test_a_folder_that_cannot_be_written_costs_no_deploy_key(tmp_path: Path) -> None:
    """An unwritable folder is noticed first; root can write anywhere, so here a file replaces the folder."""
    (tmp_path / "etc").write_text("")
    with pytest.raises(ConfigError) as caught:
        set_up(tmp_path / "etc" / "config.toml", never_fetch)
    assert f"cannot write {tmp_path}/etc/config.toml: File exists" == str(caught.value)
    assert "run as root, or use --config with a file of your own" == caught.value.hint


def test_a_refused_exchange_leaves_the_file_unchanged(tmp_path: Path) -> None:
    """No temporary file is left over, either."""

    def refuse(_: Config) -> tuple[str, str]:
        raise KeyRefused("used already")

    path = tmp_path / "config.toml"
    before = EXAMPLE.read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")
    with pytest.raises(KeyRefused):
        set_up(path, refuse)
    assert (before, ["config.toml"]) == (path.read_text(encoding="utf-8"), names_in(tmp_path))


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Configuration management may keep the file elsewhere."""
    real, link = tmp_path / "real.toml", tmp_path / "config.toml"
    real.write_text("")
    link.symlink_to(real)
    set_up(link)
    assert link.is_symlink()
    assert "new-key" == load_config(real, {}).api_key


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_written_by_root_belongs_to_its_user(tmp_path: Path) -> None:
    """That user has to read it, and nobody else may."""
    new = write_beside(tmp_path / "other.toml", "", (4711, 4712))
    assert (4711, 4712, 0o600) == (new.stat().st_uid, new.stat().st_gid, mode_of(new))


def test_a_deploy_key_is_exchanged_with_the_dashboard(tmp_path: Path) -> None:
    """The key that comes back is one that the dashboard accepts; the deploy key works once."""
    path = tmp_path / "config.toml"
    with ReceivingDashboard() as dashboard:
        key_file = tmp_path / "key"
        key_file.write_text(f"{DEPLOY_KEY}\n")
        arguments = ["--config", str(path), "setup", "--api-url", dashboard.url, "--deploy-key", str(key_file)]
        assert 0 == main(arguments)
        config = load_config(path, {})
        assert "lab" == config.cluster_name
        assert config.api_key in dashboard.api_keys
        assert KeyRefused.exit_code == main([*arguments, "--yes"])
        assert config == load_config(path, {})


def test_a_key_from_a_file_is_tried_first(tmp_path: Path) -> None:
    """A key that the dashboard does not know is written to no configuration."""
    path, key_file = tmp_path / "config.toml", tmp_path / "key"
    with ReceivingDashboard() as dashboard:
        arguments = ["--config", str(path), "setup", "--api-url", dashboard.url, "--api-key-file", str(key_file)]
        key_file.write_text("wrong")
        assert KeyRefused.exit_code == main(arguments)
        assert not path.exists()
        key_file.write_text(f"{API_KEY}\n")
        assert 0 == main(arguments)
        assert (API_KEY, {}) == (load_config(path, {}).api_key, dashboard.stored)


def test_a_dry_run_uses_no_key_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run prints what would be written."""
    path = tmp_path / "config.toml"
    with ReceivingDashboard() as dashboard:
        options = ["--api-url", dashboard.url, "--deploy-key", "-", "--dry-run"]
        assert 0 == main(["setup", "--config", str(path), *options])
        assert [] == dashboard.requests
    assert (f"{path} would get a key for {dashboard.url}\n", False) == (capsys.readouterr().out, path.exists())


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
def test_the_deploy_key_can_come_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """Other users of the machine cannot see it there."""
    path = tmp_path / "config.toml"
    with ReceivingDashboard() as dashboard, (tmp_path / "key").open("w+") as key:
        key.write(f"{mark}{DEPLOY_KEY}\n")
        key.seek(0)
        monkeypatch.setattr(sys, "stdin", key)
        assert 0 == main(["setup", "--config", str(path), "--api-url", dashboard.url, "--deploy-key", "-"])
        assert load_config(path, {}).api_key in dashboard.api_keys


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_standard_input_without_a_deploy_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    """Undecodable bytes are refused like any other text that cannot be a key."""
    (tmp_path / "key").write_bytes(b"k\xff\xfey\n")
    with (tmp_path / "key").open(encoding=encoding) as key:
        monkeypatch.setattr(sys, "stdin", key)
        options = ["--api-url", "https://d", "--deploy-key", "-"]
        assert 2 == main(["setup", "--config", str(tmp_path / "config.toml"), *options])
    assert "standard input holds no key" in capsys.readouterr().err


def test_no_error_shows_the_deploy_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is not shown even if the dashboard repeats it."""
    path = tmp_path / "config.toml"
    with ReceivingDashboard() as dashboard:
        dashboard.faults.append(lambda request, connection, _: connection.send(Answer(418, request.body.decode())))
        (tmp_path / "key").write_text("one-time-secret")
        options = ["--api-url", dashboard.url, "--deploy-key", str(tmp_path / "key")]
        assert DashboardUnreachable.exit_code == main(["setup", "--config", str(path), *options])
    assert "one-time-secret" not in capsys.readouterr().err


def test_every_failure_is_one_of_ours(tmp_path: Path) -> None:
    """A folder with the file's name is reported in one sentence, too."""
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ExporterError):
        set_up(tmp_path / "config.toml", never_fetch)
