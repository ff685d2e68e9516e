"""The metrics file says what status says, whole or not at all; the alerts and the board query nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import MetricsError
from agent.status.health import Level, Problem
from agent.status.metrics import METRICS, PREFIX, write_metrics
from agent.status.output import as_json
from agent.status.snapshot import CommandRuns, Coverage, Delay, UnderWay
from tests.support.snapshots import BACKLOG, NOON, REFUSED, make_snapshot
from tests.support.tools import need

ROOT = Path(__file__).parents[3]
RULES = ROOT / "etc/prometheus/slurm-usage-history.rules.yml"
BOARD = ROOT / "etc/grafana/slurm-usage-history.json"
NAMES = {PREFIX + metric.name for metric in METRICS}


def read_samples(path: Path) -> dict[str, float]:
    """Name and labels → value, as Prometheus reads them."""
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    samples = (sample for family in families for sample in family.samples)
    return {
        sample.name[len(PREFIX) :] + "".join(f",{key}={value}" for key, value in sample.labels.items()): sample.value
        for sample in samples
    }


@pytest.fixture
def umask() -> Iterator[None]:
    """Sets the umask of the units."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_file_says_what_status_says(tmp_path: Path) -> None:
    """Every figure of the snapshot, under its name."""
    path = tmp_path / "x.prom"
    write_metrics(path, make_snapshot(backlog=BACKLOG._replace(rejected=2, given_up=4, paused_until=NOON + 60)))
    expected = {
        "build_info,version=1.0.0": 1,
        "queued_jobs": 2,
        "queue_unreadable_lines": 0,
        "waiting_jobs,reason=no record yet": 1,
        "oldest_undelivered_timestamp_seconds": NOON - 40,
        "rejected_records": 2,
        "dashboard_pause_timestamp_seconds": NOON + 60,
        "given_up_jobs_total": 4,
        "odd_rows": 0,
        "hook_calls_total": 91_002,
        "hook_last_call_timestamp_seconds": NOON - 12,
        "missed_jobs_total": 3,
        "missed_job_end_timestamp_seconds": NOON - 3 * 86_400,
        "coverage_ratio": 0.99995,
        "coverage_jobs": 20_000,
        "window_jobs": 29_000,
        "window_hooked_jobs": 27_999,
        "delivered_jobs_total,command=flush": 90_000,
        "delivered_jobs_total,command=reconcile": 126_000,
        "delivery_delay_median_seconds": 14.2,
        "delivery_delay_p99_seconds": 41,
        "delivery_delay_jobs": 1500,
        "last_delivery_timestamp_seconds,command=flush": NOON - 29.6,
        "last_delivery_timestamp_seconds,command=reconcile": NOON - 35_959,
        "last_run_timestamp_seconds,command=flush": NOON - 30,
        "last_run_timestamp_seconds,command=reconcile": NOON - 36_000,
        "last_run_duration_seconds,command=flush": 0.4,
        "last_run_duration_seconds,command=reconcile": 41.2,
        "last_run_exit_code,command=flush": 0,
        "last_run_exit_code,command=reconcile": 0,
        "last_run_delivered_jobs,command=flush": 12,
        "last_run_delivered_jobs,command=reconcile": 18_000,
        "last_run_rejected_records,command=flush": 0,
        "last_run_rejected_records,command=reconcile": 0,
        "last_run_missed_jobs,command=flush": 0,
        "last_run_missed_jobs,command=reconcile": 3,
        "last_success_timestamp_seconds,command=flush": NOON - 30,
        "last_success_timestamp_seconds,command=reconcile": NOON - 36_000,
    }
    assert expected == read_samples(path)


