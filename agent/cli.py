"""Runs the command line: logging, signals, and the exit code for each outcome. The only module that exits."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from typing import Any, Callable, Mapping, NoReturn, Sequence

from agent.call import Call
from agent.commands import COMMANDS
from agent.errors import STOPPED, ConfigError, ExporterError
from agent.logger import Logger, report_failure, set_up_logging
from agent.options import BARE_COMMANDS, INSTANCE, GlobalOptions, RunOptions
from agent.wording import name_instance

logger = Logger(__name__)


def main(
    argv: Sequence[str] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Runs the command line and returns the exit code.

    :param clock: epoch seconds.
    :param sleep: waits for a number of seconds.
    """
    wanted: Any = None
    _forget_shell_zone()
    _show_whatever_comes()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    set_up_logging(verbose=False)
    try:
        options, wanted = _parse(sys.argv[1:] if argv is None else argv)
        instance = options.instance
        set_up_logging(
            verbose=options.verbose, rename=(lambda text: name_instance(text, instance)) if instance else None
        )
        return COMMANDS[type(wanted)](Call(options, environ, clock, sleep), wanted) or 0
    except ExporterError as error:
        report_failure(error)
        return error.exit_code
    except SystemExit as stop:  # argparse, after --help and --version
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        logger.warning("stopped; all undelivered jobs are kept%s", f" ({stop})" if stop.args else "")
        return 0 if isinstance(wanted, RunOptions) else STOPPED  # run ends in no other way
    except BrokenPipeError:  # the reader, such as head(1), has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UnicodeEncodeError as error:
        logger.error("this locale cannot print %a: set LC_ALL=C.UTF-8", error.object)
        return ConfigError.exit_code
    except Exception:
        logger.exception("unexpected error; all undelivered jobs are kept. Please report this:")
        return 1


def _parse(argv: Sequence[str]) -> tuple[GlobalOptions, Any]:
    """The global options and those of the command. Timers call one in a few ways that need no parser."""
    options, words = GlobalOptions(), argv
    if len(words) == 3 and words[0] == "--instance" and INSTANCE.fullmatch(words[1]):
        options.instance, words = words[1], words[2:]
    if len(words) == 1 and words[0] in BARE_COMMANDS:
        return options, BARE_COMMANDS[words[0]]()
    from agent.arguments import parse_argv  # noqa: PLC0415

    return parse_argv(argv)


def run() -> NoReturn:
    """The entry point. Exits without Python's own clean-up, which takes a tenth of a short run's time."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _show_whatever_comes() -> None:
    """Prints characters that the terminal's encoding lacks as escapes, such as those in a path or an answer."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # a shell has closed it
            sink = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115  # never closed
            setattr(sys, name, sink)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_shell_zone() -> None:
    """Drops TZ: days and times are the cluster's, whatever the caller's shell has set."""
    if os.environ.pop("TZ", None) is not None:
        time.tzset()
