"""When to retry. Arithmetic only: the caller provides the clock and the random number, and waits."""

from __future__ import annotations

import re

#: Tries of one request within a run, the first included.
TRIES = 4
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0


def request_delay(attempt: int, dice: float) -> float:
    """Seconds to wait before a request is tried again.

    :param attempt: how many tries have failed, from 1.
    :param dice: from 0 up to 1; spreads the agents of many clusters over the delay.
    """
    delay = min(FIRST_DELAY_SECONDS * 2.0 ** (attempt - 1), LONGEST_DELAY_SECONDS)
    return delay * (0.5 + dice)


def parse_retry_after(text: str, now: float) -> float:
    """Seconds that a Retry-After asks for, given as seconds or as an HTTP date; 0 if it can't be read.

    :param now: epoch seconds.
    """
    seconds = re.match(r"\s*([0-9]+)(\.[0-9]+)?\s*(,|$)", text)  # two proxies' headers arrive joined by a comma
    if seconds:
        return float(seconds[1])
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # a tenth of an idle flush, and rarely needed

    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