#: Where a field of `status --json` is found among the metrics.
FIGURES = {
    "version": "build_info",
    "hook.last_call": "hook_last_call_timestamp_seconds",
    "hook.calls": "hook_calls_total",
    "hook.missed": "missed_jobs_total",
    "hook.missed_end": "missed_job_end_timestamp_seconds",
    "backlog.queued": "queued_jobs",
    "backlog.unreadable": "queue_unreadable_lines",
    "backlog.reasons.no record yet": "waiting_jobs,reason=no record yet",
    "backlog.oldest": "oldest_undelivered_timestamp_seconds",
    "backlog.rejected": "rejected_records",
    "backlog.given_up": "given_up_jobs_total",
    "backlog.odd_rows": "odd_rows",
    "backlog.paused_until": "dashboard_pause_timestamp_seconds",
    "coverage.ratio": "coverage_ratio",
    "coverage.jobs": "coverage_jobs",
    "coverage.days.jobs": "window_jobs",
    "coverage.days.hooked": "window_hooked_jobs",
    "delay.jobs": "delivery_delay_jobs",
    "delay.median": "delivery_delay_median_seconds",
    "delay.p99": "delivery_delay_p99_seconds",
}
FIGURES_OF_A_COMMAND = {
    "last.started_at": "last_run_timestamp_seconds",
    "last.seconds": "last_run_duration_seconds",
    "last.exit_code": "last_run_exit_code",
    "last.delivered": "last_run_delivered_jobs",
    "last.rejected": "last_run_rejected_records",
    "last.missed": "last_run_missed_jobs",
    "last_success": "last_success_timestamp_seconds",
    "last_delivery": "last_delivery_timestamp_seconds",
    "delivered": "delivered_jobs_total",
}
FIGURES.update(
    {
        f"{command}.{field}": f"{metric},command={command}"
        for command in ("flush", "reconcile")
        for field, metric in FIGURES_OF_A_COMMAND.items()
    }
)
#: Fields without a metric, and why.
NO_METRICS = {
    "taken_at": "node-exporter tells the file's age",
    "api_url": "configuration, and no figure",
    "cluster_name": "configuration, and no figure",
    "spool_dir": "configuration, and no figure",
    "level": "the alerts judge",
    "problems.level": "the alerts judge",
    "problems.text": "the alerts judge",
    "problems.hint": "the alerts judge",
    "under_way.command": "the file is written when a run ends",
    "under_way.pid": "the file is written when a run ends",
    "under_way.since": "the file is written when a run ends",
    "backlog.half_written": "waiting_jobs with its reason",
    "hook.first_day": "a day that never changes",
    "hook.since": "a moment that never changes",
    "begun": "a moment that never changes",
    "history_since": "a day that no alert asks for",
    "hook.calls_today": "the increase of hook_calls_total",
    "hook.silent": "missed_job_end against hook_last_call, as the alert has it",
    "backlog.waiting": "the sum of waiting_jobs",
    "rejected.job_id": "a series for each record; rejected_records counts them",
    "rejected.shown_id": "a series for each record; rejected_records counts them",
    "rejected.submit": "a series for each record; rejected_records counts them",
    "rejected.end": "a series for each record; rejected_records counts them",
    "rejected.reason": "a series for each record; rejected_records counts them",
    "rejected.rejected_at": "a series for each record; rejected_records counts them",
    "rejected.record": "a series for each record; rejected_records counts them",
    "flush.last.command": "the label",
    "flush.last.message": "a text would be a series of its own each time",
    "reconcile.last.command": "the label",
    "reconcile.last.message": "a text would be a series of its own each time",
    "coverage.days.day": "a label with a new value each day would be a new series each day",
}


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON document with its place, ``one.two.three``; the values of a list are kept together."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(content, list):
        for value in content:
            yield from leaves(value, path)
    else:
        yield path, content


def test_every_figure_of_status_is_a_metric(tmp_path: Path) -> None:
    """Each field has a metric with its value, or a reason here why there is none; each metric belongs to one field."""
    backlog = BACKLOG._replace(unreadable=5, rejected=2, given_up=4, odd_rows=3, paused_until=NOON + 60)
    snapshot = make_snapshot(backlog=backlog, rejected=(REFUSED,), under_way=UnderWay("flush", 1, NOON))
    found: dict[str, list[Any]] = {}
    for place, value in leaves(as_json(snapshot, [Problem(Level.WARNING, "text", "hint")])):
        found.setdefault(place, []).append(value)
    assert {*FIGURES, *NO_METRICS} == set(found)
    write_metrics(tmp_path / "x.prom", snapshot)
    samples = read_samples(tmp_path / "x.prom")
    (version,) = found.pop("version")
    assert 1 == samples.pop(f"build_info,version={version}")
    assert {FIGURES[place]: sum(values) for place, values in found.items() if place in FIGURES} == samples


def test_unknown_figures_have_no_sample(tmp_path: Path) -> None:
    """A zero would raise an alert, or hide one."""
    never = CommandRuns(None, None, None, 0)
    fresh = make_snapshot(
        flush=never,
        reconcile=never,
        delay=Delay(0, None, None),
        coverage=Coverage((), ()),
        backlog=BACKLOG._replace(oldest=None, reasons={}),
    )
    write_metrics(tmp_path / "x.prom", fresh)
    unknown = re.compile("oldest|pause|ratio|median|p99|last_run|last_success|last_delivery|waiting")
    assert [] == [name for name in read_samples(tmp_path / "x.prom") if unknown.search(name)]


def test_each_reason_to_wait_is_a_label(tmp_path: Path) -> None:
    """There are a few of them: the ledger leaves out the error message of each refused record."""
    reasons = {"refused by the dashboard": 3, "not sent yet": 4}
    write_metrics(tmp_path / "x.prom", make_snapshot(backlog=BACKLOG._replace(reasons=reasons)))
    samples = read_samples(tmp_path / "x.prom")
    waiting = {name: value for name, value in samples.items() if name.startswith("waiting")}
    assert {f"waiting_jobs,reason={reason}": number for reason, number in reasons.items()} == waiting


@pytest.mark.usefixtures("umask")
def test_everyone_may_read_the_file(tmp_path: Path) -> None:
    """node-exporter runs as another user, and the units' UMask hides everything else."""
    write_metrics(tmp_path / "x.prom", make_snapshot())
    assert 0o644 == (tmp_path / "x.prom").stat().st_mode & 0o777


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """A reader with the old file open reads it to its end, and no other file is left in the folder."""
    path = tmp_path / "x.prom"
    path.write_text("old\n")
    with path.open() as reader:
        write_metrics(path, make_snapshot())
        assert "old\n" == reader.read()
    assert ["x.prom"] == [entry.name for entry in tmp_path.iterdir()]


