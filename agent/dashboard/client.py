"""The dashboard's interface: submits records, checks the key, exchanges a deploy key.

:mod:`agent.dashboard.transport` sends the requests, and :mod:`agent.dashboard.answer` interprets the answers.
"""

from __future__ import annotations

import json
import os
import time
from functools import cached_property
from typing import Any, Callable, Mapping, Protocol, Sequence

from agent.config import Config, is_key
from agent.config_keys import INGEST_PATH
from agent.dashboard import request_retry
from agent.dashboard.answer import (
    OVERWHELMED,
    TEMPORARY,
    URL_HINT,
    Answer,
    describe,
    explain_astray,
    judge,
    judge_any,
    read_json,
    read_name,
)
from agent.errors import ConfigError, DashboardUnreachable, KeyRefused
from agent.logger import Logger

HEALTH = "/api/dashboard/health"
EXCHANGE = "/api/agent/exchange-deploy-key"
LIST_FILES = "/api/agent/list-files"
KEY_HEALTH = "/api/agent/health"

#: A run does not wait for a longer Retry-After; later runs honour it.
LONGEST_PAUSE_SECONDS = 60.0
#: A dashboard counts as unreachable after this many health checks without an answer.
PULSE_TRIES = 3
#: Statuses of a proxy whose backend does not answer.
NOBODY = frozenset({408, 502, 503, 504, *range(520, 528), 530, 598, 599})

#: Sends (method, URL, headers, body or form) and returns the answer; raises DashboardUnreachable if there is none.
Transport = Callable[[str, str, Mapping[str, str], Any], Answer]

logger = Logger(__name__)


class Receiver(Protocol):
    """Accepts the records: a :class:`Dashboard`, or its stand-in for a dry run."""

    ingest_url: str

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = ...) -> str:
        """See :meth:`Dashboard.submit`."""

    def answers(self) -> bool:
        """See :meth:`Dashboard.answers`."""


