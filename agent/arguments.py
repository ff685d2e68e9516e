"""The command line: its commands, options and help."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Callable, Mapping, NoReturn, Sequence

from agent import __version__
from agent.config import NAME
from agent.errors import UsageError
from agent.localtime import parse_day
from agent.options import (
    INSTANCE,
    CheckOptions,
    FlushOptions,
    GlobalOptions,
    QueueOptions,
    ReconcileOptions,
    RunOptions,
    SetupOptions,
    StatusOptions,
)
from agent.wording import did_you_mean

DESCRIPTION = """\
Reports finished Slurm jobs to a usage dashboard. `flush` delivers the jobs that
slurmctld's hook has queued. `reconcile` reads the last days of Slurm's
accounting and delivers what the hook missed. It is the default command, and
takes --start-date, --end-date and --only-missing. COMMAND --help lists the
options of a command."""

#: How long `check --wait` waits by default, and the most that it accepts.
WAIT_SECONDS = 600
LONGEST_HOOK_WAIT_SECONDS = 86_400

EPILOG = """\
examples:
  slurm-usage-history-exporter --dry-run --verbose
      show what a reconcile would send
  slurm-usage-history-exporter flush
      deliver what is queued
  slurm-usage-history-exporter --start-date 2024-01-01 --end-date 2024-01-31
      send January again
  slurm-usage-history-exporter queue add 4711
      send job 4711 again
  slurm-usage-history-exporter status
      show health, backlog and the latest runs
  slurm-usage-history-exporter check
      test every prerequisite and show how to fix what is wrong
  slurm-usage-history-exporter setup --api-url https://HOST --deploy-key -
      prompt for a one-time key and exchange it for the API key
  slurm-usage-history-exporter run --every 30s
      flush and reconcile in a container, until stopped

exit codes:
    0  done, or nothing to do
    1  unexpected error, or an unusable spool
    2  wrong usage
   65  some records were rejected; the others were delivered
   69  dashboard or Slurm unreachable; everything is kept
   75  another run holds the lock
   77  the dashboard refused the API key
   78  configuration error
  130  stopped by Ctrl-C or SIGTERM; undelivered jobs are kept
  `status --check` exits 0 (OK), 1 (warning) or 2 (critical). `check` exits 1 if
  anything is wrong.

files:
  The configuration is config.toml or config.json, in
  /etc/slurm-usage-history-exporter/ or else in
  ~/.config/slurm-usage-history-exporter/. The spool is
  /var/spool/slurm-usage-history-exporter/; for a user's own installation it is
  ~/.local/state/slurm-usage-history-exporter/. With --instance physics they are
  /etc/slurm-usage-history-exporter/physics/config.toml and
  /var/spool/slurm-usage-history-exporter@physics/.

environment:
  SLURM_USAGE_HISTORY_API_KEY and SLURM_USAGE_HISTORY_SPOOL take precedence over
  the configuration. HTTPS_PROXY, HTTP_PROXY, NO_PROXY and NO_COLOR are honoured."""

LONGEST_SPAN_SECONDS = 366 * 86_400

#: For each action of ``queue``: how many JobIDs it takes (argparse's ``nargs``), and what it does.
QUEUE_ACTIONS = {
    "list": (None, "show queued, waiting and rejected jobs"),
    "add": ("+", "queue jobs for the next flush"),
    "retry": ("*", "retry waiting and rejected jobs in the next flush; all of them if none is named"),
    "drop": ("+", "discard waiting jobs and rejected records without sending them"),
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Finds the screen's width itself: argparse would import half a dozen libraries for it, once per option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_screen_width() - 2)


def _screen_width() -> int:
    with suppress(KeyError, ValueError):
        return int(os.environ["COLUMNS"])
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    return 80


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting: only ``cli.main`` exits."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def parse_argv(argv: Sequence[str]) -> tuple[GlobalOptions, Any]:
    """Parses the command line into the global options and those of the command.

    Options may precede or follow the command. The global options are taken out first, wherever they are. The
    first remaining word that names a command is the command; without one it is reconcile.

    :raises UsageError: if it makes no sense.
    :raises SystemExit: after --help and --version, as argparse does.
    """
    everywhere = _Parser(prog=NAME, add_help=False)
    _add_global_options(everywhere)
    everything, rest = everywhere.parse_known_args(argv, GlobalOptions())
    given = next((word for word in rest if word in COMMANDS), None)
    if "--version" in rest or (not given and {"-h", "--help"} & set(rest)):
        build_parser().parse_args([word for word in rest if word in {"-h", "--help", "--version"}])
    if given:
        rest.remove(given)
    if given == "queue":
        _check_action(rest)
    command = given or "reconcile"
    about, add_options, make_options = COMMANDS[command]
    parser = _Parser(prog=f"{NAME} {command}", description=_sentence(about))  # building only one takes less time
    _add_global_options(parser)
    add_options(parser)
    options, unknown = parser.parse_known_args(rest, make_options())
    if unknown:
        _refuse(unknown[0], parser, given)
    if isinstance(options, ReconcileOptions):
        _check_days(options)
    if everything.config and everything.instance:
        hint = f"the instance's configuration is /etc/{NAME}/{everything.instance}/config.toml"
        raise UsageError("--config and --instance exclude each other", hint=hint)
    return everything, options


def _refuse(word: str, parser: argparse.ArgumentParser, command: str | None) -> NoReturn:
    if not word.startswith("-") and command is None:
        text = f"unknown command {word!r}{did_you_mean(word, COMMANDS)}"
        raise UsageError(text, hint=f"use one of: {', '.join(COMMANDS)}")
    if not word.startswith("-"):
        parser.error(f"unexpected argument {word!r}")
    known = (option for action in parser._actions for option in action.option_strings)
    option = word.partition("=")[0]
    parser.error(f"{command or 'reconcile'} has no option {option}{did_you_mean(option, known)}")


def _check_action(words: Sequence[str]) -> None:
    word = next((word for word in words if not word.startswith("-")), None)
    if word is not None and word not in QUEUE_ACTIONS:
        text = f"queue has no action {word!r}{did_you_mean(word, QUEUE_ACTIONS)}"
        raise UsageError(text, hint=f"use one of: {', '.join(QUEUE_ACTIONS)}")


def _check_days(options: ReconcileOptions) -> None:
    start, end = options.start_date, options.end_date
    if start and end and start > end:
        raise UsageError(f"--start-date {start} is after --end-date {end}", hint="swap the two")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands, for --help, the man page and the completions."""
    parser = _Parser(prog=NAME, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    _add_global_options(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (about, add_options, _) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=_sentence(about))
        _add_global_options(command)
        add_options(command)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _add_global_options(parser: argparse.ArgumentParser) -> None:
    # No defaults here: GlobalOptions has them.
    group = parser.add_argument_group("options of every command", argument_default=argparse.SUPPRESS)
    group.add_argument("--config", type=Path, metavar="PATH", help="configuration file, TOML or JSON")
    group.add_argument("--cluster-name", metavar="NAME", help="the cluster's name on the dashboard")
    group.add_argument(
        "--instance", type=_instance, metavar="NAME", help="instance of this host: another cluster or dashboard"
    )
    group.add_argument("--dry-run", action="store_true", help="show what would be done; send and change nothing")
    group.add_argument("--verbose", action="store_true", help="log each decision")


def _add_reconcile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--start-date", type=_day, metavar="YYYY-MM-DD", help="first day; by default collection_window_days ago"
    )
    parser.add_argument("--end-date", type=_day, metavar="YYYY-MM-DD", help="last day, inclusive; by default today")
    parser.add_argument("--only-missing", action="store_true", help="send only jobs that are missing or have changed")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--every", type=_span, default=30.0, metavar="SPAN", help="time between flushes; by default 30s"
    )
    parser.add_argument(
        "--reconcile-every",
        type=_span,
        default=86_400.0,
        metavar="SPAN",
        help="time between reconciles; by default 1d",
    )
    parser.add_argument(
        "--health-file",
        type=Path,
        metavar="FILE",
        help="write this file after each run, for a liveness probe",
    )


