"""Problems that need an admin are reported, and nothing else is."""

from __future__ import annotations

import pytest

from agent.spool.run_history import RunReport
from agent.status.health import Level, Problem, find_problems, worst_level
from agent.status.snapshot import Coverage, Day, Snapshot
from tests.support.snapshots import BACKLOG, DAY, HOOK, HOUR, NOON, REFUSED, make_config, make_runs, make_snapshot


def failed(command: str, exit_code: int) -> RunReport:
    return RunReport(command, NOON - 60, 30.0, exit_code, "no answer from the dashboard")


def covered(hooked: int, jobs: int = 1000) -> Coverage:
    days = (Day("2024-03-19", jobs, hooked),)
    return Coverage(days, days)


def only_problem(snapshot: Snapshot) -> Problem:
    (problem,) = find_problems(snapshot)
    return problem


def test_a_healthy_exporter_has_no_problem() -> None:
    """No problem is listed."""
    assert [] == find_problems(make_snapshot())
    assert Level.OK == worst_level([])


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        (
            {"flush": make_runs(failed("flush", 69), NOON - 600)},
            Level.WARNING,
            "the last flush, 11:59:00 (1 min ago), failed: no answer from the dashboard",
        ),
        ({"flush": make_runs(failed("flush", 77))}, Level.CRITICAL, "the last flush, 11:59:00 (1 min ago), failed"),
        (
            {"reconcile": make_runs(failed("reconcile", 1), NOON - HOUR)},
            Level.WARNING,
            "the last reconcile, 11:59:00 (1 min ago), failed",
        ),
        (
            {"backlog": BACKLOG._replace(oldest=NOON - 1800)},
            Level.WARNING,
            "3 jobs not delivered yet; the oldest has waited 30 min",
        ),
        ({"backlog": BACKLOG._replace(oldest=NOON - 7200)}, Level.CRITICAL, "3 jobs not delivered yet"),
        (
            {"without_turns": NOON - 60},
            Level.WARNING,
            "runs have sent without taking turns with the other controllers since",
        ),
        ({"backlog": BACKLOG._replace(odd_rows=2)}, Level.WARNING, "cannot parse 2 rows of sacct's output"),
        (
            {"flush": make_runs(RunReport("flush", NOON - 1800, 0.1, 0, "nothing to do"), NOON - 1800)},
            Level.WARNING,
            "no flush since 11:30:00 (30 min ago)",
        ),
        (
            {"reconcile": make_runs(RunReport("reconcile", NOON - 36 * HOUR, 9.0, 0, "done"), NOON - 36 * HOUR)},
            Level.WARNING,
            "no reconcile has succeeded since 2024-03-19 00:00",
        ),
        (
            {"reconcile": make_runs(RunReport("reconcile", NOON - 7 * DAY, 9.0, 0, "done"), NOON - 7 * DAY)},
            Level.CRITICAL,
            "no reconcile has succeeded since 2024-03-13 12:00",
        ),
        (
            {"hook": HOOK._replace(last_call=NOON - HOUR, missed_end=NOON - 600)},
            Level.WARNING,
            "the hook has not been called since 11:00:00 (1 h ago), but a job ended 11:50:00 (10 min ago)",
        ),
        (
            {"hook": HOOK._replace(last_call=None, missed_end=NOON - 600)},
            Level.WARNING,
            "the hook has never been called, but a job ended",
        ),
        ({"coverage": covered(989)}, Level.WARNING, "the hook caught only 98.9 % of the 1,000 recent jobs"),
        ({"coverage": covered(899)}, Level.CRITICAL, "the hook caught only 89.9 %"),
        (
            {"backlog": BACKLOG._replace(rejected=1), "rejected": (REFUSED,)},
            Level.WARNING,
            "the dashboard rejected 1 record",
        ),
    ],
)
def test_each_problem_is_reported(changes: dict[str, object], level: Level, text: str) -> None:
    """Each problem has a severity, a text and a hint."""
    problem = only_problem(make_snapshot(**changes))
    assert level == problem.level
    assert problem.text.startswith(text)
    assert problem.hint


