"""The command line: runs what it asks for, prints, and exits. Nothing else in the package does either."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Sequence

from agent.arguments import parse_argv
from agent.config import NAME, Config, load_config
from agent.errors import STOPPED, Busy, ConfigError, ExporterError, UsageError
from agent.logs import Complaints, set_up_logging
from agent.wording import Style, count

if TYPE_CHECKING:
    from agent.spool.journal import RunReport
    from agent.spool.ledger import Ledger
    from agent.sync.session import Session

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    _forget_shell_zone()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    set_up_logging(verbose=False)
    try:
        arguments = parse_argv(sys.argv[1:] if argv is None else argv)
        set_up_logging(verbose=arguments.verbose)
        return _COMMANDS[arguments.command](arguments) or 0
    except ExporterError as error:
        _report(error)
        return error.exit_code
    except SystemExit as stop:  # argparse, after --help and --version
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        logger.warning("stopped; everything that is not delivered yet is kept%s", f" ({stop})" if stop.args else "")
        return STOPPED
    except BrokenPipeError:  # head(1) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        logger.exception("unexpected error; everything that is not delivered yet is kept. Please report this:")
        return 1


def _flush(arguments: argparse.Namespace) -> None:
    level = logging.INFO if arguments.dry_run else logging.DEBUG
    with _open_session(arguments, level) as session:
        report = session.flush()
        level = logging.INFO if report.delivered or arguments.dry_run else logging.DEBUG
        logger.log(level, "%s", _summary("Flush", report, dry_run=arguments.dry_run))
        _print_sample(session.receiver)


def _reconcile(arguments: argparse.Namespace) -> None:
    from agent.status import progress  # noqa: PLC0415
    from agent.sync.session import window  # noqa: PLC0415

    config = _load(arguments)
    wanted = window(config.collection_window_days, arguments.start_date, arguments.end_date, time.time())
    with _open_session(arguments, logging.INFO, config) as session:
        with progress.shown(wanted, on_terminal=sys.stderr.isatty()) as show:
            report = session.reconcile(
                wanted,
                only_missing=arguments.only_missing,
                on_progress=lambda progress: show(progress.done_to, progress.jobs),
            )
        logger.info("%s", _summary("Reconcile", report, dry_run=arguments.dry_run))
        _print_sample(session.receiver)


@contextmanager
def _open_session(arguments: argparse.Namespace, level: int, config: Config | None = None) -> Iterator[Session]:
    """A session, whose metrics are written when it has ended, however it went."""
    from agent.sync.session import open_session  # noqa: PLC0415

    config = config or _load(arguments)
    with open_session(config, os.environ, dry_run=arguments.dry_run, level=level) as session:
        try:
            yield session
        finally:
            if config.metrics_file is not None and not arguments.dry_run:
                _write_metrics(config, config.metrics_file, session.ledger)


def _write_metrics(config: Config, path: Path, ledger: Ledger) -> None:
    from agent.status import metrics, snapshot  # noqa: PLC0415

    try:
        metrics.write_metrics(path, snapshot.take_snapshot(config, ledger, time.time()))
    except ExporterError as error:  # the run itself went as it went
        logger.warning("%s (%s)", error, error.hint)


def _queue(arguments: argparse.Namespace) -> None:
    from agent.admin import repair  # noqa: PLC0415
    from agent.spool.spool import open_spool  # noqa: PLC0415

    entries = repair.parse_job_ids(getattr(arguments, "jobs", []))
    mark = " (dry run)" if arguments.dry_run else ""
    complaints = Complaints()
    with open_spool(_load(arguments).spool_dir, complain=complaints, dry_run=arguments.dry_run) as spool:
        if arguments.action == "list":
            for line in repair.list_lines(spool):
                print(line)
        elif arguments.action == "add":
            if not arguments.dry_run:
                spool.queue.append(entries)
            print(f"{count(len(entries), 'job')} queued for the next flush{mark}")
        elif arguments.action == "retry":
            print(f"{count(repair.retry(spool.ledger, entries), 'job')} to be tried again by the next flush{mark}")
        else:
            print(f"{count(repair.drop(spool, entries), 'job')} dropped{mark}")
    complaints.close()


def _status(arguments: argparse.Namespace) -> int:
    from agent.spool.spool import look_at_ledger  # noqa: PLC0415
    from agent.status import health  # noqa: PLC0415
    from agent.status import screen as display  # noqa: PLC0415
    from agent.status import snapshot as status  # noqa: PLC0415

    try:
        config = _load(arguments)
        with look_at_ledger(config.spool_dir) as ledger:
            snapshot = status.take_snapshot(config, ledger, time.time())
    except ExporterError as error:
        if not arguments.check:
            raise
        print(display.as_check_failure(_describe(error)))
        return health.Level.CRITICAL
    problems = health.find_problems(snapshot)
    if arguments.json:
        print(json.dumps(display.as_json(snapshot, problems), indent=2))
    elif arguments.check:
        print(display.as_check_line(snapshot, problems))
    else:
        print(display.as_text(snapshot, problems, _screen_style()))
    return health.worst_level(problems) if arguments.check else 0


def _screen_style() -> Style:
    return Style(
        colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb",
        unicode=(sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
    )


def _check(arguments: argparse.Namespace) -> int:
    from agent.check import checks as check  # noqa: PLC0415
    from agent.dashboard.client import make_dashboard  # noqa: PLC0415
    from agent.slurm import process  # noqa: PLC0415
    from agent.slurm.sacct import make_slurm  # noqa: PLC0415
    from agent.spool.owner import step_down  # noqa: PLC0415

    def run(argv: Sequence[str]) -> process.Output:
        own = {name: os.environ[name] for name in ("XDG_RUNTIME_DIR",) if name in os.environ}
        return process.run(argv, environment=process.make_environment(os.environ, **own), timeout=10)

    try:
        config = load_config(arguments.config, os.environ, cluster_name=arguments.cluster_name)
        step_down(config.spool_dir)
        slurm = make_slurm(config, os.environ, Complaints())
        neighbours: Any = check.Neighbours(config, slurm, make_dashboard(config))
    except ConfigError as error:
        neighbours = error
    findings = []
    for finding in check.run_checks(neighbours, run, os.environ):
        findings.append(finding)
        if not arguments.json:
            print(check.as_lines(finding, _screen_style()), flush=True)
    if arguments.json:
        print(json.dumps(check.as_json(findings), indent=2))
    return 0 if all(finding.ok for finding in findings) else 1


def _setup(arguments: argparse.Namespace) -> None:
    from agent.admin import setup  # noqa: PLC0415

    path = arguments.config or setup.choose_path(os.environ)
    if arguments.dry_run:
        print(f"{path} would get a key for {arguments.api_url}")
        return
    deploy_key = _read_secret("deploy key: ") if arguments.deploy_key == "-" else arguments.deploy_key

    def fetch_key(config: Config) -> tuple[str, str]:
        if deploy_key:
            return setup.exchange_deploy_key(config, deploy_key)
        return setup.read_api_key(config, arguments.api_key_file)

    setup.set_up(path, arguments.api_url, fetch_key, may_replace=lambda: arguments.yes or _ask(f"{path} holds a key"))
    print(f"{path} is set up; `{NAME} check` tests the rest")


def _read_secret(prompt: str) -> str:
    secret = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()
    if not secret.strip():
        raise UsageError("there is no key on standard input")
    return secret.strip()


def _ask(fact: str) -> bool:
    return sys.stdin.isatty() and input(f"{fact}. Replace it? [y/N] ").strip().lower() in {"y", "yes"}


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int | None]] = {
    "flush": _flush,
    "reconcile": _reconcile,
    "queue": _queue,
    "status": _status,
    "check": _check,
    "setup": _setup,
}


def _load(arguments: argparse.Namespace) -> Config:
    config = load_config(arguments.config, os.environ, cluster_name=arguments.cluster_name)
    for warning in config.warnings:
        logger.warning("%s", warning)
    return config


def _summary(command: str, report: RunReport, *, dry_run: bool) -> str:
    """The one line that says how a run went."""
    return f"{command}{' (dry run)' if dry_run else ''}: {report.message}, in {report.seconds:.1f} s"


def _print_sample(receiver: Any) -> None:
    """After a dry run: what a record looks like."""
    sample = getattr(receiver, "sample", "")
    if sample:
        print("a record as it would be sent:")
        print(json.dumps(json.loads(sample), indent=2))


def _report(error: ExporterError) -> None:
    level = logging.INFO if isinstance(error, Busy) else logging.ERROR
    logger.log(level, "%s", _describe(error))


def _describe(error: ExporterError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _forget_shell_zone() -> None:
    """Days and times are the cluster's, whatever zone the caller's shell has set."""
    if os.environ.pop("TZ", None) is not None:
        time.tzset()