def _add_queue_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    for name, (count, text) in QUEUE_ACTIONS.items():
        action = actions.add_parser(name, help=text, description=_sentence(text))
        _add_global_options(action)
        if count:
            action.add_argument("jobs", nargs=count, metavar="JOBID", help="a job's ID, such as 4711 or 203_3")
        else:
            action.add_argument("--all", action="store_true", help="show all jobs, not only the newest of each kind")


def _add_status_options(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--check",
        action="store_true",
        help="print one line with performance data and exit 0, 1 or 2, like a Nagios or Icinga plugin",
    )


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--wait",
        type=_seconds,
        nargs="?",
        const=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"wait for slurmctld to call the hook, by default for up to {WAIT_SECONDS} s",
    )
    parser.add_argument(
        "--test-job",
        action="store_true",
        help="submit a job that ends at once and wait for the call; the job appears on the dashboard, with zero hours"
        " if JobCompLoc calls the hook",
    )


def _add_setup_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--api-url", required=True, metavar="URL", help="the dashboard's URL")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument(
        "--deploy-key", metavar="FILE", help="a file that holds a one-time key; - reads it from standard input"
    )
    key.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file that holds the API key")
    parser.add_argument(
        "--allow-http", action="store_true", help="accept an http:// URL: the key is sent to that host in plain text"
    )
    parser.add_argument("--yes", action="store_true", help="replace an existing key without asking")


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LONGEST_HOOK_WAIT_SECONDS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to {LONGEST_HOOK_WAIT_SECONDS}")
    return int(text)


def _span(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})(s|m|min|h|d|)", text, re.ASCII)
    seconds = int(match[1]) * {"m": 60, "min": 60, "h": 3600, "d": 86_400}.get(match[2], 1) if match else 0
    if not 0 < seconds <= LONGEST_SPAN_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a span of time such as 30s, 5m, 12h or 1d, up to 366d")
    return float(seconds)


def _instance(text: str) -> str:
    if not INSTANCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"invalid instance name {text!r}: use at most 64 letters, digits, - and _")
    return text


def _day(text: str) -> date:
    try:
        return parse_day(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; write it as 2024-01-31") from None


#: Each command: what it does, how its options are read, and what they become.
COMMANDS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], object], Callable[[], Any]]] = {
    "flush": ("deliver the jobs that the hook has queued", lambda parser: None, FlushOptions),
    "reconcile": (
        "deliver what the hook missed in the collection window, or resend any range of days",
        _add_reconcile_options,
        ReconcileOptions,
    ),
    "run": ("flush and reconcile in a loop, for containers", _add_run_options, RunOptions),
    "queue": ("list, add, retry or drop queued, waiting and rejected jobs", _add_queue_options, QueueOptions),
    "status": ("show health, backlog and the latest runs", _add_status_options, StatusOptions),
    "check": ("test every prerequisite and say how to fix what is wrong", _add_check_options, CheckOptions),
    "setup": (
        "exchange a one-time deploy key for the API key and write the configuration",
        _add_setup_options,
        SetupOptions,
    ),
}
