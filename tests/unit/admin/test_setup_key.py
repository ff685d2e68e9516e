"""setup tests a key without leaving a made-up cluster behind, uses the right name, and loses no key it was given."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.admin import config_writer, setup
from agent.cli import main
from agent.config import load_config
from agent.errors import ConfigError, DashboardUnreachable, KeyRefused
from tests.support import dashboard_faults as faults
from tests.support.dashboard import API_KEY, DEPLOY_KEY, Answer, ReceivingDashboard

SHARED = "an-older-key-for-all"
NO_SLURM = {"sacct": "/none/sacct", "scontrol": "/none/scontrol"}


class Site:
    """A dashboard, a configuration, and files with keys."""

    def __init__(self, folder: Path, dashboard: ReceivingDashboard) -> None:
        self.folder = folder
        self.path = folder / "config.json"
        self.dashboard = dashboard

    def configure(self, **settings: Any) -> None:
        self.path.write_text(json.dumps({"api_url": self.dashboard.url, **NO_SLURM, **settings}))
        self.path.chmod(0o600)

    def run(self, *options: str, key: str = "", mode: int = 0o600) -> int:
        key_file = self.folder / "key"
        key_file.write_text(key or DEPLOY_KEY)
        key_file.chmod(mode)
        how = ["--api-key-file" if key else "--deploy-key", str(key_file)]
        return main(["--config", str(self.path), "setup", "--yes", "--api-url", self.dashboard.url, *how, *options])

    def kept(self) -> list[Path]:
        return sorted(self.folder.glob("config.key.*"))


@pytest.fixture
def site(tmp_path: Path) -> Any:
    with ReceivingDashboard(api_keys={API_KEY, SHARED}) as dashboard:
        made = Site(tmp_path, dashboard)
        made.configure()
        yield made


def test_a_key_of_a_cluster(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The cluster's name is requested and stored, and no new folder appears on the dashboard."""
    assert 0 == site.run(key=API_KEY)
    assert "lab" == load_config(site.path, {}).cluster_name
    assert (set(), []) == (site.dashboard.folders, site.dashboard.posts)
    assert [
        "jobs are sent to the dashboard as lab",
        "it will display lab once jobs have been delivered and the dashboard has been restarted",
        f"{site.path} is set up; run `slurm-usage-history-exporter check` to test the rest",
    ] == capsys.readouterr().out.splitlines()