class Dashboard:
    """One dashboard, accessed with one API key.

    :param api_url: without a trailing slash.
    :param transport: see :class:`agent.dashboard.transport.RequestsTransport`.
    :param sleep: waits some seconds between tries.
    :param clock: epoch seconds, for a Retry-After that is a date.
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
        dice: Callable[[], float] = lambda: os.urandom(1)[0] / 256,
    ) -> None:
        self.ingest_url = api_url + INGEST_PATH
        self._api_url = api_url
        self._api_key = api_key
        self._transport = transport
        self._sleep = sleep
        self._clock = clock
        self._dice = dice

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = request_retry.TRIES) -> str:
        """Posts records, given as JSON texts, and returns the dashboard's message once it has accepted all of them.

        A batch of several records that was too large is not retried unchanged.

        :raises BatchRefused: if it refuses this batch; BatchTooLarge if smaller ones may be accepted, BatchForbidden if
            it may refuse every batch sent with this key.
        :raises DashboardUnreachable: if it can't be reached, or asks to retry later.
        :raises KeyRefused: if it does not know the key.
        """
        body = f'{{"hostname":{json.dumps(cluster)},"jobs":[{",".join(texts)}]}}'.encode()
        headers = {**self._key_headers(), "Content-Type": "application/json"}
        path = self.ingest_url[len(self._api_url) :]
        answer = self._send("POST", path, headers, body, tries, stubborn=len(texts) <= 1)
        return self._judge(answer, len(texts))

    def _key_headers(self) -> dict[str, str]:
        return {"X-API-Key": self._api_key}

    def _judge(self, answer: Answer, sent: int) -> str:
        return judge(answer, sent=sent, now=self._clock())

    def answers(self) -> bool:
        """Whether the dashboard is reachable, after a request that it did not answer.

        This waits a little: the dashboard may be restarting, or still be processing that request, during which it
        answers no other.
        """
        for attempt in range(1, PULSE_TRIES + 1):
            self._sleep(request_retry.request_delay(attempt, self._dice()))
            try:
                if self._transport("GET", self._api_url + HEALTH, {}, None).status not in NOBODY:
                    return True
            except DashboardUnreachable as error:
                logger.debug("%s", error)
        return False

    def health(self) -> Answer:
        """Runs the dashboard's health check, which needs no key.

        :raises DashboardUnreachable: if it fails.
        """
        answer = self._send("GET", HEALTH, {}, None, 1)
        if answer.status != 200:
            raise explain_astray(answer) or DashboardUnreachable(
                f"the dashboard's health check answered {describe(answer)}", hint=URL_HINT
            )
        return answer

    def check_key(self, cluster: str) -> str:
        """Tests the key without creating a bogus cluster on the dashboard.

        Any POST creates a folder with the name that it is sent under. So the dashboard is first asked which cluster the
        key belongs to. Only a key that belongs to none, as on older dashboards, is tested by an empty POST under the
        cluster's name.

        :param cluster: its name on the dashboard, empty if unknown.
        :returns: the name of the cluster that the key belongs to, empty if the dashboard does not report it.
        :raises KeyRefused: if the key is not accepted.
        :raises DashboardUnreachable: if there is no sensible answer.
        """
        headers = {"X-API-Key": self._api_key}
        for path in (LIST_FILES, KEY_HEALTH):
            answer = self._send("GET", path, headers, None, 1)
            if answer.status == 200 and read_json(answer):
                return read_name(answer, "cluster")
        if cluster:
            self.submit(cluster, [], tries=1)
            return ""
        raise KeyRefused(
            f"the dashboard does not assign the API key to any cluster: {describe(answer)}",
            hint="a key that several clusters share can only be tested with cluster_name (or --cluster-name)",
        )

    def exchange_deploy_key(self, deploy_key: str) -> tuple[str, str]:
        """Exchanges a one-time deploy key for the cluster's name (empty if it can't be a name) and its API key.

        :raises KeyRefused: if the deploy key is invalid, used or expired.
        :raises DashboardUnreachable: if there is no sensible answer. If it may still contain the key, which is handed
            out only once, ``subject`` is the whole answer.
        """
        try:
            answer = self._send("POST", EXCHANGE, {}, {"deploy_key": deploy_key}, 1)
        except DashboardUnreachable as error:
            error.hint += "; the deploy key may have been used up" if error.overwhelmed else ""
            raise
        if answer.status in {401, 403}:
            raise KeyRefused(
                f"the dashboard does not accept the deploy key: {describe(answer)}",
                hint="deploy keys work once and for seven days; ask the dashboard's administrator for a new one",
            )
        content = read_json(answer)
        api_key = content.get("api_key")
        if 200 <= answer.status < 300 and isinstance(api_key, str) and is_key(api_key.strip()):
            return read_name(answer, "cluster_name"), api_key.strip()
        if "api_key" in answer.text:
            words = f"the exchange of the deploy key returned an unusable API key: {answer.status}"
            raise DashboardUnreachable(words, subject=answer.text)
        raise explain_astray(answer) or DashboardUnreachable(
            f"the exchange of the deploy key failed: {describe(answer)}", hint=URL_HINT
        )

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: Any, tries: int, *, stubborn: bool = True
    ) -> Answer:
        """Sends a request, and retries temporary failures until the tries are used up.

        :param stubborn: whether to retry a request that may have been too large for the dashboard.
        """
        for attempt in range(1, tries + 1):
            last = attempt == tries
            delay = request_retry.request_delay(attempt, self._dice())
            try:
                answer = self._transport(method, self._api_url + path, headers, body)
            except DashboardUnreachable as error:
                if last or error.permanent or (error.overwhelmed and not stubborn):
                    raise
                trouble = str(error)
            else:
                wanted = request_retry.parse_retry_after(answer.headers.get("Retry-After", ""), self._clock())
                # 503 and 529 more often mean too many requests than one too large; smaller ones would only add to that.
                too_much = answer.status in OVERWHELMED - {503, 529} and not wanted
                if last or answer.status not in TEMPORARY or wanted > LONGEST_PAUSE_SECONDS:
                    return answer
                if too_much and not stubborn:
                    return answer
                trouble = f"the dashboard answered {answer.status}"
                delay = max(delay, wanted)
            logger.info("%s; trying again in %.1f s", trouble, delay)
            self._sleep(delay)
        raise AssertionError("unreachable: the last try returns or raises")


class AnyReceiver(Dashboard):
    """Any HTTP ingest instead, whose 2xx acknowledges all records: Vector, Fluent Bit, or the site's own endpoint.

    :param ingest_path: where it accepts them, below ``api_url``.
    :param header: ``Name: value``, with ``{api_key}`` where the key belongs; ``none`` for no header.
    """

    def __init__(
        self, api_url: str, api_key: str, transport: Transport, ingest_path: str, header: str, **options: Any
    ) -> None:
        super().__init__(api_url, api_key, transport, **options)
        self.ingest_url = api_url + ingest_path
        self._header = header

    def health(self) -> Answer:
        """Checks that something answers, whatever the answer says.

        :raises DashboardUnreachable: if nothing does.
        """
        answer = self._send("GET", "/", {}, None, 1)
        if answer.status in NOBODY:
            raise DashboardUnreachable(f"nothing answers behind the proxy: {describe(answer)}", hint="check api_url")
        return answer

    def _key_headers(self) -> dict[str, str]:
        if self._header == "none":
            return {}
        name, _, value = self._header.partition(":")
        return {name: value.strip().replace("{api_key}", self._api_key)}

    def _judge(self, answer: Answer, sent: int) -> str:
        return judge_any(answer, sent=sent, now=self._clock())


class DryRun:
    """Replaces the :class:`Dashboard`: accepts everything and sends nothing."""

    def __init__(self, api_url: str) -> None:
        self.ingest_url = f"{api_url}{INGEST_PATH} (dry run: nothing is sent)"
        self.sample = ""

    def submit(self, cluster: str, texts: Sequence[str], *, tries: int = 1) -> str:
        """Keeps the first record as a sample."""
        self.sample = self.sample or (texts[0] if texts else "")
        return f"dry run of {len(texts)} jobs for {cluster}"

    def answers(self) -> bool:
        """Always."""
        return True


class _LateTransport:
    """Imports requests on first use, because the import takes longer than an idle flush."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def _transport(self) -> Transport:
        from agent.dashboard.transport import RequestsTransport  # noqa: PLC0415

        return RequestsTransport(self._config)

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Answer:
        return self._transport(method, url, headers, body)


def make_dashboard(
    config: Config, *, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
) -> Dashboard:
    """The configured dashboard.

    :raises ConfigError: if this user can't read a file that the configuration names.
    """
    files = {"ca_bundle": config.ca_bundle, "client_cert": config.client_cert, "client_key": config.client_key}
    missing = [f"{key}: {file} can't be read" for key, file in files.items() if file and not os.access(file, os.R_OK)]
    if missing:
        raise ConfigError("\n  ".join(missing), hint="it must exist and be readable for the Slurm user")
    transport = _LateTransport(config)
    if config.receiver == "any":
        path, header = config.ingest_path, config.ingest_header
        return AnyReceiver(config.api_url, config.api_key, transport, path, header, clock=clock, sleep=sleep)
    return Dashboard(config.api_url, config.api_key, transport, clock=clock, sleep=sleep)
