"""Any HTTP ingest instead of the dashboard: Vector, Fluent Bit, Logstash, or the site's own endpoint."""

from __future__ import annotations

from typing import Any

from agent.dashboard.answer import Answer, describe, judge_any
from agent.dashboard.client import NOBODY, Dashboard
from agent.errors import DashboardUnreachable


class AnyReceiver(Dashboard):
    """A receiver whose 2xx acknowledges all records.

    :param ingest_path: where it accepts them, below ``api_url``.
    :param header: ``Name: value``, with ``{api_key}`` where the key belongs; ``none`` for no header.
    """

    def __init__(
        self, api_url: str, api_key: str, transport: Any, ingest_path: str, header: str, **options: Any
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
