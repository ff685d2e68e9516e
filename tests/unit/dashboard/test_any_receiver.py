"""Any HTTP ingest in the dashboard's place: what counts as delivered, and what is sent where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

import pytest

from agent.config import parse_config
from agent.dashboard.answer import Answer
from agent.dashboard.client import AnyReceiver, Dashboard, make_dashboard
from agent.errors import BatchRefused, BatchTooLarge, ConfigError, DashboardUnreachable, ExporterError, KeyRefused

URL = "https://collector.example.com"
LEAST = {"api_url": URL, "api_key": "secret", "receiver": "any"}


class Wire:
    """Gives every request the same answer, and records it."""

    def __init__(self, status: int, text: str = "", **headers: str) -> None:
        self.answer = Answer(status, headers, text)
        self.asked: list[tuple[str, str, Mapping[str, str], Any]] = []

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Answer:
        self.asked.append((method, url, headers, body))
        return self.answer


def make_receiver(wire: Wire, path: str = "/jobs", header: str = "Authorization: Bearer {api_key}") -> AnyReceiver:
    return AnyReceiver(URL, "secret", wire, path, header, sleep=lambda _: None)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, ""),
        (200, "<html>"),
        (200, '{"errors": false, "items": []}'),
        (200, '[{"errors": true}]'),
        (201, "created"),
        (202, '{"success": false}'),
        (204, ""),
        (207, '{"errors": []}'),
    ],
)
def test_every_2xx_is_an_acknowledgement(status: int, text: str) -> None:
    """The body is ignored, because receivers have no common format."""
    assert f"2 jobs, answered {status}" == make_receiver(Wire(status, text)).submit("lab", ["{}", "{}"])


def test_errors_in_a_bulk_answer_are_a_refusal() -> None:
    """Elasticsearch's and OpenSearch's 200 says only that they have read the request."""
    answer = '{"took": 30, "errors": true, "items": [{"index": {"status": 400}}]}'
    with pytest.raises(BatchRefused, match="answered 200"):
        make_receiver(Wire(200, answer)).submit("lab", ["{}"])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, DashboardUnreachable),
        (400, BatchRefused),
        (401, KeyRefused),
        (404, DashboardUnreachable),
        (413, BatchTooLarge),
        (422, BatchRefused),
        (429, DashboardUnreachable),
        (503, DashboardUnreachable),
    ],
)
def test_nothing_else_is(status: int, kind: type[ExporterError]) -> None:
    """Other statuses have the same meaning as with a dashboard."""
    with pytest.raises(kind):
        make_receiver(Wire(status)).submit("lab", ["{}"])


def test_jobs_are_sent_to_the_configured_path_with_the_configured_header() -> None:
    """The body is the dashboard's: a cluster and its jobs."""
    wire = Wire(200)
    make_receiver(wire).submit("lab", ['{"JobID": "1"}'])
    ((method, url, headers, body),) = wire.asked
    assert ("POST", f"{URL}/jobs") == (method, url)
    assert {"Authorization": "Bearer secret", "Content-Type": "application/json"} == headers
    assert {"hostname": "lab", "jobs": [{"JobID": "1"}]} == json.loads(body)


def test_without_a_header_no_key_is_sent_or_needed() -> None:
    """Such a receiver is protected by the network instead."""
    config = parse_config({"api_url": URL, "receiver": "any", "ingest_header": "none"}, {})
    wire = Wire(200)
    make_receiver(wire, header=config.ingest_header).submit("lab", [])
    assert {"Content-Type"} == wire.asked[0][2].keys()


def test_the_configuration_chooses() -> None:
    """The default is the dashboard."""
    assert Dashboard is type(make_dashboard(parse_config({**LEAST, "receiver": "dashboard"}, {})))
    made = make_dashboard(parse_config({**LEAST, "ingest_path": "/v1/jobs"}, {}))
    assert (AnyReceiver, f"{URL}/v1/jobs") == (type(made), made.ingest_url)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"receiver": "vector"}, 'receiver: must be "dashboard" or "any"'),
        ({"ingest_path": "jobs"}, "ingest_path: must be a path that begins with /"),
        ({"ingest_path": "/jobs?x=1"}, "ingest_path: must be a path that begins with /"),
        ({"ingest_header": "Bearer"}, "ingest_header: must be a header such as"),
        ({"ingest_header": "X-Key: a\r\nX-Other: b"}, "ingest_header: must be a header such as"),
        ({"receiver": "dashboard", "ingest_path": "/jobs"}, 'ingest_path: requires receiver = "any"'),
        ({"api_key": ""}, "api_key: missing"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict[str, str], problem: str) -> None:
    """The error names the key and the expected value."""
    with pytest.raises(ConfigError, match=problem.replace("(", r"\(")):
        parse_config({**LEAST, **settings}, {})


@pytest.mark.parametrize(("status", "there"), [(200, True), (404, True), (405, True), (502, False), (504, False)])
def test_its_answer_shows_that_it_exists_whatever_it_is(status: int, there: bool) -> None:
    """check accepts any answer of the receiver, but not the 502 of a proxy whose backend is down."""
    receiver = make_receiver(Wire(status))
    if there:
        assert status == receiver.health().status
    else:
        with pytest.raises(DashboardUnreachable, match="nothing answers behind the proxy"):
            receiver.health()


def test_the_example_names_the_defaults() -> None:
    """The defaults of the keys are the dashboard's own."""
    text = (Path(__file__).parents[3] / "etc/config.toml.example").read_text()
    config = parse_config({"api_url": URL, "api_key": "k"}, {})
    assert f'#ingest_path = "{config.ingest_path}"' in text
    assert f'#ingest_header = "{config.ingest_header}"' in text
