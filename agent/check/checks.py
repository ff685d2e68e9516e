"""Tests every prerequisite in turn. Read-only: changes nothing and sends no job to the dashboard."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple

from agent.check import calls, daemons, wiring
from agent.check import dashboard as check_dashboard
from agent.check import host as check_host
from agent.check import slurm as check_slurm
from agent.check import spool as check_spool
from agent.check import timers as check_timers
from agent.check.controllers import check_controllers
from agent.check.finding import Finding, examine
from agent.check.mounts import MOUNTS
from agent.config import Config
from agent.dashboard.answer import Answer
from agent.dashboard.client import Dashboard
from agent.errors import ExporterError, SlurmUnreachable
from agent.installed import find_hook, find_wrapper
from agent.slurm.controller_hosts import is_this_host, parse_controllers
from agent.slurm.process import RunCommand
from agent.slurm.slurm import Slurm
from agent.spool.facts import DELIVERED_BY
from agent.spool.spool import LEDGER_NAME, look_at_ledger

NO_HOOK = "not expected, "


class Neighbours(NamedTuple):
    """What the exporter works with, as configured."""

    config: Config
    slurm: Slurm
    dashboard: Dashboard
    journal: str = ""  # what slurmctld logged when it started: see calls.read_journal


class Watch(NamedTuple):
    """How to wait for a real call of the hook."""

    seconds: int | None  # None: as long as a test job may take
    test_job: bool


def run_checks(
    neighbours: Neighbours | ExporterError,
    run: RunCommand,
    environ: Mapping[str, str],
    watch: Watch | None = None,
    instance: str = "",
) -> Iterator[Finding]:
    """Yields each finding immediately. Commands and units have the host's own names, not an instance's.

    :param neighbours: or the error that prevented making them.
    :param run: runs a command, such as systemctl.
    :param watch: given to wait for a call of the hook.
    """
    findings = []
    own = None if isinstance(neighbours, ExporterError) else _own_folder(neighbours.config)
    units = check_timers.read_units(run, environ, instance, own_folder=own)
    for finding in _check_needs(neighbours, run, environ, units, watch):
        findings.append(finding)
        yield finding
    cron = check_timers.Cron(run=run, instance=instance)
    no_hook = any(finding.name == "hook" and finding.text.startswith(NO_HOOK) for finding in findings)
    yield from _check_timers(units, cron, rest_is_well=all(finding.ok for finding in findings), no_hook=no_hook)


def _check_needs(
    neighbours: Neighbours | ExporterError,
    run: RunCommand,
    environ: Mapping[str, str],
    units: check_timers.Units,
    watch: Watch | None,
) -> Iterator[Finding]:
    """Everything that a run needs."""
    yield examine("Python", check_host.check_python)
    if isinstance(neighbours, ExporterError):
        mend = neighbours.hint or "fix these keys; the program's config.toml.example lists them all"
        yield Finding("configuration", False, str(neighbours), mend)
        yield from _untested("the configuration", "Slurm", "spool", "hook", "dashboard")
    else:
        yield from _Needs(neighbours, run, environ, units, watch).check()


def _check_timers(
    units: check_timers.Units, cron: check_timers.Cron, *, rest_is_well: bool, no_hook: bool
) -> Iterator[Finding]:
    user = check_host.own_name()
    for name, unit in (("daily timer", check_timers.RECONCILE), ("flush timer", check_timers.FLUSH)):
        if no_hook and unit == check_timers.FLUSH and not check_timers.is_wanted(units, unit):
            yield Finding(name, True, "not enabled (optional): without a hook nothing is queued")
            continue
        yield examine(name, partial(check_timers.check_timer, units, unit, cron, user, rest_is_well=rest_is_well))
    yield examine("path unit", lambda: check_timers.check_path_unit(units))


class _Needs:
    """What a run needs, according to its configuration."""

    def __init__(
        self,
        neighbours: Neighbours,
        run: RunCommand,
        environ: Mapping[str, str],
        units: check_timers.Units,
        watch: Watch | None,
    ) -> None:
        self._config, self._slurm, self._dashboard, self._journal = neighbours
        self._run = run
        self._environ = environ
        self._units = units
        self._watch = watch
        self._daemons = daemons.read_daemons(run)  # on this host
        self._is_elsewhere = check_slurm.is_elsewhere(self._config, wiring.find_conf(environ))
        self._no_hook = why_no_hook(self._config, is_elsewhere=self._is_elsewhere)
        self._settings: dict[str, str] = {}  # slurmctld's view of slurm.conf, once it has answered

    def check(self) -> Iterator[Finding]:
        """Each finding in turn."""
        yield examine("configuration", lambda: check_host.check_configuration(self._config))
        yield examine("secrecy", lambda: check_host.check_secrecy(self._config))
        yield from self._check_slurm()
        yield from self._check_spool()
        if self._no_hook:
            yield Finding("hook", True, f"{NO_HOOK}{self._no_hook}: the daily run delivers all jobs")
        else:
            yield from self._check_hook()
        yield from self._check_dashboard()

    def _check_slurm(self) -> Iterator[Finding]:
        config, slurm = self._config, self._slurm
        sacct = examine("sacct", slurm.sacct.version)
        yield sacct
        if sacct.ok:
            yield examine("commands", lambda: check_slurm.check_commands(config, alone=self._is_elsewhere))
        if self._is_elsewhere:
            yield Finding("slurmctld", True, f"not needed: the jobs of {config.slurm_cluster} come from slurmdbd alone")
        else:
            yield examine("slurmctld", self._ask_slurmctld)
        if self._settings or self._is_elsewhere:
            yield examine("cluster name", lambda: check_slurm.check_cluster(config, self._settings))
        if self._settings:
            yield examine("GPUs", lambda: check_slurm.check_gpus(self._settings))
        if not sacct.ok:
            yield from _untested("sacct", "slurmdbd", "privileges")
            return
        slurmdbd = examine("slurmdbd", self._ask_slurmdbd)
        yield slurmdbd
        if slurmdbd.ok:
            yield examine(
                "privileges", lambda: check_slurm.check_privileges(slurm, check_host.own_name(), self._settings)
            )
        else:
            yield from _untested("slurmdbd", "privileges")

    def _ask_slurmctld(self) -> str:
        try:
            self._settings.update(self._slurm.scontrol.read_config())
        except SlurmUnreachable as error:
            is_down = self._daemons.get("slurmctld", "active") not in {"active", "reloading"}
            conf, installed = wiring.find_conf(self._environ), find_hook(self._config.instance)
            why = wiring.why_not_started(conf, installed) if is_down else None
            raise (why or daemons.explain(error, self._daemons, "slurmctld")) from error
        return f"answers, runs as {check_slurm.slurm_user(self._settings)}"

    def _ask_slurmdbd(self) -> str:
        try:
            return check_slurm.check_slurmdbd(self._slurm, self._settings)
        except SlurmUnreachable as error:
            raise daemons.explain(error, self._daemons, "slurmdbd", "database") from error

    def _check_spool(self) -> Iterator[Finding]:
        spool, flush = self._config.spool_dir, f"{check_timers.FLUSH}.service"
        hooks_user = "" if self._no_hook else check_slurm.slurm_user(self._settings)
        mounts = MOUNTS.read_text(encoding="utf-8")
        yield examine("spool", lambda: check_spool.check_spool_folder(spool, hooks_user, self._config.path))
        if _is_open(spool):
            start = f"{self._units.manager} start {flush}" if flush in self._units else ""
            yield examine("free space", lambda: check_spool.check_space(spool))
            yield examine("filesystem", lambda: check_spool.check_filesystem(spool, mounts))
            yield examine("locks", lambda: check_spool.check_locks(spool))
            yield examine("ledger", lambda: check_spool.check_ledger(spool / LEDGER_NAME, start))
        else:
            yield from _untested("the spool", "free space", "filesystem", "locks", "ledger")
        sandbox = self._units[flush].get("ReadWritePaths", "")
        yield examine("metrics", lambda: check_host.check_metrics(self._config, sandbox))
        found = parse_controllers(self._settings)
        if len(found.hosts) > 1 and any(map(is_this_host, found.hosts)):
            yield examine("controllers", lambda: check_controllers(found, sandbox, mounts))

    def _check_hook(self) -> Iterator[Finding]:
        config, settings = self._config, self._settings
        if not settings:
            yield from _untested("slurmctld", "slurm.conf", "hook", "hook calls")
            return
        if _own_folder(config) and check_slurm.slurm_user(settings) != check_host.own_name():
            # A hook in slurm.conf is the host's: this user can change nothing about it.
            yield from _untested("a spool that the Slurm user can write to", "slurm.conf", "hook", "hook calls")
            return
        conf, installed = wiring.read_conf(settings), find_hook(config.instance)
        lines = examine("slurm.conf", lambda: wiring.check_wiring(settings, conf, installed, find_wrapper()))
        yield lines
        call = wiring.wiring_of_slurmctld(settings).find_call()
        if not (lines.ok and call):
            yield from _untested("slurm.conf", "hook", "hook calls")
            return
        hook = examine("hook", lambda: check_slurm.check_hook(call, config.spool_dir, installed))
        yield hook
        if not hook.ok:
            yield from _untested("the hook", "hook calls")
        elif not _is_open(config.spool_dir):
            yield from _untested("the spool", "hook calls")
        else:
            yield examine("hook calls", lambda: self._see_call(call) if self._watch else self._check_calls(call))

    def _check_calls(self, call: wiring.Call) -> str:
        def count_ended(since: float) -> int:
            return calls.count_ended_jobs(self._slurm, since, time.time() - calls.SETTLED_SECONDS)

        controller = calls.Controller(self._settings, daemons.is_running({"slurmctld"}), self._journal)
        return calls.check_calls(controller, call.script, self._config.spool_dir, count_ended)

    def _see_call(self, call: wiring.Call) -> str:
        """Waits for a real call."""
        config, watch = self._config, self._watch
        started = call.key != "JobCompLoc"
        job = calls.SampleJob(self._run, config.sacct, started=started) if watch and watch.test_job else None
        seen = calls.wait_for_call(config.spool_dir, watch.seconds if watch else None, job)
        return seen or f"{self._check_calls(call)}; no call while waiting"

    def _check_dashboard(self) -> Iterator[Finding]:
        config, dashboard = self._config, self._dashboard
        answers: list[Answer] = []

        def ask() -> str:
            answers.append(dashboard.health())
            return f"{config.api_url} answers"

        reachable = examine("dashboard", ask)
        yield reachable
        yield examine("encryption", lambda: check_dashboard.check_encryption(config, self._environ))
        if not reachable.ok:
            yield from _untested("the dashboard", "API key", "shown", "clock")
            return
        if config.receiver == "any":
            yield Finding("API key", True, "not tested: only a delivery shows whether this receiver accepts it")
        else:
            yield from self._check_key(answers[0])
        yield examine("clock", lambda: check_dashboard.check_clock(answers[0]))

    def _check_key(self, health: Answer) -> Iterator[Finding]:
        cluster = self._config.shown_as or self._settings.get("ClusterName", "")
        owners: list[str] = []

        def ask() -> str:
            text, owner = check_dashboard.check_key(self._dashboard, cluster)
            owners.append(owner)
            return text

        yield examine("API key", ask)
        if owners and cluster:
            delivered = _count_delivered(self._config.spool_dir)
            yield examine("shown", lambda: check_dashboard.check_shown(cluster, owners[0], health, delivered))
        else:
            yield from _untested("the API key" if cluster else "the cluster's name", "shown")


def _is_open(spool: Path) -> bool:
    """Whether there is a spool that this user can look into."""
    return os.access(spool, os.R_OK | os.X_OK)


def why_no_hook(config: Config, *, is_elsewhere: bool) -> str:
    """Why no hook is expected, as for an unprivileged user; empty if one is."""
    if not any(config.status_coverage_percent):
        return "as status_coverage_percent is [0, 0]"
    return f"as this host does not control {config.slurm_cluster}" if is_elsewhere else ""


def _own_folder(config: Config) -> Path | None:
    """~/.config of a user with an installation of their own, judging by the configuration's place; otherwise None."""
    if os.geteuid() == 0 or config.path is None or not check_host.is_users_own(config.path):
        return None
    return config.path.parent.parent


def _count_delivered(spool: Path) -> float:
    """How many jobs have been delivered; 0 if the ledger is unreadable, which another check reports."""
    try:
        with look_at_ledger(spool) as ledger:
            return sum(ledger.facts.get(DELIVERED_BY + command) for command in ("flush", "reconcile"))
    except ExporterError:
        return 0


def _untested(needs: str, *names: str) -> Iterator[Finding]:
    for name in names:
        yield Finding(name, None, f"not tested: requires {needs}")
