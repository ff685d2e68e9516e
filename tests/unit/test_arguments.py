"""The command line is understood wherever its options stand."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from agent import __version__
from agent.arguments import COMMANDS, parse_argv
from agent.errors import UsageError
from agent.options import QueueOptions, ReconcileOptions, StatusOptions


def parsed(line: str) -> tuple[object, ...]:
    """The parsed line: the given options of every command, the command's class, and its own options."""
    everything, own = parse_argv(line.split())
    return vars(everything), type(own), vars(own)


@pytest.mark.parametrize(
    "line",
    [
        "--config c.toml --dry-run --start-date 2024-01-01 reconcile --only-missing",
        "reconcile --only-missing --start-date=2024-01-01 --dry-run --config=c.toml",
        "--dry-run --only-missing --start-date 2024-01-01 --config c.toml",
    ],
)
def test_options_before_or_after_or_without_the_command(line: str) -> None:
    """The command may stand anywhere; without one it is reconcile, as in the earlier exporter."""
    own = {"start_date": date(2024, 1, 1), "end_date": None, "only_missing": True}
    assert ({"config": Path("c.toml"), "dry_run": True}, ReconcileOptions, own) == parsed(line)


@pytest.mark.parametrize(
    "line",
    ["--dry-run queue --verbose add 1 2", "queue add 1 2 --dry-run --verbose", "queue add 1 --verbose 2 --dry-run"],
)
def test_options_around_the_actions_of_queue(line: str) -> None:
    """Those of every command are also those of queue's actions."""
    own = {"action": "add", "jobs": ["1", "2"]}
    assert ({"dry_run": True, "verbose": True}, QueueOptions, own) == parsed(line)


def test_a_commands_name_can_be_a_value() -> None:
    """The value of an option is not taken for a command."""
    assert ({"cluster_name": "flush"}, StatusOptions, {}) == parsed("--cluster-name flush status")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("flsh", "unknown command 'flsh'; did you mean flush[?]"),
        ("--end-date 2024-01-01 x", "unknown command 'x'$"),
        ("queue lst", "queue has no action 'lst'; did you mean list[?]"),
        ("status now", "unexpected argument 'now'"),
        ("flush status", "unexpected argument 'status'"),
        ("--strat-date=2024-01-01", "reconcile has no option --strat-date; did you mean --start-date[?]"),
        ("--start-date 2024-02-01 --end-date 2024-01-01", "--start-date 2024-02-01 is after --end-date 2024-01-01"),
        ("--start-date 31.1.2024", "'31.1.2024' is not a date; write it as 2024-01-31"),
        ("flush --start-date 2024-01-01", "flush has no option --start-date$"),
        ("--dry", "reconcile has no option --dry; did you mean --dry-run[?]"),
        ("queue", "required"),
        ("queue add", "required"),
        ("setup", "required"),
    ],
)
def test_wrong_usage_is_reported(line: str, words: str) -> None:
    """Contradictory options are refused with the reason."""
    with pytest.raises(UsageError, match=words):
        parse_argv(line.split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_needs_no_other_argument(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every command, or every option of one, without a configuration."""
    with pytest.raises(SystemExit) as stop:
        parse_argv([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert (0, True) == (stop.value.code, "--config" in text)
    assert all(name in text for name in ([] if command else COMMANDS))


@pytest.mark.parametrize("line", ["--version", "status --version"])
def test_the_version_needs_no_other_argument(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--version works anywhere on the command line."""
    with pytest.raises(SystemExit) as stop:
        parse_argv(line.split())
    assert (0, f"slurm-usage-history-exporter {__version__}\n") == (stop.value.code, capsys.readouterr().out)
