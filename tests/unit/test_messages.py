"""Every problem that an admin can meet, and its message: what happened, what was kept, and what to do.

The whole text is here, to be read as the admin reads it. {spool}, {config} and the like are the test's own.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import pytest

from agent import commands
from agent.arguments import COMMANDS
from agent.cli import main
from agent.localtime import day_start, local_day
from agent.options import FlushOptions
from agent.slurm.row import FIELDS
from tests.support import dashboard_faults as faults
from tests.support.clock import Clock
from tests.support.dashboard import API_KEY, Answer, Connection, Fault, ReceivingDashboard, Request
from tests.support.disk import fill, small_disk
from tests.support.rows import FILL_IN, SEPARATOR, make_values
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
SECRET = "Geheim-4711"
CONNECTION_REFUSED = "sacct: error: Sending PersistInit msg: Connection refused"


class Site:
    """A cluster of one job, which is queued, and everything in order until a test changes it."""

    def __init__(self, folder: Path, dashboard: ReceivingDashboard) -> None:
        self.folder, self.dashboard = folder, dashboard
        self.config, self.spool = folder / "config.json", folder / "spool"
        self.spool.mkdir()
        for name in ("once", "new"):
            (folder / name).write_text(f"{name}-4711\n")
        self.queue("100\n")
        self.answer_sacct()
        self.settings: dict[str, Any] = {
            "api_url": dashboard.url,
            "api_key": API_KEY,
            "cluster_name": "lab",
            "sacct": str(folder / "sacct"),
            "spool_dir": str(self.spool),
            "timeout": 5,
        }
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Sets some keys; None removes one."""
        self.settings.update(settings)
        self.write_config(json.dumps({key: value for key, value in self.settings.items() if value is not None}))

    def write_config(self, text: str, *, mode: int = 0o600) -> None:
        self.config.touch()
        self.config.write_text(text)
        self.config.chmod(mode)

    def queue(self, text: str) -> None:
        (self.spool / "queue").write_text(text)

    def answer_sacct(self, *, job_ids: Sequence[str] = ("100",), script: str = 'cat "${0%/*}/answer"') -> None:
        """Lets sacct answer with jobs that ended ten minutes ago, or do something else."""
        end = str(int(time.time()) - 700)
        rows = [make_values(JobID=job, JobIDRaw=job, Submit=end, Start=end, End=end, ElapsedRaw="0") for job in job_ids]
        lines = [SEPARATOR.join(values) for values in (FIELDS, *rows)]
        (self.folder / "recorded").write_text("\n".join([*lines, ""]))
        fill_in = FILL_IN % {"recorded": self.folder / "recorded", "answer": self.folder / "answer"}
        path = self.folder / "sacct"
        path.write_text(f"#!/bin/sh\n[ $1 != --helpformat ] || exit 0\n{fill_in}{script}\n")
        path.chmod(0o755)

    def fill_in(self, text: str) -> str:
        names = {
            "spool": self.spool,
            "config": self.config,
            "url": self.dashboard.url,
            "tls_url": self.dashboard.url.replace("http:", "https:"),
            "today": local_day(time.time()),
            "commands": ", ".join(COMMANDS),
        }
        for name, value in names.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SLURM_USAGE_HISTORY_SPOOL", "SLURM_USAGE_HISTORY_API_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    with ReceivingDashboard() as dashboard:
        yield Site(tmp_path, dashboard)


class Trouble(NamedTuple):
    """A situation, the command that is run, and the expected outcome."""

    name: str
    arrange: Callable[[Site], object]
    command: str
    exit_code: int
    text: str


def answering(fault: Fault) -> Callable[[Site], None]:
    """A dashboard that gives every request this answer."""
    return lambda site: setattr(site.dashboard, "manners", fault)


def failing_sacct(site: Site) -> None:
    site.answer_sacct(script=f"echo '{CONNECTION_REFUSED}' >&2; exit 1")


def stuck_sacct(site: Site) -> None:
    site.configure(sacct_timeout=1)
    site.answer_sacct(script="exec sleep 60")


def no_spool(site: Site) -> None:
    (site.spool / "queue").unlink()
    site.spool.rmdir()


