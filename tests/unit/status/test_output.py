"""A snapshot is shown on one screen, as JSON, and as a line for Nagios."""

from __future__ import annotations

import json
import re

import pytest

from agent.localtime import local_day
from agent.spool.run_history import RunReport
from agent.status.health import find_problems
from agent.status.output import WIDTH, as_check_line, as_json, as_text
from agent.status.snapshot import CommandRuns, Coverage, Day, Delay, Snapshot, UnderWay
from agent.wording import Style, count, moment, percent, span
from tests.support.snapshots import BACKLOG, HOUR, NOON, REFUSED, make_config, make_runs, make_snapshot

PLAIN = Style(colour=False, unicode=False)
NEVER = CommandRuns(None, None, None, 0)


def shown(style: Style = PLAIN, **changes: object) -> str:
    snapshot = make_snapshot(**changes)
    return as_text(snapshot, find_problems(snapshot), style)


def row(text: str, label: str) -> str:
    """The text after a label, on any number of lines."""
    match = re.search(rf"^{label} +(.+(?:\n {{11}}.+)*)", text, re.MULTILINE)
    assert match, text
    return re.sub(r"\n +", " ", match[1])


def in_trouble() -> Snapshot:
    """A snapshot with every kind of problem."""
    return make_snapshot(
        under_way=UnderWay("reconcile", 4711, NOON - 90),
        backlog=BACKLOG._replace(
            queued=100_000,
            waiting=20_000,
            oldest=NOON - 9000,
            rejected=9,
            unreadable=1,
            given_up=2,
            odd_rows=3,
            paused_until=NOON + 60,
        ),
        rejected=(REFUSED._replace(reason="CPUHours: " + "much too long a story " * 9),) * 3,
        flush=make_runs(RunReport("flush", NOON - 60, 30.0, 69, "no answer from https://dashboard.example.com/api")),
    )


# The screen


def test_a_healthy_exporter() -> None:
    """The whole screen of a healthy exporter, in two columns."""
    expected = """\
slurm-usage-history-exporter 1.0.0, to https://dashboard.example.com
* all is well

Hook       last call 11:59:48 (12 s ago), 1,523 calls today
Queue      2 queued, 1 waiting (1 no record yet), the oldest for 40 s
Rejected   none
Flush      11:59:30 (30 s ago), took 0.4 s: 12 delivered, 0 rejected, 1 waiting
Reconcile  02:00:00 (10 h ago), took 41 s: 18000 jobs ended in the range
Delay      from job end to dashboard: median 14 s, 99 % within 41 s (1,500 jobs)
Coverage   the hook caught 99.9 % of 20,000 jobs since 2024-03-19
History    complete since 2024-03-01; reconcile --start-date YYYY-MM-DD delivers
           earlier jobs
  Mon 03-18 ################..                     88.8 %       9,000 jobs
  Tue 03-19 ####################################  100.0 %      18,000 jobs
  Wed 03-20 ###.                                   99.9 %       2,000 jobs"""
    assert expected == shown()


def test_a_new_installation() -> None:
    """Each line says that nothing has happened yet."""
    fresh = make_snapshot(
        hook=make_snapshot().hook._replace(last_call=None),
        flush=NEVER,
        reconcile=NEVER,
        delay=Delay(0, None, None),
        coverage=Coverage((), ()),
        history_since=None,
    )
    text = as_text(fresh, (), PLAIN)
    assert ["no call yet", "never", "never"] == [row(text, label) for label in ("Hook", "Flush", "Reconcile")]
    assert "flush delivered no job in the last day" == row(text, "Delay")
    assert "unknown until the first reconcile after the hook's first call" == row(text, "Coverage")
    assert "none yet; reconcile delivers the last 7 days" == row(text, "History")