def test_no_link_of_another_user_is_followed(tmp_path: Path) -> None:
    """Others may write to the folder, and may know the process, its thread and the file's name."""
    victim = tmp_path / "victim"
    victim.write_text("ours\n")
    for name in ("x.prom", f"x.prom.{os.getpid()}.{threading.get_ident()}", f".x.prom.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    write_metrics(tmp_path / "x.prom", make_snapshot())
    assert ("ours\n", False) == (victim.read_text(), (tmp_path / "x.prom").is_symlink())


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """The message names the file and what it needs."""
    with pytest.raises(MetricsError, match=r"cannot write metrics_file .*x\.prom: No such file") as caught:
        write_metrics(tmp_path / "none" / "x.prom", make_snapshot())
    assert "its folder must exist and be writable by the spool's owner" == caught.value.hint


def test_without_prometheus_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an optional extra, and the message says what to do."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MetricsError) as caught:
        write_metrics(tmp_path / "x.prom", make_snapshot())
    assert "metrics_file is set, but prometheus-client is not installed" == str(caught.value)
    mend = "install it in the exporter's environment, or remove metrics_file from the configuration"
    assert mend == caught.value.hint


def test_prometheus_finds_no_fault_with_the_file(tmp_path: Path) -> None:
    """Names, units, types and help, by Prometheus' own linter."""
    need("promtool")
    write_metrics(tmp_path / "x.prom", make_snapshot())
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        capture_output=True,
        check=False,
        input=(tmp_path / "x.prom").read_bytes(),
    )
    assert (0, b"", b"") == (checked.returncode, checked.stdout, checked.stderr)


# CommandRuns


def run_flush(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "spool").mkdir(exist_ok=True)
    config = folder / "config.toml"
    config.touch(mode=0o600)
    config.write_text(
        'api_url = "http://localhost:9"\napi_key = "secret"\ncluster_name = "lab"\nsacct = "/bin/false"\n'
        f'spool_dir = "{folder}/spool"\nmetrics_file = "{folder}/x.prom"\n'
    )
    argv = [sys.executable, "-m", "agent", "flush", "--config", str(config), *options]
    return subprocess.run(argv, capture_output=True, check=False, cwd=ROOT, encoding="utf-8")


def test_each_run_writes_the_file(tmp_path: Path) -> None:
    """A failed run above all writes it, because alerts depend on it."""
    assert 0 == run_flush(tmp_path).returncode
    assert 0 == read_samples(tmp_path / "x.prom")["last_run_exit_code,command=flush"]
    (tmp_path / "spool/queue").write_text("4711 - - -\n")
    assert 69 == run_flush(tmp_path).returncode
    samples = read_samples(tmp_path / "x.prom")
    assert (69, 1) == (samples["last_run_exit_code,command=flush"], samples["hook_calls_total"])


def test_a_dry_run_does_not(tmp_path: Path) -> None:
    """A dry run does not write the file."""
    run_flush(tmp_path, "--dry-run")
    assert not (tmp_path / "x.prom").exists()


def test_a_file_that_cannot_be_written_fails_no_run(tmp_path: Path) -> None:
    """Jobs matter more than figures: a failure is only a warning."""
    (tmp_path / "x.prom").mkdir()
    done = run_flush(tmp_path)
    assert (0, 1) == (done.returncode, done.stderr.count("WARNING - cannot write metrics_file"))


# Prometheus and Grafana


@pytest.mark.parametrize("path", [RULES, BOARD], ids=lambda path: path.name)
def test_every_metric_in_a_query_exists(path: Path) -> None:
    """An alert on a name that nobody writes would never be raised."""
    asked = set(re.findall(rf"{PREFIX}[a-z0-9_]+", path.read_text(encoding="utf-8")))
    assert set() == asked - NAMES
    assert asked


def test_the_board_shows_every_metric() -> None:
    """Each metric is on the board."""
    text = BOARD.read_text(encoding="utf-8")
    assert set() == {name for name in NAMES if not re.search(rf"{name}\b", text)}


def find_losses(before: Any, after: Any, place: str = "") -> list[str]:
    """What was removed from ``before`` or changed; additions do not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [loss for key in before for loss in find_losses(before[key], after.get(key), f"{place}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after))
        return [loss for number, pair in pairs for loss in find_losses(*pair, f"{place}/{number}")]
    return [] if before == after else [f"{place}: {before!r}"]


def test_the_board_is_valid_for_grafana() -> None:
    """Read by Grafana's own SDK and written again, nothing is lost: there is no field that Grafana does not know."""
    models, plugins, encoder = (
        pytest.importorskip(f"grafana_foundation_sdk.{name}", reason="Grafana's SDK needs Python 3.11")
        for name in ("models.dashboard", "cog.plugins", "cog.encoder")
    )
    plugins.register_default_plugins()
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    again = json.loads(json.dumps(models.Dashboard.from_json(board), cls=encoder.JSONEncoder))
    assert [] == find_losses(board, again)
