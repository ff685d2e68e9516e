"""Several clusters or dashboards from one host: each with a configuration, a spool and units of its own."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Sequence

import pytest

from agent import cli
from agent.arguments import parse_argv
from agent.check.finding import NotWell
from agent.check.slurm import check_hook, find_spools
from agent.check.timers import Cron, read_units
from agent.check.wiring import Call, find_hook_in
from agent.config import NAME, SYSTEM_FOLDER, SYSTEM_SPOOL, candidate_paths, default_spool, load_config, parse_config
from agent.errors import UsageError
from agent.install_paths import find_hook
from agent.slurm.process import Output
from agent.status.metrics import write_metrics
from agent.wording import name_instance
from tests.support.snapshots import make_snapshot

LEAST = {"api_url": "https://dashboard.example.com", "api_key": "key"}
HOOK = str(Path(__file__).parents[2] / "hooks/jobcomp.sh")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that holds the configuration of the instance physics, and none of the host's own."""
    folder = tmp_path / ".config" / NAME / "physics"
    folder.mkdir(parents=True)
    config = folder / "config.toml"
    (tmp_path / "spool").mkdir(exist_ok=True)
    config.write_text(f'api_url = "https://physics.example.com"\napi_key = "key"\nspool_dir = "{tmp_path}/spool"\n')
    config.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def test_an_instance_has_its_own_configuration_and_spool() -> None:
    """A folder in the host's own configuration, and a spool beside the host's own."""
    assert SYSTEM_FOLDER / "physics/config.toml" == candidate_paths({}, "physics")[0]
    assert Path(f"{SYSTEM_SPOOL}@physics") == default_spool({}, "physics")
    assert Path(f"{SYSTEM_SPOOL}@physics") == parse_config(LEAST, {}, instance="physics").spool_dir


def test_without_an_instance_nothing_changes() -> None:
    """The plain installation knows nothing of instances."""
    assert SYSTEM_FOLDER / "config.toml" == candidate_paths({})[0]
    assert SYSTEM_SPOOL == parse_config(LEAST, {}).spool_dir
    assert "" == parse_argv(["status"])[0].instance


def test_every_command_takes_its_configuration(home: Path) -> None:
    """None falls back on the host's own."""
    config = load_config(None, os.environ, instance="physics")
    assert ("https://physics.example.com", "physics") == (config.api_url, config.instance)
    (home / "spool").mkdir(exist_ok=True)
    assert 78 == cli.main(["--instance", "chemistry", "flush"])
    assert 0 == cli.main(["queue", "list", "--instance", "physics"])


def test_a_path_to_an_instances_configuration_selects_the_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--config with an instance's file uses that instance's spool, not the host's own."""
    monkeypatch.setattr("agent.config.SYSTEM_FOLDER", tmp_path)
    for folder, instance in ((tmp_path, ""), (tmp_path / "physics", "physics")):
        folder.mkdir(exist_ok=True)
        config = folder / "config.toml"
        config.write_text('api_url = "https://d.example.com"\napi_key = "k"\n')
        config.chmod(0o600)
        assert instance == load_config(config, {}).instance


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "a.b", "a@b", "ä", "a\n", "a" * 65])
def test_a_name_is_a_plain_word(name: str) -> None:
    """The name becomes part of paths and unit names unchanged."""
    with pytest.raises(UsageError, match="invalid instance name"):
        parse_argv([f"--instance={name}", "status"])


def test_one_configuration_at_a_time() -> None:
    """Given a file and an instance, one would be silently ignored."""
    with pytest.raises(UsageError, match="exclude each other"):
        parse_argv(["--config", "/etc/other.toml", "--instance", "physics", "status"])


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (f"see `{NAME} queue list`", f"see `{NAME} --instance physics queue list`"),
        (f"systemctl edit {NAME}.service", f"systemctl edit {NAME}@physics.service"),
        (f"{NAME}-flush.timer is inactive", f"{NAME}-flush@physics.timer is inactive"),
        (f"/etc/{NAME}/config.toml", f"/etc/{NAME}/config.toml"),
        (f"/usr/bin/{NAME} status", f"/usr/bin/{NAME} status"),
        (f"{NAME} 1.0.0, to https://d", f"{NAME} 1.0.0, to https://d"),
    ],
)
def test_printed_commands_can_be_run_unchanged(reported: str, expected: str) -> None:
    """Commands and units are the instance's; files are named as they are."""
    assert expected == name_instance(reported, "physics")
    assert reported == name_instance(reported, "")


