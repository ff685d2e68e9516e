"""The command line is understood wherever its options stand."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from agent.arguments import COMMANDS, parse_argv
from agent.errors import UsageError


@pytest.mark.parametrize(
    "line",
    [
        "--config c.toml --dry-run --start-date 2024-01-01 reconcile --only-missing",
        "reconcile --only-missing --start-date=2024-01-01 --dry-run --config=c.toml",
        "--dry-run --only-missing --start-date 2024-01-01 --config c.toml",
    ],
)
def test_options_before_or_after_or_without_the_command(line: str) -> None:
    """The command may stand anywhere; without one it is reconcile, as it was in the exporter before this one."""
    options = parse_argv(line.split())
    assert ("reconcile", Path("c.toml"), True, True, date(2024, 1, 1), None) == (
        options.command,
        options.config,
        options.dry_run,
        options.only_missing,
        options.start_date,
        options.end_date,
    )


@pytest.mark.parametrize("line", ["--dry-run queue --verbose list", "queue list --dry-run --verbose"])
def test_options_around_the_actions_of_queue(line: str) -> None:
    """Those of every command are also those of queue's actions."""
    options = parse_argv(line.split())
    assert ("queue", "list", True, True) == (options.command, options.action, options.dry_run, options.verbose)


def test_a_commands_name_can_be_a_value() -> None:
    """What follows an option that takes a value is no command."""
    options = parse_argv(["--cluster-name", "flush", "status"])
    assert ("status", "flush") == (options.command, options.cluster_name)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("flsh", "'flsh' is no command"),
        ("--start-date 2024-02-01 --end-date 2024-01-01", "--start-date 2024-02-01 is after --end-date 2024-01-01"),
        ("--start-date 31.1.2024", "'31.1.2024' is no date; write it as 2024-01-31"),
        ("flush --start-date 2024-01-01", "unrecognized arguments"),
        ("--dry", "unrecognized arguments"),
        ("queue", "required"),
        ("queue add", "required"),
        ("setup", "required"),
    ],
)
def test_wrong_usage_is_told(line: str, words: str) -> None:
    """What can't be meant is refused with the reason."""
    with pytest.raises(UsageError, match=words):
        parse_argv(line.split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_stands_alone(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every command, or every option of one, without a configuration."""
    with pytest.raises(SystemExit) as stop:
        parse_argv([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert (0, True) == (stop.value.code, "--config" in text)
    assert all(name in text for name in ([] if command else COMMANDS))