def test_the_first_day() -> None:
    """Coverage counts from the hook's first call, and the history begins with it until a reconcile has brought more."""
    since = NOON - 2 * 3600
    hook = make_snapshot().hook._replace(since=since, first_day=local_day(since).isoformat())
    today = Day(local_day(NOON).isoformat(), 40, 40)
    text = as_text(make_snapshot(hook=hook, coverage=Coverage((today,), (today,)), history_since=None), (), PLAIN)
    assert "the hook caught 100.0 % of 40 jobs since 2024-03-20 10:00" == row(text, "Coverage")
    assert "begins at 10:00:00 (2 h ago); reconcile delivers the last 7 days" == row(text, "History")


def test_a_site_without_a_hook() -> None:
    """The line Coverage says that no hook is expected."""
    text = as_text(make_snapshot(config=make_config(status_coverage_percent=[0, 0])), (), PLAIN)
    assert "no hook expected, because status_coverage_percent is [0, 0]" == row(text, "Coverage")


def test_problems_come_first_with_their_fixes() -> None:
    """The first thing that an admin reads is what to do."""
    lines = shown(backlog=BACKLOG._replace(rejected=1), rejected=(REFUSED,)).splitlines()
    assert "* the dashboard rejected 1 record" == lines[1]
    assert "  -> see `queue list`; `queue retry` resends them, `queue drop JOBID` drops one" == lines[2]


def test_status_shows_everything_there_is_to_report() -> None:
    """A run under way, odd lines, a pause, what was given up, and the first rejected records."""
    text = as_text(in_trouble(), find_problems(in_trouble()), PLAIN)
    assert "reconcile for 1 min 30 s, process 4711" == row(text, "Under way")
    expected = (
        "100,000 queued, 20,000 waiting (1 no record yet), the oldest for 2 h 30 min, 1 line without a JobID, "
        "3 rows of sacct unreadable, 2 left to reconcile so far, paused for 1 min at the dashboard's request"
    )
    assert expected == row(text, "Queue")
    assert "job 4711: CPUHours: much too long a story" in row(text, "Rejected")
    assert "and 6 more" in text


def test_a_failed_run_shows_the_last_success() -> None:
    """An admin wants to know since when it is broken."""
    failed = RunReport("flush", NOON - 60, 30.0, 69, "no answer")
    good = row(shown(flush=make_runs(failed, NOON - HOUR)), "Flush")
    assert "11:59:00 (1 min ago), failed after 30 s; last success 11:00:00 (1 h ago)" == good
    assert row(shown(flush=make_runs(failed)), "Flush").endswith("failed after 30 s; none has succeeded yet")


def test_an_idle_run_shows_the_last_delivery() -> None:
    """Nothing to do is good news only if something was done before."""
    idle = RunReport("flush", NOON - 60, 0.1, 0, "nothing to do")
    flush = CommandRuns(idle, NOON - 60, NOON - HOUR, 5)
    assert row(shown(flush=flush), "Flush").endswith("nothing to do; last delivery 11:00:00 (1 h ago)")


@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_screen(unicode: bool) -> None:
    """It fits 80 columns, and nearly always 24 lines."""
    lines = as_text(in_trouble(), find_problems(in_trouble()), Style(unicode=unicode)).splitlines()
    assert [] == [line for line in lines if len(line) > WIDTH]
    assert len(shown().splitlines()) <= 24


def test_ascii_where_the_screen_has_no_utf_8() -> None:
    """Without UTF-8 in the locale, a bar is made of the characters that it has."""
    assert shown(Style(unicode=False)).isascii()
    assert "█" in shown(Style(unicode=True))


def test_colour_only_on_terminals_that_allow_it() -> None:
    """A log file or a mail holds no escape sequences."""
    assert "\033" not in shown(Style(colour=False))
    assert "\033[32m" in shown(Style(colour=True))


