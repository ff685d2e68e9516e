"""What `check` reports about the accounting: whose jobs sacct returns, how many at a time, and GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.check import checks as check
from agent.check import slurm as check_slurm
from agent.check.finding import Finding, NotWell
from agent.config import parse_config
from agent.dashboard.answer import Answer
from agent.dashboard.client import Dashboard
from agent.errors import ConfigError, SlurmUnreachable
from tests.support.memory import MemoryQuery, slurm_of
from tests.support.rows import make_run

DATABASE = {"SlurmUser": "slurm(64030)", "PrivateData": "none", "SLURMDBD_VERSION": "22.05.8"}


class Commands:
    """A host without slurmctld, on which slurmdbd answers; ``widest`` is what it allows in seconds."""

    def __init__(self, *, widest: int = 0, limit: str = "UNLIMITED") -> None:
        self._widest = widest
        self._limit = limit

    def version(self) -> str:
        return "slurm 22.05.8"

    def read_config(self) -> dict[str, str]:
        raise SlurmUnreachable("scontrol show config failed: Unable to contact slurm controller")

    def read_accounting_config(self) -> dict[str, str]:
        return {**DATABASE, "MaxQueryTimeRange": self._limit}

    def admin_level(self, user: str) -> str:
        return "None"

    def ask_window(self, start: int, end: int, states: str = "") -> MemoryQuery:
        return MemoryQuery([make_run(), make_run()], start, start + self._widest - 1 if self._widest else end)


def no_systemd(_: Any) -> Any:
    raise SlurmUnreachable("no systemctl")


def test_slurmdbd_is_tested_without_a_slurmctld(tmp_path: Path) -> None:
    """slurmdbd is tested even if the cluster's controller is down, or runs elsewhere."""
    config = parse_config({"api_url": "https://d.example.com", "api_key": "k", "spool_dir": str(tmp_path)}, {})
    dashboard = Dashboard(config.api_url, "k", lambda *_: Answer(502, {}, "bad gateway"))
    neighbours = check.Neighbours(config, slurm_of(Commands()), dashboard)
    findings = {finding.name: finding for finding in check.run_checks(neighbours, no_systemd, {})}
    assert (False, True) == (findings["slurmctld"].ok, findings["slurmdbd"].ok)
    assert findings["slurmdbd"].text.startswith("sacct returned 2 jobs that ended in the last 24 hours, in ")
    assert findings["privileges"].ok


def test_a_cluster_seen_through_slurmdbd_alone_needs_no_slurmctld(tmp_path: Path) -> None:
    """If slurm_cluster names a cluster of another host, no slurmctld, hook or flush timer is expected here."""
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=alpha\n")
    reported = {"api_url": "https://d.example.com", "api_key": "k", "slurm_cluster": "beta", "spool_dir": str(tmp_path)}

    def transport(method: str, url: str, headers: Any, body: Any) -> Answer:
        return Answer(200, {}, json.dumps({"hostnames": ["beta"], "cluster": "beta"}))

    def check_all(**settings: Any) -> dict[str, Finding]:
        config = parse_config({**reported, **settings}, {})
        dashboard = Dashboard(config.api_url, "k", transport)
        neighbours = check.Neighbours(config, slurm_of(Commands()), dashboard)
        environ = {"SLURM_CONF": str(conf)}
        return {finding.name: finding for finding in check.run_checks(neighbours, no_systemd, environ)}

    findings = check_all()
    wanted = ("slurmctld", "cluster name", "slurmdbd", "privileges", "hook", "flush timer", "API key", "shown")
    assert dict.fromkeys(wanted, True) == {name: findings[name].ok for name in wanted}
    assert "beta" == findings["cluster name"].text
    assert (
        "not expected, because this host does not control beta: the daily run delivers all jobs"
        == findings["hook"].text
    )
    assert "GPUs" not in findings
    assert "not expected, because status_coverage_percent is [0, 0]: the daily run delivers all jobs" == (
        check_all(status_coverage_percent=[0, 0])["hook"].text
    )
    assert not check_all(slurm_cluster="ALPHA")["slurmctld"].ok
    assert not check_all(slurm_cluster="ALPHA")["flush timer"].ok


def test_a_range_that_is_limited() -> None:
    """The longest range that slurmdbd accepts is shown, and who may request longer ones."""
    slurm = slurm_of(Commands(widest=6 * 3600, limit="06:00:00"))
    assert check_slurm.check_slurmdbd(slurm, {}, lambda: 1.7e9) == (
        "sacct returned 2 jobs that ended within 6 hours of the last day, in 0.0 s"
    )
    reported = check_slurm.check_privileges(slurm, "bob", {})
    assert reported.startswith("bob sees all jobs, because PrivateData hides none, up to 6 h")
    assert reported.endswith("at a time (MaxQueryTimeRange); an Operator has no such limit")
    assert "root sees all jobs" == check_slurm.check_privileges(slurm, "root", {})


def test_rows_of_another_cluster() -> None:
    """The cluster of the rows is checked when they are read."""

    class Refused(MemoryQuery):
        def answer(self) -> Any:
            def rows() -> Any:
                raise ConfigError("these are the jobs of cluster alpha")
                yield

            return rows()

    commands: Any = Commands()
    commands.ask_window = lambda start, end: Refused([], start, end)
    with pytest.raises(ConfigError, match="the jobs of cluster alpha"):
        check_slurm.check_slurmdbd(slurm_of(commands), {})


def test_slurms_own_name_of_another_cluster() -> None:
    """slurm_cluster, if set, takes precedence over the ClusterName of this host."""
    reported = {"api_url": "https://d.example.com", "api_key": "k", "slurm_cluster": "beta"}
    for shown, text in ((None, "beta"), ("Beta at home", "Beta at home on the dashboard, beta in Slurm")):
        config = parse_config({**reported, **({"cluster_name": shown} if shown else {})}, {})
        assert text == check_slurm.check_cluster(config, {"ClusterName": "alpha"})


@pytest.mark.parametrize(
    ("types", "tracked", "text"),
    [
        ("gpu", "cpu,gres/gpu,gres/gpu:a100", "tracked by gres/gpu, gres/gpu:a100 in AccountingStorageTRES"),
        ("gpu,mps", "cpu,mem,GRES/GPU:a100", "tracked by gres/gpu:a100 in AccountingStorageTRES"),
        ("(null)", "cpu,mem", "none in GresTypes"),
        ("nic", "cpu,mem", "none in GresTypes"),
        ("", "", "none in GresTypes"),
    ],
)
def test_gpus_that_are_tracked_or_do_not_exist(types: str, tracked: str, text: str) -> None:
    """A site may track the types alone, or have no GPUs."""
    assert text == check_slurm.check_gpus({"GresTypes": types, "AccountingStorageTRES": tracked})


@pytest.mark.parametrize("tracked", ["cpu,mem,energy", "cpu,gres/gpumem,gres/gpuutil", "(null)", ""])
def test_gpus_that_are_not_tracked(tracked: str) -> None:
    """Otherwise GPU-hours would silently stay 0."""
    with pytest.raises(NotWell, match="tracks no GPU-hours"):
        check_slurm.check_gpus({"GresTypes": "mps,gpu", "AccountingStorageTRES": tracked})
