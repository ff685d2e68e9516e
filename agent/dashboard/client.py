"""The dashboard's interface: submits records, checks the key, exchanges a deploy key.

What an answer means is told by :mod:`agent.dashboard.answer`, which is pure. How it comes is the business of
:mod:`agent.dashboard.transport`.
"""

from __future__ import annotations

import json
import logging
import random
import time
from typing import Any, Callable, Mapping, Sequence

from agent.config import Config
from agent.dashboard import backoff
from agent.dashboard.answer import TEMPORARY, URL_HINT, describe, judge, read_json
from agent.dashboard.transport import Answer, RequestsTransport, Transport
from agent.errors import DashboardUnreachable, KeyRefused

INGEST = "/api/data/ingest"
HEALTH = "/api/dashboard/health"
EXCHANGE = "/api/agent/exchange-deploy-key"

#: A longer Retry-After is not waited for within the run, but kept for the next ones.
LONGEST_PAUSE_SECONDS = 60.0

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

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = backoff.TRIES) -> str:
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
            raise DashboardUnreachable(f"the dashboard's health check answered {describe(answer)}", hint=URL_HINT)
        return answer

    def exchange_deploy_key(self, deploy_key: str) -> tuple[str, str]:
        """Exchanges a one-time deploy key for the cluster's name and its API key.

        :raises KeyRefused: where the deploy key is invalid, used or expired.
        :raises DashboardUnreachable: where there is no sensible answer.
        """
        answer = self._send("POST", EXCHANGE, {}, {"deploy_key": deploy_key}, 1)
        if answer.status in {401, 403}:
            raise KeyRefused(
                f"the dashboard does not accept the deploy key: {describe(answer)}",
                hint="deploy keys work once and for seven days; ask the dashboard's administrator for a new one",
            )
        content = read_json(answer)
        if answer.status == 200 and isinstance(content.get("api_key"), str) and content["api_key"]:
            return str(content.get("cluster_name") or ""), content["api_key"]
        raise DashboardUnreachable(f"the exchange of the deploy key failed: {describe(answer)}", hint=URL_HINT)

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: Any, tries: int) -> Answer:
        """Sends a request until it gets an answer that is no passing trouble, or the tries are used up."""
        for attempt in range(1, tries + 1):
            last = attempt == tries
            delay = backoff.request_delay(attempt, self._dice())
            try:
                answer = self._transport(method, self._api_url + path, headers, body)
            except DashboardUnreachable as error:
                if last or error.permanent:
                    raise
                trouble = str(error)
            else:
                wanted = backoff.parse_retry_after(answer.headers.get("Retry-After", ""), self._clock())
                if last or answer.status not in TEMPORARY or wanted > LONGEST_PAUSE_SECONDS:
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


def make_dashboard(
    config: Config, *, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
) -> Dashboard:
    """The dashboard, as configured."""
    transport = RequestsTransport(timeout=config.timeout, ca_bundle=config.ca_bundle, secret=config.api_key)
    return Dashboard(config.api_url, config.api_key, transport, clock=clock, sleep=sleep)
