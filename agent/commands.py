"""What each command does. The only module that prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from agent.call import Call
from agent.config import NAME, SPOOL_VARIABLE, Config, default_spool
from agent.errors import ConfigError, ExporterError, SpoolError, UsageError
from agent.logger import DEBUG, INFO, Complaints, Logger, report_failure
from agent.options import (
    CheckOptions,
    FlushOptions,
    QueueOptions,
    ReconcileOptions,
    RunOptions,
    SetupOptions,
    StatusOptions,
)
from agent.sanitize import printable
from agent.wording import Style, count, name_instance

if TYPE_CHECKING:
    from agent.spool.run_history import RunReport

logger = Logger(__name__)


def _flush(call: Call, _: FlushOptions) -> None:
    dry_run = call.options.dry_run
    with call.open_session(call.read_config(), INFO if dry_run else DEBUG) as session:
        report = session.flush()
        level = INFO if report.delivered or dry_run or sys.stderr.isatty() else DEBUG
        logger.log(level, "%s", _summary("Flush", report, dry_run=dry_run))
        _print_sample(session.sample)


def _reconcile(call: Call, wanted: ReconcileOptions) -> None:
    from agent.status import progress  # noqa: PLC0415
    from agent.sync.window import window  # noqa: PLC0415

    config = call.read_config()
    days = window(config.collection_window_days, wanted.start_date, wanted.end_date, call.clock())
    with call.open_session(config, INFO) as session:
        with progress.shown(days, on_terminal=sys.stderr.isatty()) as show:
            report = session.reconcile(
                days,
                only_missing=wanted.only_missing,
                daily=not (wanted.start_date or wanted.end_date),
                on_progress=show,
            )
        logger.info("%s", _summary("Reconcile", report, dry_run=call.options.dry_run))
        _print_sample(session.sample)


def _run(call: Call, wanted: RunOptions) -> None:
    from agent.spool.spool import look_at_ledger  # noqa: PLC0415
    from agent.sync.run_loop import run_rounds  # noqa: PLC0415
    from agent.sync.window import window  # noqa: PLC0415

    if call.options.dry_run:
        raise UsageError("run has no --dry-run", hint="use `flush --dry-run` and `reconcile --dry-run`")
    call.read_config()  # an error now ends the loop before it begins; a later one may be fixed while it runs

    def flush() -> str:
        with call.open_session(call.read_config(warn=False), DEBUG) as session:
            return _summary("Flush", session.flush(), dry_run=False)

    def reconcile() -> str:
        config = call.read_config(warn=False)
        days = window(config.collection_window_days, None, None, call.clock())
        with call.open_session(config, DEBUG) as session:
            report = session.reconcile(
                days,
                daily=True,
                on_progress=lambda *_: _show_health(wanted.health_file, "Reconcile: in progress"),
            )
            return _summary("Reconcile", report, dry_run=False)

    def last_reconcile() -> float:
        with look_at_ledger(call.read_config(warn=False).spool_dir) as ledger:
            report = ledger.history.last_run("reconcile", successful=True)
            return report.started_at + report.seconds if report else 0.0

    outcomes = run_rounds(
        flush,
        reconcile,
        flush_seconds=wanted.every,
        reconcile_seconds=wanted.reconcile_every,
        last_reconcile=last_reconcile,
        clock=call.clock,
        sleep=call.sleep,
    )
    for outcome in outcomes:
        _tell_outcome(outcome, wanted.health_file)


def _tell_outcome(outcome: str | ExporterError, health_file: Path | None) -> None:
    line = outcome if isinstance(outcome, str) else outcome.with_hint()
    if isinstance(outcome, ExporterError):
        report_failure(outcome)
    else:
        logger.info("%s", outcome)
    _show_health(health_file, line)


def _show_health(file: Path | None, line: str) -> None:
    from agent.sync.run_loop import write_health  # noqa: PLC0415

    try:
        if file:
            write_health(file, line)
    except OSError as error:  # a full disk there does not stop deliveries
        logger.warning("cannot write the health file %s: %s", file, error.strerror)


def _queue(call: Call, wanted: QueueOptions) -> None:
    from agent.admin import repair  # noqa: PLC0415
    from agent.spool.spool import open_spool  # noqa: PLC0415

    entries = repair.parse_job_ids(wanted.jobs)
    dry_run = call.options.dry_run
    would_be = " would be" if dry_run else ""
    complaints = Complaints()
    with open_spool(call.read_config().spool_dir, complain=complaints, dry_run=dry_run) as spool:
        if wanted.action == "list":
            for line in repair.list_lines(spool, everything=wanted.all, now=call.clock()):
                print(printable(line))
        elif wanted.action == "add":
            if not dry_run:
                spool.queue.append(entries)
            print(f"{count(len(entries), 'job')}{would_be} queued for the next flush")
        elif wanted.action == "retry":
            jobs = count(repair.retry(spool.ledger, entries), "job")
            print(f"{jobs} {'would' if dry_run else 'will'} be tried again in the next flush")
        else:
            print(f"{count(repair.drop(spool, entries), 'job')}{would_be} dropped")
    complaints.close()


def _status(call: Call, wanted: StatusOptions) -> int:
    from agent.spool.spool import look_at_ledger  # noqa: PLC0415
    from agent.status import health, output  # noqa: PLC0415
    from agent.status import snapshot as status  # noqa: PLC0415

    try:
        config = call.read_config()
        with look_at_ledger(config.spool_dir) as ledger:
            snapshot = status.take_snapshot(config, ledger, call.clock())
    except ExporterError as error:
        if not wanted.check:
            raise
        print(output.as_check_failure(error.with_hint()))
        return health.Level.CRITICAL
    problems = health.find_problems(snapshot)
    if wanted.json:
        _print_json(output.as_json(snapshot, problems))
    elif wanted.check:
        print(output.as_check_line(snapshot, problems))
    else:
        _say(call, output.as_text(snapshot, problems, _screen_style(call)))
    return health.worst_level(problems) if wanted.check else 0


def _check(call: Call, wanted: CheckOptions) -> int:
    from agent.check import checks, hook_calls  # noqa: PLC0415
    from agent.dashboard.client import make_dashboard  # noqa: PLC0415
    from agent.slurm import process  # noqa: PLC0415
    from agent.slurm.environment import make_environment  # noqa: PLC0415
    from agent.slurm.slurm import Slurm  # noqa: PLC0415
    from agent.spool.owner import step_down  # noqa: PLC0415

    def run(argv: Sequence[str]) -> process.Output:
        own = {name: call.environ[name] for name in ("XDG_RUNTIME_DIR",) if name in call.environ}
        return process.run(argv, environment=make_environment(call.environ, **own), timeout=10)

    try:
        journal = hook_calls.read_journal(run)  # before root becomes the Slurm user, who may be unable to read it
        config = call.read_config(warn=False, spool_is_checked=True)
        step_down(config.spool_dir)
        slurm = Slurm(config, call.environ, Complaints())
        neighbours: Any = checks.Neighbours(config, slurm, make_dashboard(config), journal)
    except (ConfigError, SpoolError) as error:
        neighbours = error
    findings = []
    test_job = wanted.test_job and not call.options.dry_run
    watch = checks.Watch(wanted.wait, test_job) if wanted.wait or test_job else None
    for finding in checks.run_checks(neighbours, run, call.environ, watch, call.options.instance):
        findings.append(finding)
        if not wanted.json:
            _say(call, finding.as_lines(_screen_style(call)))
    all_is_well = all(finding.ok for finding in findings)
    if wanted.json:
        found = {"ok": all_is_well, "checks": [finding._asdict() for finding in findings]}
        _print_json(found, call.options.instance)
    return 0 if all_is_well else 1


def _setup(call: Call, wanted: SetupOptions) -> None:
    from agent.admin import setup  # noqa: PLC0415
    from agent.admin.config_writer import make_writer  # noqa: PLC0415
    from agent.prompt import confirm_replacement, read_key  # noqa: PLC0415

    instance = call.options.instance
    path = call.options.config or setup.choose_path(call.environ, instance)
    if call.options.dry_run:
        print(f"{path} would get a key for {wanted.api_url}")
        return
    key = read_key(wanted)
    spool = call.environ.get(SPOOL_VARIABLE) or default_spool(call.environ, instance, path.parent)
    writer = make_writer(path.resolve(), Path(spool))  # a link stays a link

    def fetch_key(config: Config) -> tuple[str, str]:
        if wanted.api_key_file:
            from agent.slurm.slurm import Slurm  # noqa: PLC0415

            config = config._replace(cluster_name=call.options.cluster_name or config.cluster_name)
            slurm = Slurm(config, call.environ, Complaints())
            return setup.try_api_key(config, key, lambda: slurm.scontrol.read_config().get("ClusterName", ""))
        return setup.exchange_deploy_key(config, key)

    config = setup.set_up(
        writer,
        wanted.api_url,
        fetch_key,
        may_replace=lambda: wanted.yes or confirm_replacement(f"{path} already holds a key"),
        instance=instance,
        allow_http=wanted.allow_http,
    )
    for line in setup.describe_cluster(config):
        _say(call, line)
    _say(call, f"{path} is set up; run `{NAME} check` to test the rest")


def _say(call: Call, text: str) -> None:
    """Prints a text, with commands and units named for the instance."""
    print(name_instance(text, call.options.instance), flush=True)


def _screen_style(call: Call) -> Style:
    """What the screen can show."""
    plain = call.environ.get("NO_COLOR") or call.environ.get("TERM", "dumb") == "dumb"
    return Style(
        colour=sys.stdout.isatty() and not plain,
        unicode=(sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
    )


def _summary(command: str, report: RunReport, *, dry_run: bool) -> str:
    """The line that sums up a run."""
    return f"{command}{' (dry run)' if dry_run else ''}: {report.message}, in {report.seconds:.1f} s"


def _print_sample(sample: str) -> None:
    """After a dry run, prints a record as an example."""
    if sample:
        import json  # noqa: PLC0415

        print("a record as it would be sent:")
        _print_json(json.loads(sample))


def _print_json(content: Any, instance: str = "") -> None:
    import json  # noqa: PLC0415  # imported only when needed: flush and status run often

    print(name_instance(json.dumps(content, indent=2), instance))


#: By the type of its options. A command returns its exit code, or None for 0.
COMMANDS: Mapping[type, Callable[[Call, Any], int | None]] = {
    FlushOptions: _flush,
    ReconcileOptions: _reconcile,
    RunOptions: _run,
    QueueOptions: _queue,
    StatusOptions: _status,
    CheckOptions: _check,
    SetupOptions: _setup,
}
