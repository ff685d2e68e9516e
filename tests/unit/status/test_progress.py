"""A long reconcile shows its position, and the log fits its reader."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from pathlib import Path
from typing import Callable

import pytest

from agent.localtime import Range
from agent.log_format import make_formatter
from agent.status.progress import QUIET_SECONDS, Lines, shown

WANTED = Range(1_700_000_000, 1_700_000_000 + 99_999)


class Terminal(io.StringIO):
    """A terminal that somebody watches."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Advances only when a test sets it."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def done_to(share: float) -> int:
    """Up to when a part of the range is done."""
    return WANTED.start + round(share * 100_000) - 1


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Everything that the package logs at INFO and above."""
    monkeypatch.setattr(logging.getLogger("agent"), "propagate", True)
    caplog.set_level(logging.INFO, logger="agent")
    return caplog


def test_a_line_for_each_step_that_brought_jobs(log: pytest.LogCaptureFixture, zone: Callable[[str], None]) -> None:
    """A line shows the day reached, the jobs, the share of the range, and the time left."""
    zone("UTC")
    clock = Clock()
    show = Lines(WANTED, clock)
    clock.now += 20
    show(done_to(0.25), 12_345)
    expected = "Done up to 2023-11-15T05:09:59: 12,345 jobs, 25 % of the range, about 1 min left"
    assert [expected] == log.messages


def test_quiet_steps_log_nothing(log: pytest.LogCaptureFixture) -> None:
    """An idle cluster's reconcile logs nothing for each step."""
    clock = Clock()
    show = Lines(WANTED, clock)
    for share in (0.1, 0.2, 0.3):
        clock.now += QUIET_SECONDS / 4
        show(done_to(share), 0)
    assert [] == log.messages


def test_a_long_reconcile_logs_that_it_is_running(log: pytest.LogCaptureFixture) -> None:
    """The log shows that a long reconcile is still running."""
    clock = Clock()
    show = Lines(WANTED, clock)
    clock.now += QUIET_SECONDS
    show(done_to(0.1), 0)
    assert 1 == len(log.messages)


def test_the_last_step_is_left_to_the_summary(log: pytest.LogCaptureFixture) -> None:
    """Its summary follows at once."""
    Lines(WANTED, Clock())(done_to(1.0), 500)
    assert [] == log.messages


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, zone: Callable[[str], None]) -> None:
    """The bar shows the day, the share, the jobs, their rate and the time left; the log continues above it."""
    pytest.importorskip("tqdm")
    zone("UTC")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(WANTED, on_terminal=True) as show:
        show(done_to(0.5), 12_345)
    assert re.search(r"2023-11-15, 12,345 jobs, [0-9,]+/s  50 %\|.+\| \d\d:\d\d left", terminal.getvalue())


def test_lines_where_tqdm_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an optional extra."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with shown(WANTED, on_terminal=True) as show:
        assert isinstance(show, Lines)


def test_progress_without_a_terminal() -> None:
    """Without a terminal, lines are logged instead of a bar."""
    with shown(WANTED, on_terminal=False) as show:
        assert isinstance(show, Lines)


# The log


def record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("agent.cli", level, __file__, 1, message, None, None)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.DEBUG, "<7>DEBUG - a\n<7>b"),
        (logging.INFO, "<6>INFO - a\n<6>b"),
        (logging.WARNING, "<4>WARNING - a\n<4>b"),
        (logging.ERROR, "<3>ERROR - a\n<3>b"),
    ],
)
def test_the_journal_gets_a_priority_with_each_line(level: int, expected: str) -> None:
    """journalctl -p err finds the whole message."""
    with Path(os.devnull).open("w", encoding="utf-8") as stream:
        info = os.fstat(stream.fileno())
        formatter = make_formatter(stream, {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"})
    assert expected == formatter.format(record(level, "a\nb"))


def test_lines_in_a_file_have_the_time() -> None:
    """This holds if a script started by systemd sends the log to a file of its own, too."""
    with Path(os.devnull).open("w", encoding="utf-8") as stream:
        formatter = make_formatter(stream, {"JOURNAL_STREAM": "8:1"})
    line = formatter.format(record(logging.INFO, "a"))
    assert line.endswith(" - INFO - a")
    assert line[:2] == "20"


def test_a_terminal_gets_neither() -> None:
    """A terminal gets the plain text, as from the earlier exporter."""
    assert "INFO - a" == make_formatter(Terminal(), {}).format(record(logging.INFO, "a"))