def test_what_to_do_about_each() -> None:
    """Each hint names the command to run."""
    bad = make_snapshot(
        flush=make_runs(RunReport("flush", NOON - HOUR, 1.0, 77, "the key was refused")),
        reconcile=make_runs(RunReport("reconcile", NOON - 40 * HOUR, 1.0, 69, "no answer"), NOON - 40 * HOUR),
        backlog=BACKLOG._replace(oldest=NOON - 1800, rejected=1),
        hook=HOOK._replace(missed_end=NOON),
        coverage=covered(989),
    )
    assert [
        "run `check` to find the cause; all undelivered jobs are kept",
        "run `check` to find the cause; all undelivered jobs are kept",
        "`queue list` shows why each is waiting",
        "run one: slurm-usage-history-exporter flush; `check` tests its timer",
        "run one: slurm-usage-history-exporter reconcile; `check` tests its timer",
        "reconcile delivered that job; test the hook with `check --test-job`",
        "reconcile delivered the others; `check` tests the hook",
        "see `queue list`; `queue retry` resends them, `queue drop JOBID` drops one",
    ] == [problem.hint for problem in find_problems(bad)]


@pytest.mark.parametrize("exit_code", [65, 130])
def test_a_run_that_ended_without_failure(exit_code: int) -> None:
    """Rejected records have a report of their own, and an admin who stopped a run knows."""
    assert [] == find_problems(make_snapshot(flush=make_runs(failed("flush", exit_code), NOON - 600)))


def test_the_worst_comes_first() -> None:
    """The worst problem is listed first."""
    backlog = BACKLOG._replace(rejected=2, oldest=NOON - 1800)
    problems = find_problems(make_snapshot(coverage=covered(0), backlog=backlog))
    assert [Level.CRITICAL, Level.WARNING, Level.WARNING] == [problem.level for problem in problems]
    assert Level.CRITICAL == worst_level(problems)


def test_thresholds_come_from_the_configuration() -> None:
    """A site may tolerate more, or less."""
    config = make_config(status_queue_age_minutes=[600, 900], status_coverage_percent=[50, 10])
    bad = make_snapshot(coverage=covered(500), backlog=BACKLOG._replace(oldest=NOON - 1800))
    assert 2 == len(find_problems(bad))
    assert [] == find_problems(bad._replace(config=config))


def test_a_site_without_the_hook_says_so_once() -> None:
    """With status_coverage_percent = [0, 0] a hook that never calls is not a problem."""
    config = make_config(status_coverage_percent=[0, 0])
    hook = HOOK._replace(last_call=None, missed_end=NOON - 600)
    assert [] == find_problems(make_snapshot(config=config, hook=hook, coverage=covered(0)))


def test_a_cluster_of_other_hosts_needs_no_hook_and_no_flush() -> None:
    """Its jobs come by reconcile, and one manual flush does not mean that another is due."""
    config = make_config(slurm_cluster="physics")
    hook = HOOK._replace(last_call=None, since=None, missed_end=NOON - 600)
    flush = make_runs(failed("flush", 0)._replace(started_at=NOON - 86_400), NOON - 86_400)
    assert [] == find_problems(make_snapshot(config=config, hook=hook, elsewhere=True, flush=flush))
    assert [] != find_problems(make_snapshot(config=config, hook=hook, elsewhere=False))


def test_a_reconcile_that_never_ran_is_reported() -> None:
    """Without it nobody would know what the hook had missed."""
    never = make_snapshot().reconcile._replace(last=None, last_success=None)
    expected = (Level.WARNING, "no reconcile has succeeded yet", "run one: slurm-usage-history-exporter reconcile")
    assert expected == only_problem(make_snapshot(reconcile=never, begun=NOON - 36 * HOUR))
    assert [] == find_problems(make_snapshot(reconcile=never, begun=NOON - 35 * HOUR))
