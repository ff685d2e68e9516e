"""The foundations of the benchmarks: a clock, a receiver, a table."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.bench.clockwork import Clockwork
from tests.bench.measure import Figure, expect, meanwhile
from tests.bench.receiver import API_KEY, Receiver, receiving
from tests.bench.report import make_table, replace_block
from tests.bench.simulation import Scenario, simulate


def test_virtual_sleepers_wake_in_the_order_of_their_times() -> None:
    """No sleep takes real time, and the clock shows the time at which each sleeper wakes."""
    time = Clockwork(until=1e6)
    woken: list[tuple[str, float]] = []

    def sleeper(name: str, seconds: float) -> None:
        time.sleep(seconds)
        woken.append((name, time.clock()))

    for name, seconds in (("late", 5000.0), ("early", 3.0), ("middle", 700.0)):
        time.start(lambda name=name, seconds=seconds: sleeper(name, seconds))  # type: ignore[misc]
    time.run()
    assert [("early", 3.0), ("middle", 700.0), ("late", 5000.0)] == woken


def test_the_simulation_shows_an_outage_and_the_recovery() -> None:
    """A dashboard with time to spare is caught up with after its outage, and nothing is stored twice."""
    outcome = simulate(Scenario("small", 100_000, 300, 10, clusters=20, hours=3.0))
    assert outcome.recovery
    assert 0 < outcome.recovery < 900
    assert outcome.wasted == pytest.approx(0, abs=1e-3)
    assert outcome.calm_latency[1] == pytest.approx(310, abs=10)


def test_the_simulation_shows_an_overloaded_dashboard() -> None:
    """If POSTs take longer than the time available, every client gives up before its answer."""
    outcome = simulate(Scenario("too much", 100_000, 30, 0, seconds_per_post=10, clusters=20, hours=3.0))
    assert outcome.wasted > 0.5


def post(receiver: Receiver, *job_ids: str) -> int:
    body = {"hostname": "lab", "jobs": [{"JobID": job_id, "Submit": "2024-01-01T00:00:00"} for job_id in job_ids]}
    request = urllib.request.Request(
        receiver.url + "/api/data/ingest",
        json.dumps(body, separators=(",", ":")).encode(),
        {"X-API-Key": API_KEY},
    )
    with urllib.request.urlopen(request) as answer:
        return int(json.load(answer)["jobs_processed"])


def test_the_receiver_counts_each_job_once() -> None:
    """The answer has as many jobs as one POST holds; afterwards the number of different jobs is returned."""
    with receiving() as receiver:
        assert [2, 1] == [post(receiver, "1", "2"), post(receiver, "2")]
        assert 2 == receiver.take_jobs()
        assert 0 == receiver.take_jobs()


def test_a_benchmark_that_has_not_done_its_work_fails() -> None:
    """A wrong count is an error, not a figure."""
    with pytest.raises(RuntimeError, match="9 jobs, not 10"):
        expect(9, 10, "jobs")


def test_an_error_in_the_other_thread_is_raised() -> None:
    """Work in the background that fails does not let the benchmark pass."""

    def work() -> None:
        raise RuntimeError("no flush")

    with pytest.raises(RuntimeError, match="no flush"), meanwhile(work):
        pass


def test_a_table_shows_which_goals_are_met() -> None:
    """The goal is compared with the median."""
    table = make_table(
        [Figure("a", [1.0, 3.0, 2.0], "s", "at most 2 s", 2.0), Figure("b", [0.4], "×", "0.5", 0.5, True)]
    )
    assert "| a | 2 s | 1 – 3 | at most 2 s, met |" in table
    assert "| b | 0.4 × | once | 0.5, **missed** |" in table


def test_a_table_does_not_change_the_prose() -> None:
    """Only the text between its own marks is replaced."""
    text = "before\n<!-- begin x -->\nold\n<!-- end x -->\nafter\n"
    assert "before\n<!-- begin x -->\nnew\n<!-- end x -->\nafter\n" == replace_block(text, "x", "new")
    with pytest.raises(ValueError, match="no place for y"):
        replace_block(text, "y", "new")