def a_file_for_a_spool(site: Site) -> None:
    no_spool(site)
    site.spool.touch()


def a_folder_for_a_queue(site: Site) -> None:
    (site.spool / "queue").unlink()
    (site.spool / "queue").mkdir()


def nothing(_: Site) -> None:
    """Everything is in order except the command line."""


DASHBOARD = [
    Trouble(
        "wrong key",
        lambda site: site.configure(api_key=SECRET),
        "flush",
        77,
        "the dashboard refused the API key: 401 'Invalid or missing API key'"
        " (check api_key, or get a new one with `setup`; everything is kept)",
    ),
    Trouble(
        "wrong path in the URL",
        lambda site: site.configure(api_url=site.dashboard.url + "/dashboard"),
        "flush",
        69,
        "there is no dashboard at this URL: 404 'Not Found'"
        " (check api_url: the address of the dashboard's backend, without /api; everything is kept)",
    ),
    Trouble(
        "another web site",
        answering(faults.answer(200, "<html><body>Welcome to nginx!</body></html>")),
        "flush",
        69,
        "this is not the dashboard's answer: 200 'Welcome to nginx!'"
        " (check api_url: the address of the dashboard's backend, without /api; everything is kept)",
    ),
    Trouble(
        "https where there is none",
        lambda site: site.configure(api_url=site.dashboard.url.replace("http:", "https:")),
        "flush",
        69,
        "no secure connection to {tls_url}/api/data/ingest: [SSL: ...]"
        " (check api_url, or name the site's CA file as ca_bundle; everything is kept)",
    ),
    Trouble(
        "a redirect",
        answering(faults.answer(301, Location="https://elsewhere.example.com/")),
        "flush",
        69,
        "the dashboard redirects to 'https://elsewhere.example.com/', which is not followed to protect the API key"
        " (set api_url to the target of the redirect; everything is kept)",
    ),
    Trouble(
        "maintenance",
        answering(faults.answer(503, "back at ten", Retry_After="600")),
        "flush",
        69,
        "the dashboard is not available and asks to retry after 600 s: 503 'back at ten'"
        " (everything is kept; a later run tries again)",
    ),
    Trouble(
        "nothing is good enough for it",
        answering(faults.answer(400, "no")),
        "flush",
        69,
        "the dashboard accepts nothing: the dashboard refused the jobs: 400 'no'"
        " (see the dashboard's own log; everything is kept)",
    ),
    Trouble(
        "an answer that counts fewer jobs",
        answering(faults.rewrite(lambda answer: Answer(200, {"success": True, "jobs_processed": 0}))),
        "flush",
        69,
        "0 delivered (0.0 CPU-hours, 0.0 GPU-hours), 0 rejected, 1 refused and kept, 1 waiting"
        " (see `queue list` for the error messages, and the dashboard's own log)",
    ),
    Trouble(
        "a deploy key that was used",
        nothing,
        "setup --api-url {url} --deploy-key once --yes",
        77,
        "the dashboard does not accept the deploy key: 401 'Invalid, used or expired deploy key'"
        " (deploy keys work once and for seven days; ask the dashboard's administrator for a new one)",
    ),
    Trouble(
        "a deploy key, and another web site",
        answering(faults.answer(200, "<html><body>Welcome to nginx!</body></html>")),
        "setup --api-url {url} --deploy-key once --yes",
        69,
        "the exchange of the deploy key failed: 200 'Welcome to nginx!'"
        " (check api_url: the address of the dashboard's backend, without /api)",
    ),
    Trouble(
        "dashboard down",
        lambda site: site.configure(api_url="http://127.0.0.1:9"),
        "flush",
        69,
        "no answer from http://127.0.0.1:9/api/data/ingest: Connection refused"
        " (check the network, the proxy (HTTPS_PROXY, NO_PROXY) and api_url; everything is kept)",
    ),
]
SLURM = [
    Trouble(
        "no sacct",
        lambda site: site.configure(sacct="/opt/none/sacct"),
        "flush",
        69,
        "/opt/none/sacct cannot be started: No such file or directory"
        " (install Slurm's client tools, or set the path of sacct in the configuration; everything is kept)",
    ),
    Trouble(
        "slurmdbd down",
        failing_sacct,
        "flush",
        69,
        f"sacct failed with exit status 1: {CONNECTION_REFUSED}"
        " (check that slurmdbd and its database respond: sacctmgr show cluster; everything is kept)",
    ),
    Trouble(
        "slurmdbd down in a backfill",
        failing_sacct,
        "--start-date 2024-01-01 --end-date 2024-01-31",
        69,
        f"sacct failed with exit status 1: {CONNECTION_REFUSED} (check that slurmdbd and its database respond:"
        " sacctmgr show cluster; everything is kept; no part of the range was completed)",
    ),
    Trouble(
        "slurmdbd stuck",
        stuck_sacct,
        "flush",
        69,
        "sacct did not answer within 1 s and was killed"
        " (check that slurmdbd and its database respond; everything is kept, and a later run asks again)",
    ),
    Trouble(
        "not Slurm's sacct",
        lambda site: site.answer_sacct(script="echo hello"),
        "flush",
        69,
        "sacct did not print the expected header, but 'hello'"
        " (check that `sacct` in the configuration is Slurm's own, or a wrapper that passes on its arguments and"
        " environment; everything is kept)",
    ),
    Trouble(
        "an answer that was cut off",
        lambda site: site.answer_sacct(script='cat "${0%/*}/answer"; printf 101'),
        "flush",
        69,
        "sacct's answer was cut off in the middle of a row"
        " (see slurmdbd's log; everything is kept, and a later run asks again)",
    ),
    Trouble(
        "an answer that can't be read",
        lambda site: site.answer_sacct(script='head -n 1 "${0%/*}/answer"; echo rubbish'),
        "flush",
        69,
        "none of the 1 rows printed by sacct is readable"
        " (check that `sacct` in the configuration is Slurm's own, or a wrapper that passes on its arguments and"
        " environment; everything is kept)",
    ),
    Trouble(
        "a slurmctld that does not tell its name",
        lambda site: site.configure(cluster_name=None, scontrol="/bin/true"),
        "flush",
        78,
        "the cluster's name is unknown: scontrol show config names no ClusterName"
        " (start slurmctld, or set cluster_name in the configuration, or give --cluster-name)",
    ),
    Trouble(
        "no name for the cluster",
        lambda site: site.configure(cluster_name=None, scontrol="/bin/false"),
        "flush",
        69,
        "the cluster's name is unknown: /bin/false show config failed: no error message"
        " (start slurmctld, or set cluster_name in the configuration, or give --cluster-name; everything is kept)",
    ),
]
CONFIGURATION = [
    Trouble(
        "everything wrong at once",
        lambda site: site.write_config(
            json.dumps({"api_url": "dashboard.example.com", "timout": 30, "batch_size": "many", "spool_dir": "/s"})
        ),
        "flush",
        78,
        "the configuration is wrong:\n"
        "  timout: unknown key; did you mean timeout?\n"
        "  api_url: must be an http(s) URL without user, query or fragment, not 'dashboard.example.com'\n"
        "  batch_size: must be a whole number from 1 to 100000, not 'many'\n"
        "  api_key: missing; ask the dashboard's administrator for one",
    ),
    Trouble(
        "a key of two words",
        lambda site: site.configure(api_key=f"{SECRET} {SECRET}"),
        "flush",
        78,
        "the configuration is wrong:\n  api_key: must be one word of printable ASCII characters",
    ),
    Trouble(
        "broken JSON",
        lambda site: site.write_config('{"api_url": "https://d.example.com",\n "api_key": "k"\n "timeout": 30}'),
        "flush",
        78,
        "{config} is not valid JSON: Expecting ',' delimiter: line 3 column 2 (char 54) (fix the line it names)",
    ),
    Trouble(
        "broken TOML",
        lambda site: (site.folder / "config.toml").write_text('api_url = "https://d.example.com"\napi_key = k\n'),
        "flush --config config.toml",
        78,
        "config.toml is not valid TOML: Invalid value (at line 2, column 11) (fix the line it names)",
    ),
    Trouble(
        "a list instead of keys",
        lambda site: site.write_config("[]"),
        "flush",
        78,
        "{config} must contain keys and values, not list",
    ),
    Trouble(
        "no such configuration",
        lambda site: site.config.unlink(),
        "flush",
        78,
        "cannot read the configuration {config}: No such file or directory (check the path given to --config)",
    ),
]
SPOOL = [
    Trouble(
        "open to everybody",
        lambda site: site.spool.chmod(0o777),
        "flush",
        1,
        "the spool {spool} is writable by everyone (chmod 750 {spool})",
    ),
    Trouble(
        "no folder",
        a_file_for_a_spool,
        "flush",
        1,
        "the spool {spool} is not a folder (move that file away)",
    ),
    Trouble(
        "a folder for a queue",
        a_folder_for_a_queue,
        "queue add 101",
        1,
        "{spool}/queue is not a regular file (a flush sets it aside)",
    ),
    Trouble(
        "no spool to look at",
        no_spool,
        "status",
        1,
        "there is no spool {spool} (install.sh creates it, and `check` shows what is missing)",
    ),
    Trouble(
        "a damaged ledger to look at",
        lambda site: (site.spool / "ledger.db").write_bytes(b"rubbish" * 1000),
        "status",
        1,
        "{spool}/ledger.db is damaged: file is not a database"
        " (the next flush or reconcile sets it aside and starts a new one; no job is lost)",
    ),
]
TYPED = [
    Trouble(
        "unknown command", nothing, "flsh", 2, "unknown command 'flsh'; did you mean flush? (use one of: {commands})"
    ),
    Trouble(
        "unknown option",
        nothing,
        "flush --fast",
        2,
        "flush has no option --fast (see slurm-usage-history-exporter flush --help)",
    ),
    Trouble(
        "no such date",
        nothing,
        "--start-date 2024-02-30",
        2,
        "argument --start-date: '2024-02-30' is not a date; write it as 2024-01-31"
        " (see slurm-usage-history-exporter reconcile --help)",
    ),
    Trouble(
        "the end before the start",
        nothing,
        "--start-date 2024-02-01 --end-date 2024-01-01",
        2,
        "--start-date 2024-02-01 is after --end-date 2024-01-01 (swap the two)",
    ),
    Trouble(
        "a start in the future",
        nothing,
        "--start-date 2999-01-01",
        2,
        "--start-date 2999-01-01 is in the future (today is {today})",
    ),
    Trouble(
        "no JobID",
        nothing,
        "queue add 12a",
        2,
        "'12a' is not a JobID (use a number such as 4711, or 203_3 for a task of an array)",
    ),
    Trouble(
        "a deploy key on the command line",
        nothing,
        "setup --api-url {url} --deploy-key secret-4711",
        2,
        "--deploy-key takes - (standard input) or a file that holds the key"
        " (never put a key on the command line, where every user of this machine can see it)",
    ),
    Trouble(
        "a dashboard that is spoken to in plain text",
        nothing,
        "setup --api-url http://dashboard.example.com --deploy-key new --yes",
        2,
        "http://dashboard.example.com is not encrypted: anyone on the network path could read the key and every job"
        " (use https://, or add --allow-http if you trust that network)",
    ),
    Trouble(
        "an existing key",
        nothing,
        "setup --api-url {url} --deploy-key new",
        2,
        "{config} already holds an API key and was not changed (use --yes to replace it)",
    ),
    Trouble(
        "nothing to retry",
        nothing,
        "queue retry 4711",
        1,
        "job 4711 is neither waiting nor rejected (see `queue list`; `queue add` queues any job again)",
    ),
    Trouble(
        "no action",
        nothing,
        "queue",
        2,
        "the following arguments are required: ACTION (see slurm-usage-history-exporter queue --help)",
    ),
]


