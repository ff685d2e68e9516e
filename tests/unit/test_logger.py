"""The loggers of the modules: what is written, and when logging is imported."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from agent import cli
from agent.arguments import parse_argv
from agent.errors import ExporterError, UsageError
from agent.logger import DEBUG, ERROR, INFO, PACKAGE, SHOWN_COMPLAINTS, WARNING, Complaints, Logger, set_up_logging


def test_the_levels_are_those_of_logging() -> None:
    """A level can be passed to logging unchanged."""
    assert [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR] == [DEBUG, INFO, WARNING, ERROR]


@pytest.mark.parametrize(
    ("verbose", "expected"), [(False, ["b 1", "c", "d", "e"]), (True, ["a", "b 1", "c", "d", "e"])]
)
def test_a_message_is_written_from_its_level_on(
    verbose: bool, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """DEBUG is written only on request, and values are inserted."""
    set_up_logging(verbose=verbose)
    logger = Logger("agent.test")
    logger.debug("a")
    logger.info("b %d", 1)
    logger.warning("c")
    logger.error("d")
    logger.log(INFO, "e")
    assert expected == [line.rpartition(" - ")[2] for line in capsys.readouterr().err.splitlines()]


def test_an_unexpected_error_comes_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """It is to be reported."""
    set_up_logging(verbose=False)
    try:
        raise ZeroDivisionError("of all things")
    except ZeroDivisionError:
        Logger("agent.test").exception("please report this:")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("ERROR - please report this:")
    assert "ZeroDivisionError: of all things" == lines[-1]


def test_every_set_up_takes_effect(capsys: pytest.CaptureFixture[str]) -> None:
    """The options of the command line are known only after its errors could be logged."""
    set_up_logging(verbose=False)
    Logger("agent.test").info("a")
    set_up_logging(verbose=True, rename=str.upper)
    Logger("agent.test").debug("b")
    assert ["INFO - a", "DEBUG - B"] == [
        " - ".join(line.split(" - ")[-2:]) for line in capsys.readouterr().err.splitlines()
    ]


def test_the_handlers_are_there_before_the_first_message() -> None:
    """A progress bar replaces the package's handlers: they must not be set up after that."""
    set_up_logging(verbose=False)
    assert 1 == len(PACKAGE.real().handlers)
    assert Logger.set_up is None


def test_logging_is_imported_with_the_first_message() -> None:
    """An idle flush, which writes none, does without."""
    script = (
        "import sys; from agent.logger import Logger, set_up_logging; set_up_logging(verbose=False);"
        " Logger('agent.test').debug('a'); before = 'logging' in sys.modules;"
        " Logger('agent.test').info('b'); print(before, 'logging' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(cli.__file__).parents[1],
    )
    assert ("False True\n", True) == (done.stdout, done.stderr.endswith("INFO - b\n"))


def test_complaints_are_counted_after_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Thousands of unreadable rows do not fill the log."""
    set_up_logging(verbose=False)
    complaints = Complaints()
    for number in range(SHOWN_COMPLAINTS + 3):
        complaints(ExporterError(f"row {number}"))
    complaints.close()
    lines = capsys.readouterr().err.splitlines()
    assert (SHOWN_COMPLAINTS + 1, SHOWN_COMPLAINTS + 3) == (len(lines), complaints.count)
    assert lines[-1].endswith("WARNING - skipped: 3 more like these")


@pytest.mark.parametrize("line", ["flush", "status", "--instance physics flush", "--instance physics status"])
def test_the_timers_calls_need_no_parser(line: str) -> None:
    """They mean the same with the parser and without."""
    argv = line.split()
    parsed, direct = parse_argv(argv), cli._parse(argv)
    for options, same in zip(parsed, direct):
        assert type(options) is type(same)
        names = [name for name in dir(options) if not name.startswith("_")]
        assert [getattr(options, name) for name in names] == [getattr(same, name) for name in names]
    script = f"import sys; from agent import cli; cli._parse({argv}); print('argparse' in sys.modules)"
    folder = Path(cli.__file__).parents[1]
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    assert "False\n" == done.stdout


def test_an_impossible_instance_is_left_to_the_parser() -> None:
    """It says what is wrong with the name."""
    with pytest.raises(UsageError, match="invalid instance name"):
        cli._parse(["--instance", "../physics", "flush"])