def test_errors_and_screens_name_the_instance(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the log, and on the screen."""
    cli.main(["--instance", "physics", "check"])
    assert f"{NAME}-flush@physics.timer" in capsys.readouterr().out
    cli.main(["--instance", "chemistry", "flush"])
    assert f"`{NAME} --instance chemistry setup`" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="another user makes an instance in his home by setup alone")
def test_root_creates_the_instance_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its owner can't be guessed, and a spool of root's would stop the hook."""
    argv = ["--instance", "chemistry", "setup", "--api-url", "https://d.example.com", "--deploy-key", "-"]
    assert 78 == cli.main(argv)
    assert "create it first: " in capsys.readouterr().err


def test_check_asks_systemd_for_the_instances_units() -> None:
    """`check` finds the units by the names that all texts use."""
    asked: list[str] = []

    def run(argv: Sequence[str]) -> Output:
        asked.extend(argv)
        text = f"Id={NAME}-flush@physics.timer\nLoadState=loaded\nActiveState=active\n"
        return Output(0, BytesIO(text.encode()), "")

    units = read_units(run, {}, "physics")
    assert {f"{NAME}@physics.timer", f"{NAME}-flush@physics.service"} <= set(asked)
    assert f"{NAME}.timer" not in asked
    assert "active" == units[f"{NAME}-flush.timer"]["ActiveState"]


def test_a_cron_line_of_another_instance_does_not_count(tmp_path: Path) -> None:
    """Only one that names this one, in whatever file."""
    (tmp_path / NAME).write_text(f"* * * * * slurm {NAME} --instance chemistry flush\n")
    assert "" == Cron(tmp_path / NAME, instance="physics").table()
    (tmp_path / "usage").write_text(f"* * * * * slurm {NAME} --instance physics flush\n")
    assert str(tmp_path / "usage") == Cron(tmp_path / NAME, instance="physics").table()


def test_one_hook_can_feed_several_instances(tmp_path: Path) -> None:
    """check sees each spool that the script feeds, and says which one is missing."""
    script = tmp_path / "jobcomp.sh"
    script.write_text(f"#!/bin/sh\nSLURM_USAGE_HISTORY_SPOOL={tmp_path}/one {HOOK}\nexit 0\n")
    script.chmod(0o755)
    call = Call("JobCompLoc", script, find_hook_in(script) or Path())
    assert f"writes to {tmp_path}/one" == check_hook(call, tmp_path / "one", HOOK)
    with pytest.raises(NotWell, match="the hook writes to") as missing:
        check_hook(call, tmp_path / "two", HOOK)
    assert f"add a line with SLURM_USAGE_HISTORY_SPOOL={tmp_path}/two" in (missing.value.hint or "")
    script.write_text(f"{script.read_text()}SLURM_USAGE_HISTORY_SPOOL={tmp_path}/two {HOOK}\n{HOOK}\n")
    assert [tmp_path / "one", tmp_path / "two", SYSTEM_SPOOL] == find_spools(script.read_text())


def test_the_hook_to_wire_is_the_instances() -> None:
    """The one that adapt has made beside its configuration."""
    assert f"/etc/{NAME}/physics/jobcomp.sh" == find_hook("physics")


def test_metrics_of_instances_can_share_a_folder(tmp_path: Path) -> None:
    """node-exporter takes a metric once for each set of labels."""
    for instance in ("", "physics"):
        snapshot = make_snapshot()
        config = snapshot.config._replace(instance=instance)
        write_metrics(tmp_path / f"{instance}.prom", snapshot._replace(config=config))
    plain, physics = (sorted((tmp_path / name).read_text().splitlines()) for name in (".prom", "physics.prom"))
    assert [] == [line for line in plain if "exporter_instance" in line]
    samples = [line for line in physics if not line.startswith("#")]
    assert [] == [line for line in samples if 'exporter_instance="physics"' not in line]
    assert not set(samples) & set(plain)
