"""The command line: its commands, options and help."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple, NoReturn, Sequence

from agent import __version__
from agent.config import INSTANCE, NAME
from agent.errors import UsageError
from agent.localtime import parse_day
from agent.wording import did_you_mean

DESCRIPTION = """\
Brings finished Slurm jobs to a usage dashboard: `flush` delivers what
slurmctld's hook has queued, `reconcile` replays a window of Slurm's accounting
and catches what the hook missed. Without a command: reconcile, with its
--start-date, --end-date and --only-missing. COMMAND --help tells the options of
each."""

#: How long `check --wait` waits without a number, and how long it may be told to.
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
      see how it is doing
  slurm-usage-history-exporter check
      see what is wrong, and how to mend it

exit codes:
    0  done, or nothing to do
    1  unexpected error, or an unusable spool
    2  wrong usage
   65  some records were rejected; the others went through
   69  dashboard or Slurm unreachable; everything is kept
   75  another run is at work
   77  the dashboard refused the API key
   78  configuration error
  130  stopped by Ctrl-C or SIGTERM; what is not delivered is kept
  `status --check` exits 0, 1 or 2 for well, warning or critical, and `check`
  exits 1 where anything is wrong.

files:
  /etc/slurm-usage-history-exporter/config.toml, else config.json there; else
  the same in ~/.config/slurm-usage-history-exporter/. The spool is
  /var/spool/slurm-usage-history-exporter/; for a user, where that is not
  there, ~/.local/state/slurm-usage-history-exporter/. With --instance physics:
  /etc/slurm-usage-history-exporter/physics/config.toml, and
  /var/spool/slurm-usage-history-exporter@physics/.

environment:
  SLURM_USAGE_HISTORY_API_KEY and SLURM_USAGE_HISTORY_SPOOL go before the
  configuration. HTTPS_PROXY, HTTP_PROXY, NO_PROXY and NO_COLOR are heeded."""

LONGEST_SPAN_SECONDS = 366 * 86_400

COMMANDS = {
    "flush": "deliver the jobs that the hook has queued",
    "reconcile": "replay the collection window, or any range of days, and count what flush missed",
    "run": "flush and reconcile by itself, for ever: for containers, without systemd and cron",
    "queue": "look at and repair what is queued, waiting or rejected",
    "status": "show how it is doing",
    "check": "test every prerequisite and say how to mend what is wrong",
    "setup": "exchange a one-time deploy key for the API key and write the configuration",
}


#: For each action of ``queue``: how many JobIDs it takes, as argparse has it, and what it does.
QUEUE_ACTIONS = {
    "list": (None, "show what is queued, waiting and rejected"),
    "add": ("+", "queue jobs, to be sent by the next flush"),
    "retry": ("*", "try waiting and rejected jobs again with the next flush; all of them if none is named"),
    "drop": ("+", "never send these waiting jobs and rejected records"),
}


class GlobalOptions(NamedTuple):
    """The options of every command."""

    config: Path | None = None
    cluster_name: str | None = None
    instance: str = ""
    dry_run: bool = False
    verbose: bool = False


class FlushOptions(NamedTuple):
    """What ``flush`` is asked for, which has no options of its own."""


class ReconcileOptions(NamedTuple):
    """What ``reconcile`` is asked for. Days are the cluster's, both included."""

    start_date: date | None
    end_date: date | None
    only_missing: bool


class RunOptions(NamedTuple):
    """How ``run`` goes on; in seconds."""

    every: float
    reconcile_every: float
    health_file: Path | None


class QueueOptions(NamedTuple):
    """What ``queue`` is asked for."""

    action: str
    jobs: Sequence[str] = ()
    all: bool = False


class StatusOptions(NamedTuple):
    """How ``status`` is to be shown."""

    json: bool
    check: bool


class CheckOptions(NamedTuple):
    """How the findings of ``check`` are to be shown, and whether a real call of the hook is to be seen."""

    json: bool
    wait: int | None = None  # seconds
    test_job: bool = False


class SetupOptions(NamedTuple):
    """What ``setup`` is asked for; one of the two keys is given."""

    api_url: str
    deploy_key: str | None
    api_key_file: Path | None
    allow_http: bool
    yes: bool