def test_a_name_other_than_that_of_the_key_is_corrected(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs sent under another name would be stored and never shown."""
    site.dashboard.shown = ["lab"]
    site.configure(cluster_name="other")
    assert 0 == site.run(key=API_KEY)
    assert "lab" == load_config(site.path, {}).cluster_name
    assert "jobs are sent to the dashboard as lab" == capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
@pytest.mark.parametrize(("key", "kind"), [(API_KEY, "API key"), ("", "deploy key")])
def test_a_key_file_that_others_can_read(
    site: Site, capsys: pytest.CaptureFixture[str], key: str, kind: str, mode: int
) -> None:
    """The key is used, and a warning names the file; a private file causes none."""
    assert 0 == site.run(key=key, mode=mode)
    file = site.folder / "key"
    warning = f"{file} holds the {kind}, but other users can read or write it: chmod 600 {file}"
    assert (warning in capsys.readouterr().err) == (mode != 0o600)


def test_a_shared_key(site: Site) -> None:
    """The key is tested by an empty POST under the cluster's own name, and not at all without a name."""
    site.configure(cluster_name="mine")
    assert 0 == site.run(key=SHARED)
    assert ({"mine"}, "mine") == (site.dashboard.folders, load_config(site.path, {}).cluster_name)
    assert 0 == site.run("--cluster-name", "given", key=SHARED)
    assert {"mine", "given"} == site.dashboard.folders


def test_a_shared_key_without_a_name(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says what is missing, and no name is made up."""
    assert KeyRefused.exit_code == site.run(key=SHARED)
    said = capsys.readouterr().err
    assert (set(), True) == (site.dashboard.folders, "cluster_name (or --cluster-name)" in said)


def test_a_wrong_key(site: Site) -> None:
    """Both ways of testing report that the key is refused."""
    site.configure(cluster_name="mine")
    assert KeyRefused.exit_code == site.run(key="wrong")
    assert set() == site.dashboard.folders


def test_a_dashboard_without_the_agents_interface(site: Site) -> None:
    """An older dashboard answers 404 there, so the key is tested by an empty POST."""
    site.configure(cluster_name="mine")
    site.dashboard.faults.extend([faults.answer(404, {"detail": "Not Found"})] * 2)
    assert 0 == site.run(key=API_KEY)
    assert {"mine"} == site.dashboard.folders


def test_a_redirect_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the target, whichever kind of key is set up."""
    site.dashboard.manners = faults.answer(301, "", Location="https://new.example.com/x")
    assert DashboardUnreachable.exit_code == site.run()
    said = capsys.readouterr().err
    assert "redirects to 'https://new.example.com/x'" in said
    assert "set api_url to the target of the redirect" in said


@pytest.mark.parametrize("sent", ["the-key\n", "  the-key", "the-key\r\n"])
def test_white_space_around_a_key_is_removed(site: Site, sent: str) -> None:
    """Around the key and the cluster's name."""
    body = {"status": "success", "cluster_name": " lab\n", "api_key": sent}
    site.dashboard.manners = faults.answer(200, body)
    assert 0 == site.run()
    config = load_config(site.path, {})
    assert ("the-key", "lab") == (config.api_key, config.cluster_name)


@pytest.mark.parametrize(
    "body",
    [
        {"api_key": "two\nlines"},
        {"api_key": "ümlaut"},
        {"api_key": ["a-list"]},
        {"data": {"api_key": "deeper"}},
        'api_key = "no JSON"',
        {"api_key": "\ud800"},
    ],
)
def test_a_key_that_cannot_be_used_is_kept(site: Site, body: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The deploy key is used up, so the whole answer is saved where only its owner can read it."""
    site.dashboard.manners = faults.answer(201, body)
    before = site.path.read_bytes()
    assert DashboardUnreachable.exit_code == site.run()
    (kept,) = site.kept()
    assert "api_key" in kept.read_text()
    assert (0o600, before) == (stat.S_IMODE(kept.stat().st_mode), site.path.read_bytes())
    said = capsys.readouterr().err
    assert f"which cannot be requested again, is saved in {kept}" in said
    assert "returned an unusable API key" in said


@pytest.mark.parametrize("name", ["", None, 7, "two\nlines", "\x1b[31mred", "x" * 10_000])
def test_a_text_that_is_not_a_name(site: Site, name: Any) -> None:
    """The name is left out: the one in the configuration is used, or Slurm is asked."""
    site.dashboard.manners = faults.answer(200, {"cluster_name": name, "api_key": "the-key"})
    site.configure(cluster_name="mine")
    assert 0 == site.run()
    assert ("the-key", "mine") == (load_config(site.path, {}).api_key, load_config(site.path, {}).cluster_name)


def test_a_disk_that_fills_up_after_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is kept, as the deploy key is used up."""
    path = tmp_path / "config.toml"

    def fetch(_: Any) -> tuple[str, str]:
        monkeypatch.setattr(config_writer, "write_beside", refuse)
        return "lab", "the-key"

    def refuse(*_: Any, **__: Any) -> Path:
        raise ConfigError("cannot write it: No space left on device")

    with pytest.raises(ConfigError, match="No space left") as caught:
        setup.set_up(config_writer.ConfigWriter(path), "https://d", fetch, may_replace=lambda: True)
    (kept,) = tmp_path.glob("config.key.*")
    assert (f"the new key is saved in {kept}", "the-key\n") == (caught.value.hint, kept.read_text())


def test_an_exchange_without_an_answer(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The error warns that the deploy key may be used up."""
    site.dashboard.manners = faults.store_and_reset
    assert DashboardUnreachable.exit_code == site.run()
    assert "the deploy key may have been used up" in capsys.readouterr().err


def test_the_new_key_is_in_no_message(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that contains the key does not reveal it, and is saved as well."""
    site.dashboard.manners = faults.rewrite(lambda answer: Answer(500, {"detail": answer.body}))
    assert DashboardUnreachable.exit_code == site.run()
    (key,) = site.dashboard.api_keys - {API_KEY, SHARED}
    assert key not in capsys.readouterr().err
    assert key in site.kept()[0].read_text()
