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
        config, slurm, dashboard, _ = neighbours
        settings: dict[str, str] = {}
        yield examine("configuration", lambda: check_host.check_configuration(config))
        yield examine("secrecy", lambda: check_host.check_secrecy(config))
        is_elsewhere = check_slurm.is_elsewhere(config, wiring.find_conf(environ))
        no_hook = why_no_hook(config, is_elsewhere=is_elsewhere)
        states = daemons.read_daemons(run)
        yield from _check_slurm(config, slurm, settings, states, environ, is_elsewhere=is_elsewhere)
        yield from _check_spool(config, settings, units, no_hook)
        if no_hook:
            yield Finding("hook", True, f"{NO_HOOK}{no_hook}: the daily run delivers all jobs")
        else:
            yield from _check_hook(neighbours, settings, run, watch)
        yield from _check_dashboard(config, dashboard, settings, environ)


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


def _check_slurm(
    config: Config,
    slurm: Slurm,
    settings: dict[str, str],
    states: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    is_elsewhere: bool,
) -> Iterator[Finding]:
    """Fills in ``settings``, slurmctld's view of slurm.conf, if slurmctld answers.

    :param states: of the daemons on this host.
    :param is_elsewhere: see :func:`agent.check.slurm.is_elsewhere`.
    """
    sacct = examine("sacct", slurm.sacct.version)
    yield sacct
    if sacct.ok:
        yield examine("commands", lambda: check_slurm.check_commands(config, alone=is_elsewhere))

    def ask() -> str:
        try:
            settings.update(slurm.scontrol.read_config())
        except SlurmUnreachable as error:
            reported = daemons.explain(error, states, "slurmctld")
            is_down = states.get("slurmctld", "active") not in {"active", "reloading"}
            installed = find_hook(config.instance)
            raise (
                wiring.why_not_started(wiring.find_conf(environ), installed) if is_down else None
            ) or reported from error
        return f"answers, runs as {check_slurm.slurm_user(settings)}"

    def ask_slurmdbd() -> str:
        try:
            return check_slurm.check_slurmdbd(slurm, settings)
        except SlurmUnreachable as error:
            raise daemons.explain(error, states, "slurmdbd", "database") from error

    if is_elsewhere:
        yield Finding("slurmctld", True, f"not needed: the jobs of {config.slurm_cluster} come from slurmdbd alone")
    else:
        yield examine("slurmctld", ask)
    if settings or is_elsewhere:
        yield examine("cluster name", lambda: check_slurm.check_cluster(config, settings))
    if settings:
        yield examine("GPUs", lambda: check_slurm.check_gpus(settings))
    if not sacct.ok:
        yield from _untested("sacct", "slurmdbd", "privileges")
        return
    slurmdbd = examine("slurmdbd", ask_slurmdbd)
    yield slurmdbd
    if slurmdbd.ok:
        yield examine("privileges", lambda: check_slurm.check_privileges(slurm, check_host.own_name(), settings))
    else:
        yield from _untested("slurmdbd", "privileges")


def _check_spool(
    config: Config, settings: Mapping[str, str], units: check_timers.Units, no_hook: str
) -> Iterator[Finding]:
    spool = config.spool_dir
    hooks_user = "" if no_hook else check_slurm.slurm_user(settings)
    folder = examine("spool", lambda: check_spool.check_spool_folder(spool, hooks_user, config.path))
    yield folder
    if _is_open(spool):
        yield examine("free space", lambda: check_spool.check_space(spool))
        yield examine("filesystem", lambda: check_spool.check_filesystem(spool, MOUNTS.read_text(encoding="utf-8")))
        yield examine("locks", lambda: check_spool.check_locks(spool))
        flush = (
            f"{units.manager} start {check_timers.FLUSH}.service" if check_timers.FLUSH + ".service" in units else ""
        )
        yield examine("ledger", lambda: check_spool.check_ledger(spool / LEDGER_NAME, flush))
    else:
        yield from _untested("the spool", "free space", "filesystem", "locks", "ledger")
    sandbox = units[f"{check_timers.FLUSH}.service"].get("ReadWritePaths", "")
    yield examine("metrics", lambda: check_host.check_metrics(config, sandbox))
    found = parse_controllers(settings)
    if len(found.hosts) > 1 and any(map(is_this_host, found.hosts)):
        mounts = MOUNTS.read_text(encoding="utf-8")
        yield examine("controllers", lambda: check_controllers(found, sandbox, mounts))


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


