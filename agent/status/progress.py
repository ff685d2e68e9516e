"""Shows the progress of a reconcile: a bar on a terminal if tqdm is installed, otherwise log lines."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator, NoReturn

from agent.localtime import Range, local_day, local_text
from agent.logger import PACKAGE, Logger
from agent.wording import count, span

if TYPE_CHECKING:
    from tqdm import tqdm

#: A slice without jobs is logged only if the last line is older than this.
QUIET_SECONDS = 30.0
_BAR = "{desc} {percentage:3.0f} %|{bar}| {remaining} left"

logger = Logger(__name__)

#: Called after each step with the time up to which all is done (epoch seconds), and the number of jobs so far.
Show = Callable[[int, int], None]


@contextmanager
def shown(wanted: Range, *, on_terminal: bool) -> Iterator[Show]:
    """Provides the function to call after each step.

    :param wanted: the range to process.
    :param on_terminal: whether standard error is a terminal, which can show a bar.
    """
    if on_terminal:
        try:
            from tqdm import tqdm  # noqa: PLC0415  # an optional extra
            from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415
        except ImportError:
            logger.debug("tqdm is not installed: no progress bar")
        else:
            # Log lines go above the bar instead of through it.
            total = wanted.end - wanted.start + 1
            bar = tqdm(total=total, desc="looking for jobs", bar_format=_BAR, leave=False, dynamic_ncols=True)
            with bar, logging_redirect_tqdm([PACKAGE.real()]):
                yield _Bar(bar, wanted.start)
            return
    yield Lines(wanted)


class Lines:
    """Logs a line after each step with jobs, and after a long quiet one.

    :param clock: monotonic, in seconds.
    """

    def __init__(self, wanted: Range, clock: Callable[[], float] = time.monotonic) -> None:
        self._wanted = wanted
        self._clock = clock
        self._began = self._said = clock()
        self._jobs = 0

    def __call__(self, done_to: int, jobs: int) -> None:
        """Takes note of a step."""
        now = self._clock()
        start, end = self._wanted
        if done_to >= end:  # the run logs its own summary
            return
        if jobs == self._jobs and now - self._said < QUIET_SECONDS:
            return
        self._said, self._jobs = now, jobs
        share = (done_to - start + 1) / (end - start + 1)
        logger.info(
            "Done up to %s: %s, %.0f %% of the range, about %s left",
            local_text(done_to),
            count(jobs, "job"),
            100 * share,
            span((now - self._began) * (1 / share - 1)),
        )


class _Bar:
    """Moves a tqdm bar that measures the seconds of the range."""

    def __init__(self, bar: tqdm[NoReturn], start: int) -> None:
        self._bar = bar
        self._start = start
        self._began = time.monotonic()

    def __call__(self, done_to: int, jobs: int) -> None:
        """Takes note of a step."""
        rate = jobs / max(time.monotonic() - self._began, 0.1)
        reported = f"{local_day(done_to)}, {count(jobs, 'job')}, {rate:,.0f}/s"
        self._bar.set_description_str(reported, refresh=False)
        self._bar.n = done_to - self._start + 1
        self._bar.refresh()
