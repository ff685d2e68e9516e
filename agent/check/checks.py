"""Tests every prerequisite in turn. Read-only: changes nothing and sends no job to the dashboard."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple, Tuple

from agent.check import daemons, dashboard, hook_calls, host, slurm, spool, timers, wiring
from agent.check.controllers import check_controllers
from agent.check.finding import Finding, examine, not_tested
from agent.check.mounts import MOUNTS
from agent.config import Config
from agent.dashboard.answer import Answer
from agent.dashboard.client import Dashboard
from agent.errors import ExporterError, SlurmUnreachable
from agent.install_paths import find_hook, find_wrapper
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
    journal: str = ""  # what slurmctld logged when it started: see hook_calls.read_journal


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
    units = timers.read_units(run, environ, instance, own_folder=own)
    for finding in _check_needs(neighbours, run, environ, units, watch):
        findings.append(finding)
        yield finding
    cron = timers.Cron(run=run, instance=instance)
    no_hook = any(finding.name == "hook" and finding.text.startswith(NO_HOOK) for finding in findings)
    yield from _check_timers(units, cron, rest_is_well=all(finding.ok for finding in findings), no_hook=no_hook)


def _check_needs(
    neighbours: Neighbours | ExporterError,
    run: RunCommand,
    environ: Mapping[str, str],
    units: timers.Units,
    watch: Watch | None,
) -> Iterator[Finding]:
    """Everything that a run needs."""
    yield examine("Python", host.check_python)
    if isinstance(neighbours, ExporterError):
        mend = neighbours.hint or "fix these keys; the program's config.toml.example lists them all"
        yield Finding("configuration", False, str(neighbours), mend)
        for name in ("Slurm", "spool", "hook", "dashboard"):
            yield not_tested(name, "the configuration")
    else:
        yield from _Needs(neighbours, run, environ, units, watch).examine()


def _check_timers(units: timers.Units, cron: timers.Cron, *, rest_is_well: bool, no_hook: bool) -> Iterator[Finding]:
    user = host.own_name()
    for name, unit in (("daily timer", timers.RECONCILE), ("flush timer", timers.FLUSH)):
        if no_hook and unit == timers.FLUSH and not timers.is_wanted(units, unit):
            yield Finding(name, True, "not enabled (optional): without a hook nothing is queued")
            continue
        yield examine(name, partial(timers.check_timer, units, unit, cron, user, rest_is_well=rest_is_well))
    yield examine("path unit", lambda: timers.check_path_unit(units))


#: A check: its name, what it does, and what it lacks in words; empty if nothing.
_Check = Tuple[str, Callable[[], str], str]
#: The words for a finding that another check lacks; any other finding goes by its name.
_IN_WORDS = {"hook": "the hook", "dashboard": "the dashboard", "API key": "the API key"}


class _Needs:
    """What a run needs, according to its configuration. The checks are made in order: some need what others found."""

    def __init__(
        self,
        neighbours: Neighbours,
        run: RunCommand,
        environ: Mapping[str, str],
        units: timers.Units,
        watch: Watch | None,
    ) -> None:
        self._config, self._slurm, self._dashboard, self._journal = neighbours
        self._run = run
        self._environ = environ
        self._units = units
        self._watch = watch
        self._daemons = daemons.read_daemons(run)  # on this host
        self._is_elsewhere = slurm.is_elsewhere(self._config, wiring.find_conf(environ))
        self._no_hook = _why_no_hook(self._config, is_elsewhere=self._is_elsewhere)
        self._failed: set[str] = set()
        self._settings: dict[str, str] = {}  # slurmctld's view of slurm.conf, once it has answered
        self._call: wiring.Call  # once slurm.conf was found to be correct
        self._health: Answer  # once the dashboard has answered
        self._owner: str  # the cluster that the API key belongs to, once it has been accepted

    def examine(self) -> Iterator[Finding]:
        """Each finding in turn."""
        for name, check, lacks in self._checks():
            finding = not_tested(name, lacks) if lacks else examine(name, check)
            if not finding.ok:
                self._failed.add(name)
            yield finding

    def _checks(self) -> Iterator[_Check]:
        yield "configuration", lambda: host.check_configuration(self._config), ""
        yield "secrecy", lambda: host.check_secrecy(self._config), ""
        yield from self._checks_of_slurm()
        yield from self._checks_of_spool()
        yield from self._checks_of_hook()
        yield from self._checks_of_dashboard()

    def _lacks(self, *needed: str) -> str:
        """The first of these findings that reports a problem."""
        return next((_IN_WORDS.get(name, name) for name in needed if name in self._failed), "")

    def _checks_of_slurm(self) -> Iterator[_Check]:
        config, settings = self._config, self._settings
        yield "sacct", self._slurm.sacct.version, ""
        if not self._lacks("sacct"):
            yield "commands", lambda: slurm.check_commands(config, alone=self._is_elsewhere), ""
        yield "slurmctld", self._ask_slurmctld, ""
        if settings or self._is_elsewhere:
            yield "cluster name", lambda: slurm.check_cluster(config, settings), ""
        if settings:
            yield "GPUs", lambda: slurm.check_gpus(settings), ""
        yield "slurmdbd", self._ask_slurmdbd, self._lacks("sacct")
        see_all = partial(slurm.check_privileges, self._slurm, host.own_name(), settings)
        yield "privileges", see_all, self._lacks("sacct", "slurmdbd")

    def _ask_slurmctld(self) -> str:
        if self._is_elsewhere:
            return f"not needed: the jobs of {self._config.slurm_cluster} come from slurmdbd alone"
        try:
            self._settings.update(self._slurm.scontrol.read_config())
        except SlurmUnreachable as error:
            is_down = self._daemons.get("slurmctld", "active") not in {"active", "reloading"}
            conf, installed = wiring.find_conf(self._environ), find_hook(self._config.instance)
            why = wiring.why_not_started(conf, installed) if is_down else None
            raise (why or daemons.explain(error, self._daemons, "slurmctld")) from error
        return f"answers, runs as {slurm.slurm_user(self._settings)}"

    def _ask_slurmdbd(self) -> str:
        try:
            return slurm.check_slurmdbd(self._slurm, self._settings)
        except SlurmUnreachable as error:
            raise daemons.explain(error, self._daemons, "slurmdbd", *daemons.DATABASES) from error

    def _checks_of_spool(self) -> Iterator[_Check]:
        folder, flush = self._config.spool_dir, f"{timers.FLUSH}.service"
        hooks_user = "" if self._no_hook else slurm.slurm_user(self._settings)
        mounts = MOUNTS.read_text(encoding="utf-8")
        yield "spool", lambda: spool.check_spool_folder(folder, hooks_user, self._config.path), ""
        start, closed = f"{self._units.manager} start {flush}" if flush in self._units else "", _lacks_spool(folder)
        yield "free space", lambda: spool.check_space(folder), closed
        yield "filesystem", lambda: spool.check_filesystem(folder, mounts), closed
        yield "locks", lambda: spool.check_locks(folder), closed
        yield "ledger", lambda: spool.check_ledger(folder / LEDGER_NAME, start), closed
        sandbox = self._units[flush].get("ReadWritePaths", "")
        yield "metrics", lambda: host.check_metrics(self._config, sandbox), ""
        found = parse_controllers(self._settings)
        if len(found.hosts) > 1 and any(map(is_this_host, found.hosts)):
            yield "controllers", lambda: check_controllers(found, sandbox, mounts), ""

    def _checks_of_hook(self) -> Iterator[_Check]:
        config, installed = self._config, find_hook(self._config.instance)
        if self._no_hook:
            yield "hook", lambda: f"{NO_HOOK}{self._no_hook}: the daily run delivers all jobs", ""
            return
        yield "slurm.conf", partial(self._find_call, installed), self._lacks_conf()
        lacks = self._lacks_conf() or self._lacks("slurm.conf")
        yield "hook", lambda: slurm.check_hook(self._call, config.spool_dir, installed), lacks
        see = self._see_call if self._watch else self._check_calls
        yield "hook calls", see, lacks or self._lacks("hook") or _lacks_spool(config.spool_dir)

    def _lacks_conf(self) -> str:
        if not self._settings:
            return "slurmctld"
        # A hook in slurm.conf is the host's: a user with a separate spool cannot change it.
        is_users = _own_folder(self._config) and slurm.slurm_user(self._settings) != host.own_name()
        return "a spool that the Slurm user can write to" if is_users else ""

    def _find_call(self, installed: str) -> str:
        conf = wiring.read_conf(self._settings)
        self._call = wiring.check_wiring(self._settings, conf, installed, find_wrapper())
        return self._call.line

    def _check_calls(self) -> str:
        def count_ended(since: float) -> int:
            return hook_calls.count_ended_jobs(self._slurm, since, time.time() - hook_calls.SETTLED_SECONDS)

        controller = hook_calls.Controller(self._settings, daemons.is_running({"slurmctld"}), self._journal)
        return hook_calls.check_calls(controller, self._call.script, self._config.spool_dir, count_ended)

    def _see_call(self) -> str:
        """Waits for a real call."""
        config, watch = self._config, self._watch
        started = self._call.key != "JobCompLoc"
        submit = partial(hook_calls.submit_test_job, self._run, config.sacct, started=started)
        seconds, test_job = watch or (None, False)
        seen = hook_calls.wait_for_call(config.spool_dir, seconds, submit if test_job else None)
        return seen or f"{self._check_calls()}; no call while waiting"

    def _checks_of_dashboard(self) -> Iterator[_Check]:
        config = self._config
        yield "dashboard", self._ask_dashboard, ""
        yield "encryption", lambda: dashboard.check_encryption(config, self._environ), ""
        silent = self._lacks("dashboard")
        if config.receiver == "any" and not silent:
            yield "API key", lambda: "not tested: only a delivery shows whether this receiver accepts it", ""
        else:
            cluster = config.shown_as or self._settings.get("ClusterName", "")
            yield "API key", partial(self._check_key, cluster), silent
            lacks = silent or ("" if cluster else "the cluster's name") or self._lacks("API key")
            yield "shown", partial(self._check_shown, cluster), lacks
        yield "clock", lambda: dashboard.check_clock(self._health), silent

    def _ask_dashboard(self) -> str:
        self._health = self._dashboard.health()
        return f"{self._config.api_url} answers"

    def _check_key(self, cluster: str) -> str:
        text, self._owner = dashboard.check_key(self._dashboard, cluster)
        return text

    def _check_shown(self, cluster: str) -> str:
        delivered = _count_delivered(self._config.spool_dir)
        return dashboard.check_shown(cluster, self._owner, self._health, delivered)


def _lacks_spool(folder: Path) -> str:
    """Whether there is a spool that this user can look into; empty if there is."""
    return "" if os.access(folder, os.R_OK | os.X_OK) else "the spool"


def _why_no_hook(config: Config, *, is_elsewhere: bool) -> str:
    """Why no hook is expected, as for an unprivileged user; empty if one is."""
    if not any(config.status_coverage_percent):
        return "because status_coverage_percent is [0, 0]"
    return f"because this host does not control {config.slurm_cluster}" if is_elsewhere else ""


def _own_folder(config: Config) -> Path | None:
    """~/.config of a user with an installation of their own, judging by the configuration's place; otherwise None."""
    if os.geteuid() == 0 or config.path is None or not host.is_users_own(config.path):
        return None
    return config.path.parent.parent


def _count_delivered(folder: Path) -> float:
    """How many jobs have been delivered; 0 if the ledger is unreadable, which another check reports."""
    try:
        with look_at_ledger(folder) as ledger:
            return sum(ledger.facts.get(DELIVERED_BY + command) for command in ("flush", "reconcile"))
    except ExporterError:
        return 0