def _check_hook(
    neighbours: Neighbours, settings: Mapping[str, str], run: RunCommand, watch: Watch | None
) -> Iterator[Finding]:
    config, slurm, _, journal = neighbours
    if not settings:
        yield from _untested("slurmctld", "slurm.conf", "hook", "hook calls")
        return
    if _own_folder(config) and check_slurm.slurm_user(settings) != check_host.own_name():
        # A hook in slurm.conf is the host's: this user can change nothing about it.
        yield from _untested("a spool that the Slurm user can write to", "slurm.conf", "hook", "hook calls")
        return
    conf, installed = wiring.read_conf(settings), find_hook(config.instance)
    lines = examine(
        "slurm.conf",
        lambda: wiring.check_wiring(settings, conf, installed, find_wrapper()),
    )
    yield lines
    call = wiring.wiring_of_slurmctld(settings).find_call()
    if not (lines.ok and call):
        yield from _untested("slurm.conf", "hook", "hook calls")
        return
    hook = examine("hook", lambda: check_slurm.check_hook(call, config.spool_dir, installed))
    yield hook
    if not hook.ok:
        yield from _untested("the hook", "hook calls")
        return
    if not _is_open(config.spool_dir):
        yield from _untested("the spool", "hook calls")
        return
    controller = calls.Controller(settings, calls.is_here(), journal)

    def count_ended(since: float) -> int:
        return calls.count_ended_jobs(slurm, since, time.time() - calls.SETTLED_SECONDS)

    def check_calls() -> str:
        return calls.check_calls(controller, call.script, config.spool_dir, count_ended)

    def see_call() -> str:
        job = calls.SampleJob(run, config.sacct, started=call.key != "JobCompLoc") if watch and watch.test_job else None
        seen = calls.wait_for_call(config.spool_dir, watch.seconds if watch else None, job)
        return seen or f"{check_calls()}; no call while waiting"

    yield examine("hook calls", see_call if watch else check_calls)


def _check_dashboard(
    config: Config, dashboard: Dashboard, settings: Mapping[str, str], environ: Mapping[str, str]
) -> Iterator[Finding]:
    answers: list[Answer] = []

    def ask() -> str:
        answers.append(dashboard.health())
        return f"{config.api_url} answers"

    reachable = examine("dashboard", ask)
    yield reachable
    yield examine("encryption", lambda: check_dashboard.check_encryption(config, environ))
    if not reachable.ok:
        yield from _untested("the dashboard", "API key", "shown", "clock")
        return
    if config.receiver == "any":
        yield Finding("API key", True, "not tested: only a delivery shows whether this receiver accepts it")
        yield examine("clock", lambda: check_dashboard.check_clock(answers[0]))
        return
    cluster = config.shown_as or settings.get("ClusterName", "")
    owners: list[str] = []

    def ask_for_key() -> str:
        text, owner = check_dashboard.check_key(dashboard, cluster)
        owners.append(owner)
        return text

    yield examine("API key", ask_for_key)
    if owners and cluster:
        delivered = _count_delivered(config.spool_dir)
        yield examine("shown", lambda: check_dashboard.check_shown(cluster, owners[0], answers[0], delivered))
    else:
        yield from _untested("the API key" if cluster else "the cluster's name", "shown")
    yield examine("clock", lambda: check_dashboard.check_clock(answers[0]))


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
