"""Shows how far a reconcile has come: a bar on a terminal where tqdm is installed, else a line now and then."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator, NoReturn

from agent.localtime import Range, local_day, local_text
from agent.wording import count, span

if TYPE_CHECKING:
    from tqdm import tqdm

#: A slice without jobs is worth a line when so long has passed since the last one.
QUIET_SECONDS = 30.0
_BAR = "{desc} {percentage:3.0f} %|{bar}| {remaining} left"

logger = logging.getLogger(__name__)

#: Told after each step up to when (epoch seconds) all is done, and how many jobs that was.
Show = Callable[[int, int], None]


@contextmanager
def shown(wanted: Range, *, on_terminal: bool) -> Iterator[Show]:
    """What to tell of each step, as long as the work goes on.

    :param wanted: the range that is worked on.
    :param on_terminal: whether somebody watches who can see a bar.
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
            with bar, logging_redirect_tqdm([logging.getLogger("agent")]):
                yield _Bar(bar, wanted.start)
            return
    yield Lines(wanted)


class Lines:
    """Says a line after each step that brought jobs, and after a long quiet one.

    :param clock: seconds that only go forwards.
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
        if done_to >= end:  # the run itself has the last word
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
    """Moves a bar of tqdm, which counts the seconds of the range."""

    def __init__(self, bar: tqdm[NoReturn], start: int) -> None:
        self._bar = bar
        self._start = start
        self._began = time.monotonic()

    def __call__(self, done_to: int, jobs: int) -> None:
        """Takes note of a step."""
        rate = jobs / max(time.monotonic() - self._began, 0.1)
        told = f"{local_day(done_to)}, {count(jobs, 'job')}, {rate:,.0f}/s"
        self._bar.set_description_str(told, refresh=False)
        self._bar.n = done_to - self._start + 1
        self._bar.refresh()
