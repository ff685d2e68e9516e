"""node-exporter passes the metrics file to Prometheus, which answers every query of the board."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote

import pytest

from agent.status.metrics import METRICS, PREFIX, write_metrics
from tests.support.daemons import Daemons
from tests.support.ports import claim_ports
from tests.support.snapshots import BACKLOG, HOOK, make_snapshot
from tests.support.tools import need
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc/prometheus/slurm-usage-history.rules.yml"
BOARD = ROOT / "etc/grafana/slurm-usage-history.json"
LOCALHOST = "127.0.0.1"


class Prometheus:
    """Prometheus and a node-exporter that it asks every second, on this machine alone."""

    def __init__(self, folder: Path, daemons: Daemons, port: int) -> None:
        self._url = f"http://{LOCALHOST}:{port}"
        exporter = f"{LOCALHOST}:{port + 1}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [exporter]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        textfiles = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}"]
        daemons.start("node-exporter", ["prometheus-node-exporter", f"--web.listen-address={exporter}", *textfiles])
        storage = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        daemons.start("prometheus", ["prometheus", f"--web.listen-address={LOCALHOST}:{port}", *storage])

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression at this moment; none while Prometheus is not up."""
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/query?query={quote(expression)}", timeout=5) as answer:
                content = json.load(answer)
        except OSError:
            return []
        assert content["status"] == "success"
        return list(content["data"]["result"])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With the metrics of an exporter that has a little of every trouble."""
    need("prometheus")
    need("prometheus-node-exporter")
    folder = tmp_path_factory.mktemp("prometheus")
    now = time.time()
    backlog = BACKLOG._replace(oldest=now - 7200, paused_until=now + 600, rejected=1)
    write_metrics(folder / "x.prom", make_snapshot(backlog=backlog, hook=HOOK._replace(missed_end=now)))
    claim, port = claim_ports(LOCALHOST)
    daemons = Daemons(folder, {"PATH": os.environ["PATH"]})
    try:
        server = Prometheus(folder, daemons, port)
        wait_for(lambda: len(server.query(f"count_over_time({PREFIX}build_info[1m]) > 2")), "three scrapes")
        yield server
    finally:
        daemons.close()
        claim.close()


@pytest.mark.parametrize("name", [metric.name for metric in METRICS])
def test_every_metric_arrives(prometheus: Prometheus, name: str) -> None:
    """Each metric becomes a time series of this machine."""
    assert prometheus.query(PREFIX + name)


@pytest.mark.parametrize("panel", json.loads(BOARD.read_text(encoding="utf-8"))["panels"], ids=lambda p: p["title"])
def test_every_panel_is_answered(prometheus: Prometheus, panel: dict[str, Any]) -> None:
    """Each query is answered, with the board's variables filled in as Grafana does."""
    for target in panel["targets"]:
        expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
        assert prometheus.query(expression), expression


def test_alerts_are_raised(prometheus: Prometheus) -> None:
    """Alerts without a delay fire at once; the others are pending."""
    raised = {
        (sample["metric"]["alertname"][17:], sample["metric"]["alertstate"]) for sample in prometheus.query("ALERTS")
    }
    expected = {("HookSilent", "firing"), ("RecordsRejected", "firing"), ("QueueGrowing", "pending")}
    assert expected <= raised


def test_the_alerts_are_tried() -> None:
    """Prometheus' own unit tests pass: each alert fires when it should, and only then."""
    need("promtool")
    for argv in (
        ["promtool", "check", "rules", str(RULES)],
        ["promtool", "test", "rules", str(RULES.with_name("slurm-usage-history.test.yml"))],
    ):
        done = subprocess.run(argv, capture_output=True, check=False, encoding="utf-8")
        assert (0, "") == (done.returncode, done.stderr)
