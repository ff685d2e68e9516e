"""The command line: its commands, options and help."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import NoReturn, Sequence

from agent import __version__
from agent.config import NAME
from agent.errors import UsageError
from agent.localtime import parse_day

DESCRIPTION = """\
Brings finished Slurm jobs to a usage dashboard: `flush` delivers what
slurmctld's hook has queued, `reconcile` replays a window of Slurm's accounting
and catches what the hook missed. Without a command: reconcile, with its
--start-date, --end-date and --only-missing. COMMAND --help tells the options of
each."""

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
  there, ~/.local/state/slurm-usage-history-exporter/.

environment:
  SLURM_USAGE_HISTORY_API_KEY and SLURM_USAGE_HISTORY_SPOOL go before the
  configuration. HTTPS_PROXY, HTTP_PROXY, NO_PROXY and NO_COLOR are heeded."""

COMMANDS = {
    "flush": "deliver the jobs that the hook has queued",
    "reconcile": "replay the collection window, or any range of days, and count what flush missed",
    "queue": "look at and repair what is queued, waiting or rejected",
    "status": "show how it is doing",
    "check": "test every prerequisite and say how to mend what is wrong",
    "setup": "exchange a one-time deploy key for the API key and write the configuration",
}


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting: the command line's main function is the only place that exits."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def parse_argv(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line; options may stand before or after the command.

    :raises UsageError: where it makes no sense.
    :raises SystemExit: after --help and --version, as argparse does.
    """
    parser = build_parser()
    arguments = list(argv)
    place = _command_place(parser, arguments)
    if place is not None:
        arguments.insert(0, arguments.pop(place))
    elif not {"-h", "--help", "--version"} & set(arguments):
        arguments.insert(0, "reconcile")
    defaults = argparse.Namespace(config=None, cluster_name=None, dry_run=False, verbose=False)
    options = parser.parse_args(arguments, defaults)
    start, end = getattr(options, "start_date", None), getattr(options, "end_date", None)
    if start and end and start > end:
        raise UsageError(f"--start-date {start} is after --end-date {end}", hint="swap the two")
    return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; documentation and completion are made from it, too."""
    parser = _Parser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    _add_global_options(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    made = {
        name: commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        for name, text in COMMANDS.items()
    }
    for command in made.values():
        _add_global_options(command)
    _add_reconcile_options(made["reconcile"])
    _add_queue_options(made["queue"])
    _add_status_options(made["status"])
    made["check"].add_argument("--json", action="store_true", help="print it as JSON")
    _add_setup_options(made["setup"])
    return parser


def _add_global_options(parser: argparse.ArgumentParser) -> None:
    # A default of its own would overwrite what a parser further up has read.
    group = parser.add_argument_group("options of every command", argument_default=argparse.SUPPRESS)
    group.add_argument("--config", type=Path, metavar="PATH", help="configuration file, TOML or JSON")
    group.add_argument("--cluster-name", metavar="NAME", help="the cluster's name on the dashboard")
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


def _add_queue_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    for name, count, text in (
        ("list", None, "show what is queued, waiting and rejected"),
        ("add", "+", "queue jobs, to be sent by the next flush"),
        ("retry", "*", "try waiting and rejected jobs again with the next flush; all of them if none is named"),
        ("drop", "+", "never send these waiting jobs and rejected records"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        _add_global_options(action)
        if count:
            action.add_argument("jobs", nargs=count, metavar="JOBID", help="a job's ID, such as 4711 or 203_3")


def _add_status_options(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print it as JSON")
    form.add_argument(
        "--check",
        action="store_true",
        help="print one line with performance data and exit 0, 1 or 2, as a Nagios or Icinga plugin",
    )


def _add_setup_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--api-url", required=True, metavar="URL", help="the dashboard")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--deploy-key", metavar="KEY", help="a one-time key; - reads it from standard input")
    key.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file that holds the API key")
    parser.add_argument("--yes", action="store_true", help="replace a key that is there without asking")


def _day(text: str) -> date:
    try:
        return parse_day(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2024-01-31") from None


def _command_place(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int | None:
    """Where the command stands; None where there is none. A command's name can also be an option's value."""
    takes_value = {"--config", "--cluster-name", "--start-date", "--end-date"}
    takes_value |= {"--api-url", "--deploy-key", "--api-key-file"}
    behind_option = False
    for place, argument in enumerate(arguments):
        if behind_option:
            behind_option = False
        elif argument.startswith("-"):
            behind_option = argument in takes_value
        else:
            if argument not in COMMANDS:
                raise UsageError(f"{argument!r} is no command", hint=f"one of: {', '.join(COMMANDS)}")
            return place
    return None
