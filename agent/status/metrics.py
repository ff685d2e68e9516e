"""Writes the figures of ``status`` as a textfile for Prometheus' node-exporter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Mapping, NamedTuple, Union

from agent import __version__
from agent.errors import MetricsError
from agent.spool.disk import replace_file
from agent.status.snapshot import CommandRuns, Snapshot

if TYPE_CHECKING:
    from prometheus_client import Metric

    from agent.spool.run_history import RunReport

PREFIX = "slurm_usage_history_"
#: Distinguishes the instances of a host, whose files node-exporter merges. Prometheus reserves "instance".
INSTANCE_LABEL = "exporter_instance"

#: A number, None if unknown, or several numbers by label value.
Value = Union[float, None, Mapping[str, Union[float, None]]]


class Definition(NamedTuple):
    """One metric: a counter if its name ends in ``_total``, otherwise a gauge."""

    name: str  # without PREFIX
    about: str
    read: Callable[[Snapshot], Value]
    label: str = ""  # the label's name, if there are several values


def _of_each_command(read: Callable[[CommandRuns], float | None]) -> Callable[[Snapshot], Value]:
    return lambda snapshot: {"flush": read(snapshot.flush), "reconcile": read(snapshot.reconcile)}


def _of_last_run(read: Callable[[RunReport], float]) -> Callable[[Snapshot], Value]:
    return _of_each_command(lambda runs: read(runs.last) if runs.last else None)


#: For each command, of its last run.
_OF_LAST_RUN: tuple[tuple[str, str, Callable[[RunReport], float]], ...] = (
    ("last_run_timestamp_seconds", "When the last run began.", lambda run: run.started_at),
    ("last_run_duration_seconds", "How long the last run took.", lambda run: run.seconds),
    ("last_run_exit_code", "The exit code of the last run, 0 for success.", lambda run: run.exit_code),
    ("last_run_delivered_jobs", "Jobs that the last run delivered.", lambda run: run.delivered),
    ("last_run_rejected_records", "Records of the last run that the dashboard rejected.", lambda run: run.rejected),
    (
        "last_run_missed_jobs",
        "Jobs of the last run that the hook had missed; only reconcile counts them.",
        lambda run: run.missed,
    ),
)

METRICS = (
    Definition("build_info", "Always 1, with the version as a label.", lambda _: {__version__: 1}, "version"),
    Definition("queued_jobs", "Jobs in the queue file, not claimed by a flush yet.", lambda s: s.backlog.queued),
    Definition("queue_unreadable_lines", "Lines of the queue file without a JobID.", lambda s: s.backlog.unreadable),
    Definition("waiting_jobs", "Jobs that flush will retry later.", lambda s: s.backlog.reasons, "reason"),
    Definition(
        "oldest_undelivered_timestamp_seconds",
        "When the oldest queued or waiting job ended; absent if there is none.",
        lambda s: s.backlog.oldest,
    ),
    Definition("rejected_records", "Records that the dashboard rejected.", lambda s: s.backlog.rejected),
    Definition(
        "dashboard_pause_timestamp_seconds",
        "The end of the pause that the dashboard asked for (Retry-After); absent if there is none.",
        lambda s: s.backlog.paused_until,
    ),
    Definition(
        "given_up_jobs_total",
        "Jobs that flush left to reconcile after retry_max_age_days.",
        lambda s: s.backlog.given_up,
    ),
    Definition("odd_rows", "Rows of sacct that the last reconcile could not parse.", lambda s: s.backlog.odd_rows),
    Definition("hook_calls_total", "Calls of the hook.", lambda s: s.hook.calls),
    Definition("hook_last_call_timestamp_seconds", "When the hook was last called.", lambda s: s.hook.last_call),
    Definition("missed_jobs_total", "Jobs that the hook missed and reconcile delivered.", lambda s: s.hook.missed),
    Definition(
        "missed_job_end_timestamp_seconds",
        "When the newest missed job that had run ended.",
        lambda s: None if s.no_hook else s.hook.missed_end,
    ),
    Definition("coverage_ratio", "Share of the last two days' jobs that the hook caught.", lambda s: s.coverage.ratio),
    Definition("coverage_jobs", "Jobs that coverage_ratio is based on.", lambda s: s.coverage.jobs),
    # Not labelled by day, which would create a new series every day; Prometheus records the time itself.
    Definition(
        "window_jobs",
        "Jobs that ended in the collection window, counted by reconcile.",
        lambda s: sum(day.jobs for day in s.coverage.days),
    ),
    Definition(
        "window_hooked_jobs",
        "Jobs of the collection window that the hook caught.",
        lambda s: sum(day.hooked for day in s.coverage.days),
    ),
    Definition(
        "delivered_jobs_total",
        "Jobs that the dashboard has acknowledged, including repeats.",
        _of_each_command(lambda runs: runs.delivered),
        "command",
    ),
    Definition(
        "delivery_delay_median_seconds",
        "Median time from a job's end to its delivery, for jobs that flush delivered recently.",
        lambda s: s.delay.median,
    ),
    Definition(
        "delivery_delay_p99_seconds",
        "99th percentile of the time from a job's end to its delivery, for jobs that flush delivered recently.",
        lambda s: s.delay.p99,
    ),
    Definition("delivery_delay_jobs", "Deliveries that the delay is based on.", lambda s: s.delay.jobs),
    Definition(
        "last_delivery_timestamp_seconds",
        "When the last run that delivered anything ended.",
        _of_each_command(lambda runs: runs.last_delivery),
        "command",
    ),
    *(Definition(name, about, _of_last_run(read), "command") for name, about, read in _OF_LAST_RUN),
    Definition(
        "last_success_timestamp_seconds",
        "When the last successful run began.",
        _of_each_command(lambda runs: runs.last_success),
        "command",
    ),
)


def write_metrics(path: Path, snapshot: Snapshot) -> None:
    """Replaces the file atomically, so that no reader sees a part of it.

    :raises MetricsError: if it cannot be written, or prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415  # an optional extra
    except ImportError as error:
        raise MetricsError(
            "metrics_file is set, but prometheus-client is not installed",
            hint="install it in the exporter's environment, or remove metrics_file from the configuration",
        ) from error
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    try:
        replace_file(path, generate_latest(registry))
    except OSError as error:
        raise MetricsError(
            f"cannot write metrics_file {path}: {error.strerror}",
            hint="its folder must exist and be writable by the spool's owner",
        ) from error


class _Collector:
    """The collector that prometheus-client calls."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All metrics of the snapshot; an unknown value has no sample."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        instance = self._snapshot.config.instance
        always = {INSTANCE_LABEL: instance} if instance else {}
        for name, about, read, label in METRICS:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(PREFIX + name, about, labels=[*([label] if label else []), *always])
            value = read(self._snapshot)
            for label_value, number in (value if isinstance(value, Mapping) else {"": value}).items():
                if number is not None:
                    family.add_metric([*([label_value] if label else []), *always.values()], number)
            yield family