def run(site: Site, command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command line, and its standard error."""
    words = command.split()
    clock = Clock()
    argv = words if "--config" in words else ["--config", str(site.config), *words]
    code = main(argv, clock=clock, sleep=clock.sleep)
    return code, capsys.readouterr().err


def messages(log: str) -> list[str]:
    """``LEVEL - text`` of each message, however many lines it has."""
    parts = re.split(r"^[0-9-]{10} [0-9:,]{12} - ", log, flags=re.MULTILINE)
    return [part.rstrip("\n") for part in parts[1:]]


@pytest.mark.parametrize(
    "trouble", [*DASHBOARD, *SLURM, *CONFIGURATION, *SPOOL, *TYPED], ids=lambda trouble: trouble.name.replace(" ", "-")
)
def test_what_an_admin_reads(
    site: Site, trouble: Trouble, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line says it all, with the exit code that is documented for it; no traceback, and never the key."""
    trouble.arrange(site)
    monkeypatch.chdir(site.folder)
    code, log = run(site, site.fill_in(trouble.command), capsys)
    last = re.sub(r"\[SSL: .*?\)", "[SSL: ...]", messages(log)[-1])  # the words are OpenSSL's
    assert (trouble.exit_code, f"ERROR - {site.fill_in(trouble.text)}") == (code, last)
    assert not re.search(f"Traceback|{SECRET}|{API_KEY}", log)


def test_a_pause_that_the_dashboard_asks_for_is_kept(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Later runs log how long the pause still lasts, and send no request."""
    answering(faults.answer(503, Retry_After="600"))(site)
    run(site, "flush", capsys)
    asked = len(site.dashboard.requests)
    code, log = run(site, "flush", capsys)
    words = r"ERROR - the dashboard asked for a pause \(Retry-After\), (600|59\d) s remain \(everything is kept\)"
    assert re.fullmatch(words, messages(log)[-1])
    assert (69, asked) == (code, len(site.dashboard.requests))


def test_no_key_on_standard_input(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--deploy-key -` reads from a command that printed nothing."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, log = run(site, f"setup --api-url {site.dashboard.url} --deploy-key - --yes", capsys)
    assert (2, ["ERROR - standard input holds no key (it must hold one word of ASCII characters)"]) == (
        code,
        messages(log),
    )


# What is not an error


def test_an_idle_flush_logs_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs every few minutes: a night without jobs leaves no line in the journal."""
    site.queue("")
    assert (0, "") == run(site, "flush", capsys)


def test_a_flush_logs_one_line(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """What was delivered, what waits, and how long it took."""
    _, log = run(site, "flush", capsys)
    (line,) = messages(log)
    expected = r"INFO - Flush: 1 delivered \(0\.0 CPU-hours, 0\.0 GPU-hours\), 0 rejected, 0 waiting, in \d\.\d s"
    assert re.fullmatch(expected, line)


def test_a_flush_that_only_waits_logs_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A late record is asked for again; only status shows it."""
    site.answer_sacct(job_ids=[])
    assert (0, "") == run(site, "flush", capsys)


def test_a_reconcile_logs_the_lines_of_the_earlier_exporter(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Existing greps keep matching, and the last line sums up."""
    now = local_day(time.time())
    _, log = run(site, f"--start-date {now} --end-date {now}", capsys)
    expected = [
        "INFO - Initialized extractor for cluster: lab",
        f"INFO - Extracting jobs from {now} to {now}",
        "INFO - Extracted 1 raw job records",
        "INFO - Filtered to 1 completed job records",
        "INFO - Formatted 1 jobs for submission",
        f"INFO - Submitting 1 jobs to {site.dashboard.url}/api/data/ingest",
        "INFO - Successfully submitted: Successfully ingested 1 jobs for lab",
    ]
    said = messages(log)
    assert expected == said[:7]
    assert said[-1].startswith("INFO - Reconcile: ")


def test_a_reconcile_without_jobs(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The empty slices say nothing, and the range as a whole does."""
    site.answer_sacct(job_ids=[])
    _, log = run(site, "--start-date 2024-01-01 --end-date 2024-01-31", capsys)
    assert [
        "Initialized extractor for cluster: lab",
        "Extracting jobs from 2024-01-01 to 2024-01-31",
        "No jobs found in specified date range",
    ] == [line[7:] for line in messages(log)[:3]]
    assert 4 == len(messages(log))


@pytest.mark.parametrize("command", ["flush", "reconcile"])
def test_a_run_in_progress_is_not_an_error(site: Site, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The queue is kept, and the other run does the work."""
    with (site.spool / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, log = run(site, command, capsys)
    said = f"INFO - another run is in progress (see which: fuser -v {site.spool}/agent.lock)"
    assert (75, [said]) == (code, messages(log))


def test_the_lock_file_of_a_dead_run_blocks_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel releases it: there is no such thing as a stale lock."""
    (site.spool / "agent.lock").touch()
    (site.spool / "queue.lock").touch()
    assert 0 == run(site, "flush", capsys)[0]


def test_a_dry_run_says_that_it_is_one(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The log must not suggest that jobs were sent."""
    code = main(["--config", str(site.config), "flush", "--dry-run"])
    shown = capsys.readouterr()
    assert (0, []) == (code, site.dashboard.posts)
    assert "(dry run: nothing is sent)" in shown.err
    assert messages(shown.err)[-1].startswith("INFO - Flush (dry run): 1 would be delivered (")
    assert "a record as it would be sent:" in shown.out


def test_a_dry_run_with_nothing_to_send_says_so(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run always answers, even if a flush by the timer would log nothing."""
    site.queue("")
    code, log = run(site, "flush --dry-run", capsys)
    assert 0 == code
    assert re.fullmatch(r"INFO - Flush \(dry run\): nothing to do, in 0\.\d s", messages(log)[-1])


# What is a warning


@pytest.mark.parametrize(
    ("arrange", "warning"),
    [
        (
            lambda site: site.config.chmod(0o644),
            "{config} holds the API key, but other users can read or write it: chmod 600 {config}",
        ),
        (
            lambda site: site.queue("100\n4711; rm -rf /\n"),
            "skipped: no JobID in a line of the queue: '4711; rm -rf /\\n'",
        ),
        (
            lambda site: site.answer_sacct(script='cat "${0%/*}/answer"; echo rubbish'),
            "skipped: a row of sacct has 1 columns instead of 17: 'rubbish'",
        ),
    ],
    ids=["exposed key", "odd line", "odd row"],
)
def test_a_warning_stops_nothing(
    site: Site, arrange: Callable[[Site], None], warning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oddity is logged, and the job is delivered."""
    arrange(site)
    code, log = run(site, "flush", capsys)
    assert (0, f"WARNING - {site.fill_in(warning)}", {"100"}) == (code, messages(log)[0], set(site.dashboard.records))


def test_the_same_warning_again_and_again_is_counted(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A file full of garbage does not fill the journal."""
    site.queue("100\n" + "rubbish\n" * 8)
    _, log = run(site, "flush", capsys)
    warnings = [line for line in messages(log) if line.startswith("WARNING")]
    assert ["WARNING - skipped: no JobID in a line of the queue: 'rubbish\\n'"] * 5 == warnings[:5]
    assert ["WARNING - skipped: 3 more like these"] == warnings[5:]


def test_a_damaged_ledger_is_set_aside(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """It is only an index: a new one is started, and reconcile replays the window."""
    (site.spool / "ledger.db").write_bytes(b"rubbish" * 1000)
    code, log = run(site, "flush", capsys)
    (aside,) = site.spool.glob("ledger.db.aside.*")
    expected = (
        f"WARNING - {site.spool}/ledger.db is damaged: file is not a database; it was set aside as {aside}. "
        "The next reconcile replays the whole window"
    )
    assert (0, expected) == (code, messages(log)[0])


# What the dashboard refuses


def refuse_the_job(job_id: str) -> Fault:
    """A dashboard that accepts every job except one."""

    def manners(request: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        places = [number for number, job in enumerate(request.jobs) if job["JobID"] == job_id]
        problems = [{"loc": ["body", "jobs", place, "QOS"], "msg": "Unknown QOS", "input": "x"} for place in places]
        connection.send(Answer(422, {"detail": problems}) if problems else serve())

    return manners


def test_a_refused_record_is_reported_with_its_message(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with it, where it is now, and how it can be sent again; the others went through."""
    site.queue("100\n101\n")
    site.answer_sacct(job_ids=["100", "101"])
    site.dashboard.manners = refuse_the_job("101")
    code, log = run(site, "flush", capsys)
    assert (65, {"100"}) == (code, set(site.dashboard.records))
    assert [
        "ERROR - job 101 was rejected by the dashboard and set aside: QOS: Unknown QOS (sent 'x'); "
        "`queue retry 101` sends it again",
        "ERROR - 1 delivered (0.0 CPU-hours, 0.0 GPU-hours), 1 rejected, 0 waiting "
        "(see `queue list`; `queue retry` sends them again, `queue drop JOBID` discards one)",
    ] == messages(log)[-2:]


def test_a_refusal_without_proof_sets_nothing_aside(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """If nothing else was accepted, the dashboard may be at fault: the job is kept, and tried again."""
    site.dashboard.manners = refuse_the_job("100")
    code, log = run(site, "flush", capsys)
    assert 69 == code
    assert (
        "ERROR - 0 delivered (0.0 CPU-hours, 0.0 GPU-hours), 0 rejected, 1 refused and kept, 1 waiting "
        "(see `queue list` for the error messages, and the dashboard's own log)"
    ) == messages(log)[-1]


# What stops a run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_backfill_prints_how_to_resume(site: Site, number: signal.Signals) -> None:
    """The message has the remaining dates; finished slices are not repeated."""
    february = day_start(date(2024, 2, 1))
    script = f"""
        for word; do case $word in --starttime=uts*) start=${{word#*uts}} ;; esac; done
        [ "$start" -lt {february} ] || {{ touch "${{0%/*}}/hangs"; exec sleep 60; }}
        head -n 1 "${{0%/*}}/answer"
    """
    site.answer_sacct(script=script)
    argv = [sys.executable, "-m", "agent", "--config", str(site.config)]
    argv += ["--start-date", "2024-01-01", "--end-date", "2024-03-31"]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for((site.folder / "hangs").exists, "a slice of February")
    process.send_signal(number)
    _, log = process.communicate(timeout=60)
    expected = (
        r"WARNING - stopped; all undelivered jobs are kept "
        r"\(done up to (.+); resume with --start-date (.+) --end-date 2024-03-31\)"
    )
    match = re.fullmatch(expected, messages(log)[-1])
    assert match
    following = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S") + timedelta(seconds=1)
    assert match[2] == following.date().isoformat()
    # The slice before, of a week at most, may not be through when sacct is asked for the one that hangs.
    assert date(2024, 1, 24) <= following.date() <= date(2024, 2, 8)
    assert 130 == process.returncode


def test_a_full_disk(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is on the disk stays there, and the message says what to look at."""
    with small_disk(tmp_path / "disk", 64) as disk:
        site.configure(spool_dir=str(disk))
        (disk / "queue").write_text("100\n")
        fill(disk)
        code, log = run(site, "flush", capsys)
        assert [] != list(disk.glob("queue*"))
    hint = "(check that the spool's disk is writable and not full, and that the file belongs to the Slurm user)"
    assert (1, f"ERROR - cannot use {disk}/ledger.db: database or disk is full {hint}") == (code, messages(log)[-1])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_no_rights(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """A user who is neither root nor the Slurm user is advised which user to be."""
    for folder in (site.folder, *list(site.folder.parents)[:2]):
        folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(main(["--config", str(site.config), "flush"]))
    _, status = os.waitpid(child, 0)
    expected = (
        f"ERROR - cannot read the configuration {site.config}: Permission denied"
        " (run as root or as the Slurm user, or name another file with --config)"
    )
    assert (78, [expected]) == (os.WEXITSTATUS(status), messages(capfd.readouterr().err))


def test_a_bug_of_the_exporter(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says that it is a bug and that nothing was lost; only here a traceback is shown."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(commands.COMMANDS, FlushOptions, fail)
    code, log = run(site, "flush", capsys)
    (said,) = messages(log)
    assert 1 == code
    assert said.startswith("ERROR - unexpected error; all undelivered jobs are kept. Please report this:")
    assert said.endswith("ZeroDivisionError")
