"""The dashboard's interface: submits records, checks the key, exchanges a deploy key.

What an answer means is told by :func:`judge`, which is pure. How it comes is the business of
:mod:`agent.dashboard.transport`.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from typing import Any, Callable, Mapping, Sequence

from agent.dashboard import backoff as retry
from agent.dashboard.transport import Answer, Transport
from agent.errors import (
    BatchForbidden,
    BatchRefused,
    BatchTooLarge,
    DashboardUnreachable,
    ExporterError,
    KeyRefused,
)

INGEST = "/api/data/ingest"
HEALTH = "/api/dashboard/health"
EXCHANGE = "/api/agent/exchange-deploy-key"

#: A longer Retry-After is not waited for within the run, but kept for the next ones.
LONGEST_PAUSE_SECONDS = 60.0
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_WRONG_URL = frozenset({404, 405, 410})
#: An error page may be long, and only its beginning is told.
_LONGEST_WORDS = 10_000

logger = logging.getLogger(__name__)


class Dashboard:
    """One dashboard, spoken to with one API key.

    :param api_url: without a trailing slash.
    :param transport: see :class:`agent.dashboard.transport.RequestsTransport`.
    :param sleep: waits some seconds between the tries.
    :param clock: epoch seconds, to read a Retry-After that is a date.
    :param dice: a random number from 0 up to 1.
    """

    def __init__(
        self,
        api_url: str,
        api_key: str,
        transport: Transport,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.ingest_url = api_url + INGEST
        self._api_url = api_url
        self._api_key = api_key
        self._transport = transport
        self._sleep = sleep
        self._clock = clock
        self._dice = dice

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = retry.TRIES) -> str:
        """Posts records, given as JSON texts, and returns the dashboard's message once it has taken all of them.

        :raises BatchRefused: where it does not take this batch; BatchTooLarge where smaller ones may do,
            BatchForbidden where it may not want any from us.
        :raises DashboardUnreachable: where it can't be reached, or asks to be left alone.
        :raises KeyRefused: where it does not know the key.
        """
        body = f'{{"hostname":{json.dumps(cluster)},"jobs":[{",".join(texts)}]}}'.encode()
        headers = {"X-API-Key": self._api_key, "Content-Type": "application/json"}
        answer = self._send("POST", INGEST, headers, body, tries)
        return judge(answer, sent=len(texts), now=self._clock())

    def health(self) -> Answer:
        """Asks whether the dashboard is there at all, without a key.

        :raises DashboardUnreachable: where it is not.
        """
        answer = self._send("GET", HEALTH, {}, None, 1)
        if answer.status != 200:
            raise DashboardUnreachable(f"the dashboard's health check answered {_describe(answer)}", hint=_URL_HINT)
        return answer

    def exchange_deploy_key(self, deploy_key: str) -> tuple[str, str]:
        """Exchanges a one-time deploy key for the cluster's name and its API key.

        :raises KeyRefused: where the deploy key is invalid, used or expired.
        :raises DashboardUnreachable: where there is no sensible answer.
        """
        answer = self._send("POST", EXCHANGE, {}, {"deploy_key": deploy_key}, 1)
        if answer.status in {401, 403}:
            raise KeyRefused(
                f"the dashboard does not accept the deploy key: {_describe(answer)}",
                hint="deploy keys work once and for seven days; ask the dashboard's administrator for a new one",
            )
        content = _read_json(answer)
        if answer.status == 200 and isinstance(content.get("api_key"), str) and content["api_key"]:
            return str(content.get("cluster_name") or ""), content["api_key"]
        raise DashboardUnreachable(f"the exchange of the deploy key failed: {_describe(answer)}", hint=_URL_HINT)

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: Any, tries: int) -> Answer:
        """Sends a request until it gets an answer that is no passing trouble, or the tries are used up."""
        for attempt in range(1, tries + 1):
            last = attempt == tries
            delay = retry.request_delay(attempt, self._dice())
            try:
                answer = self._transport(method, self._api_url + path, headers, body)
            except DashboardUnreachable as error:
                if last or error.permanent:
                    raise
                trouble = str(error)
            else:
                wanted = retry.parse_retry_after(answer.headers.get("Retry-After", ""), self._clock())
                if last or answer.status not in _TEMPORARY or wanted > LONGEST_PAUSE_SECONDS:
                    return answer
                trouble = f"the dashboard answered {answer.status}"
                delay = max(delay, wanted)
            logger.info("%s; trying again in %.1f s", trouble, delay)
            self._sleep(delay)
        raise AssertionError("unreachable: the last try returns or raises")


class DryRun:
    """Stands in for a :class:`Dashboard` and takes everything, to nowhere."""

    def __init__(self, api_url: str) -> None:
        self.ingest_url = f"{api_url}{INGEST} (dry run: nothing is sent)"
        self.sample = ""

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = 1) -> str:
        """Keeps the first record as a sample."""
        self.sample = self.sample or (texts[0] if texts else "")
        return f"dry run of {len(texts)} jobs for {cluster}"


def judge(answer: Answer, *, sent: int, now: float) -> str:
    """Returns the dashboard's message where it has taken all ``sent`` records, and raises what went wrong otherwise.

    :param now: epoch seconds.
    :raises ExporterError: BatchRefused, BatchTooLarge, DashboardUnreachable or KeyRefused.
    """
    status = answer.status
    if 200 <= status < 300:
        return _judge_success(answer, sent)
    raise _explain_failure(answer, now)


def _judge_success(answer: Answer, sent: int) -> str:
    content = _read_json(answer)
    if not content:
        raise DashboardUnreachable(
            f"this is not the dashboard's answer: {_describe(answer)}", hint=f"{_URL_HINT}; {_KEPT}"
        )
    if content.get("success") is not True:
        raise BatchRefused(f"the dashboard did not store the jobs: {_describe(answer)}")
    counted = content.get("jobs_processed", sent)
    if counted != sent:
        raise BatchRefused(f"the dashboard counted {counted!r} jobs of {sent} sent")
    return str(content.get("message", f"{sent} jobs"))


def _explain_failure(answer: Answer, now: float) -> ExporterError:
    status, said = answer.status, _describe(answer)
    if status == 401:
        return refused_key(said)
    if status == 403:
        return BatchForbidden(said)
    if status == 413:
        return BatchTooLarge(f"the dashboard takes no POST of this size: {said}")
    if 300 <= status < 400:
        location = answer.headers.get("Location", "")
        return DashboardUnreachable(
            f"the dashboard redirects to {location[:200]!r}, which is not followed: the API key stays here",
            hint=f"set api_url to the address behind the redirect; {_KEPT}",
        )
    if status in _WRONG_URL:
        return DashboardUnreachable(f"there is no dashboard at this URL: {said}", hint=f"{_URL_HINT}; {_KEPT}")
    pause = retry.parse_retry_after(answer.headers.get("Retry-After", ""), now)
    if status > 500 or (status in _TEMPORARY and (status != 500 or pause)):
        wish = f", and wants to be left alone for {pause:.0f} s" if pause else ""
        return DashboardUnreachable(
            f"the dashboard is not available{wish}: {said}",
            hint=f"{_KEPT}; a later run tries again",
            retry_after_seconds=pause,
        )
    return BatchRefused(f"the dashboard refused the jobs: {said}", named=_named_records(answer))


def refused_key(said: str) -> KeyRefused:
    """The dashboard is there and does not want us; ``said`` are its words."""
    hint = "check api_key, or get a new one with `setup`"
    return KeyRefused(f"the dashboard refused the API key: {said}", hint=f"{hint}; {_KEPT}")


def _named_records(answer: Answer) -> dict[int, str]:
    """The records that a 422 names, by index, with what is wrong with each."""
    detail = _read_json(answer).get("detail")
    named: dict[int, list[str]] = {}
    for problem in detail if isinstance(detail, list) else []:
        where = problem.get("loc") if isinstance(problem, dict) else None
        if isinstance(where, list) and len(where) >= 3 and where[1] == "jobs" and isinstance(where[2], int):
            field = ".".join(map(str, where[3:])) or "record"
            named.setdefault(where[2], []).append(f"{field}: {problem.get('msg')} (sent {problem.get('input')!r})")
    return {index: "; ".join(words)[:500] for index, words in named.items()}


def _read_json(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object, empty where it holds none."""
    try:
        content = json.loads(answer.text)
    except (ValueError, RecursionError):  # brackets in brackets without end
        return {}
    return content if isinstance(content, dict) else {}


def _describe(answer: Answer) -> str:
    """Status and words of an answer, short and on one line."""
    detail = _read_json(answer).get("detail") or _read_json(answer).get("message") or answer.text
    words = " ".join(re.sub(r"<[^<>]*>", " ", str(detail)[:_LONGEST_WORDS]).split())
    return f"{answer.status} {words[:300]!r}" if words else str(answer.status)


_URL_HINT = "check api_url: the address of the dashboard's backend, without /api"
_KEPT = "everything is kept"