class _Help(argparse.RawDescriptionHelpFormatter):
    """Asks for the screen's width itself: argparse loads half a dozen libraries for it, with each option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_screen_width() - 2)


def _screen_width() -> int:
    with suppress(KeyError, ValueError):
        return int(os.environ["COLUMNS"])
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    return 80


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting: the command line's main function is the only place that exits."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def parse_argv(argv: Sequence[str]) -> tuple[GlobalOptions, Any]:
    """Reads the command line: the options of every command, and those of the command that was given.

    Options stand before or after the command. The options of every command are taken out first, wherever they stand;
    of what is left, the first word that is a command's name is the command. Without one it is reconcile.

    :raises UsageError: where it makes no sense.
    :raises SystemExit: after --help and --version, as argparse does.
    """
    everywhere = _Parser(prog=NAME, add_help=False)
    _add_global_options(everywhere)
    found, rest = everywhere.parse_known_args(argv)
    given = next((word for word in rest if word in COMMANDS), None)
    if "--version" in rest or (not given and {"-h", "--help"} & set(rest)):
        build_parser().parse_args([word for word in rest if word in {"-h", "--help", "--version"}])
    if given:
        rest.remove(given)
    if given == "queue":
        _check_action(rest)
    parser = _make_parser(given or "reconcile")
    own, unknown = parser.parse_known_args(rest)
    if unknown:
        _refuse(unknown[0], parser, given)
    options = _COMMANDS[given or "reconcile"].options(**vars(own))
    if isinstance(options, ReconcileOptions):
        _check_days(options)
    everything = GlobalOptions(**vars(found))
    if everything.config and everything.instance:
        hint = f"the instance's configuration is /etc/{NAME}/{everything.instance}/config.toml"
        raise UsageError("--config and --instance exclude each other", hint=hint)
    return everything, options


def _refuse(word: str, parser: argparse.ArgumentParser, command: str | None) -> NoReturn:
    if not word.startswith("-") and command is None:
        raise UsageError(f"{word!r} is no command{did_you_mean(word, COMMANDS)}", hint=f"one of: {', '.join(COMMANDS)}")
    if not word.startswith("-"):
        parser.error(f"{word!r} is one word too many")
    known = (option for action in parser._actions for option in action.option_strings)
    option = word.partition("=")[0]
    parser.error(f"{command or 'reconcile'} has no option {option}{did_you_mean(option, known)}")


def _check_action(words: Sequence[str]) -> None:
    word = next((word for word in words if not word.startswith("-")), None)
    if word is not None and word not in QUEUE_ACTIONS:
        said = f"{word!r} is no action of queue{did_you_mean(word, QUEUE_ACTIONS)}"
        raise UsageError(said, hint=f"one of: {', '.join(QUEUE_ACTIONS)}")


def _check_days(options: ReconcileOptions) -> None:
    start, end = options.start_date, options.end_date
    if start and end and start > end:
        raise UsageError(f"--start-date {start} is after --end-date {end}", hint="swap the two")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands: their help, and what documentation and completion are made from."""
    parser = _Parser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    _add_global_options(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, text in COMMANDS.items():
        _fill(commands.add_parser(name, help=text, description=_sentence(text)), name)
    return parser


def _make_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one command, which takes a fraction of the time of all of them."""
    parser = _Parser(prog=f"{NAME} {command}", description=_sentence(COMMANDS[command]))
    _fill(parser, command)
    return parser


def _fill(parser: argparse.ArgumentParser, command: str) -> None:
    _add_global_options(parser)
    _COMMANDS[command].add_options(parser)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _add_global_options(parser: argparse.ArgumentParser) -> None:
    # No defaults: what is not given is left to GlobalOptions.
    group = parser.add_argument_group("options of every command", argument_default=argparse.SUPPRESS)
    group.add_argument("--config", type=Path, metavar="PATH", help="configuration file, TOML or JSON")
    group.add_argument("--cluster-name", metavar="NAME", help="the cluster's name on the dashboard")
    group.add_argument(
        "--instance", type=_instance, metavar="NAME", help="another cluster or dashboard that this host delivers for"
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show what would be sent; send and change nothing",
    )
    group.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help="log in detail")


def _add_reconcile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--start-date", type=_day, metavar="YYYY-MM-DD", help="first day; collection_window_days ago if absent"
    )
    parser.add_argument("--end-date", type=_day, metavar="YYYY-MM-DD", help="last day, included; today if absent")
    parser.add_argument(
        "--only-missing", action="store_true", help="send only what was never delivered or has changed since"
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=_span, default=30.0, metavar="SPAN", help="between flushes; 30s if absent")
    parser.add_argument(
        "--reconcile-every", type=_span, default=86_400.0, metavar="SPAN", help="between reconciles; 1d if absent"
    )
    parser.add_argument(
        "--health-file", type=Path, metavar="FILE", help="written after each run: its age shows whether this goes on"
    )


def _add_queue_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    for name, (count, text) in QUEUE_ACTIONS.items():
        action = actions.add_parser(name, help=text, description=_sentence(text))
        _add_global_options(action)
        if count:
            action.add_argument("jobs", nargs=count, metavar="JOBID", help="a job's ID, such as 4711 or 203_3")
        else:
            action.add_argument("--all", action="store_true", help="all of them, not the newest few of each kind")


def _add_status_options(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print it as JSON")
    form.add_argument(
        "--check",
        action="store_true",
        help="print one line with performance data and exit 0, 1 or 2, as a Nagios or Icinga plugin",
    )


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--wait",
        type=_seconds,
        nargs="?",
        const=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"wait until slurmctld calls the hook, for {WAIT_SECONDS} s if no number is given",
    )
    parser.add_argument(
        "--test-job",
        action="store_true",
        help="submit a job that ends at once, and wait for the call; it appears on the dashboard, with zero hours"
        " where JobCompLoc calls the hook, as it is cancelled before it starts",
    )


def _add_setup_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--api-url", required=True, metavar="URL", help="the dashboard")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument(
        "--deploy-key", metavar="FILE", help="a file that holds a one-time key; - reads it from standard input"
    )
    key.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file that holds the API key")
    parser.add_argument(
        "--allow-http", action="store_true", help="send the key to an http:// URL of another host, in plain text"
    )
    parser.add_argument("--yes", action="store_true", help="replace a key that is there without asking")


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
        raise argparse.ArgumentTypeError(f"{text!r} names no instance; take letters, digits, - and _")
    return text


def _day(text: str) -> date:
    try:
        return parse_day(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2024-01-31") from None


class _Command(NamedTuple):
    """How a command's options are read, and what they become."""

    add_options: Callable[[argparse.ArgumentParser], object]
    options: Callable[..., Any]


_COMMANDS: Mapping[str, _Command] = {
    "flush": _Command(lambda parser: None, FlushOptions),
    "reconcile": _Command(_add_reconcile_options, ReconcileOptions),
    "run": _Command(_add_run_options, RunOptions),
    "queue": _Command(_add_queue_options, QueueOptions),
    "status": _Command(_add_status_options, StatusOptions),
    "check": _Command(_add_check_options, CheckOptions),
    "setup": _Command(_add_setup_options, SetupOptions),
}