@pytest.mark.parametrize(("hooked", "bar"), [(0, "...................................."), (999, "#" * 35 + ".")])
def test_a_full_bar_means_all(hooked: int, bar: str) -> None:
    """One missed job in a thousand leaves a mark."""
    days = (Day("2024-03-19", 1000, hooked),)
    assert f"Tue 03-19 {bar} " in shown(coverage=Coverage(days, ()))


# JSON


def test_json_is_json() -> None:
    """Every value can be written, and read back as it was."""
    content = as_json(in_trouble(), find_problems(in_trouble()))
    assert content == json.loads(json.dumps(content))


def test_json_shows_the_level() -> None:
    """The level in a word, and each problem with its own."""
    content = as_json(in_trouble(), find_problems(in_trouble()))
    levels = [problem["level"] for problem in content["problems"]]
    assert ("critical", ["critical", "warning", "warning", "warning"]) == (content["level"], levels)
    assert "ok" == as_json(make_snapshot(), [])["level"]


def test_json_holds_no_key() -> None:
    """What is shown to a monitoring system must not hold the API key."""
    config = make_config(api_key="Geheim-4711")
    assert "Geheim" not in json.dumps(as_json(make_snapshot(config=config), []))


# Nagios


def test_the_line_for_nagios() -> None:
    """It has the state, the problems, and the figures with their thresholds."""
    expected = (
        "OK - all is well | queued=2;;;0 waiting=1;;;0 oldest=40s;1800;7200;0 rejected=0;0;;0"
        " coverage=99.99%;99:;90:;0;100 delay_median=14.2s;;;0"
        " delay_p99=41.0s;;;0 flush_age=30s;;;0 reconcile_age=36000s;;;0"
    )
    assert expected == as_check_line(make_snapshot(), [])


def test_the_line_for_nagios_is_one_line_with_one_bar() -> None:
    """A dashboard's message may contain a bar, behind which it would be read as figures."""
    report = RunReport("flush", NOON - 60, 30.0, 69, "line one\nline two | 5=5")
    snapshot = make_snapshot(flush=make_runs(report))
    line = as_check_line(snapshot, find_problems(snapshot))
    assert (0, 1) == (line.count("\n"), line.count("|"))
    assert line.startswith("WARNING - the last flush, 11:59:00 (1 min ago), failed: line one line two / 5=5 | queued=2")


@pytest.mark.parametrize("figure", as_check_line(make_snapshot(), []).partition(" | ")[2].split())
def test_each_figure_is_performance_data(figure: str) -> None:
    """As the Monitoring Plugins' guidelines write it: label=value[unit];warning;critical;least;most."""
    assert re.fullmatch(r"[a-z0-9_]+=\d+(\.\d+)?(s|%)?(;[\d.:]*){0,4}", figure)


# Words


def test_unknown_figures_are_omitted() -> None:
    """Zero would be wrong."""
    snapshot = make_snapshot(delay=Delay(0, None, None), coverage=Coverage((), ()), flush=NEVER)
    line = as_check_line(snapshot, [])
    assert not re.search("delay|coverage|flush_age", line)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0.0 s"),
        (0.42, "0.4 s"),
        (9.97, "10 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (86_399, "23 h 59 min"),
        (90_061, "1 d 1 h"),
        (86_460, "1 d"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    """A length of time in its two largest units."""
    assert text == span(seconds)


def test_moments() -> None:
    """Today's moments show the time, others the day as well."""
    assert "11:00:00 (1 h ago)" == moment(NOON - HOUR, NOON)
    assert "2024-03-19 23:00 (13 h ago)" == moment(NOON - 13 * HOUR, NOON)


def test_shares_are_never_rounded_up() -> None:
    """100.0 % is shown only if all were caught."""
    assert ["99.9 %", "100.0 %", "0.0 %"] == [percent(0.99999), percent(1), percent(0)]


def test_one_takes_the_singular() -> None:
    """Thousands are separated by commas."""
    assert ["1 job", "0 jobs", "18,234 jobs"] == [count(1, "job"), count(0, "job"), count(18234, "job")]
