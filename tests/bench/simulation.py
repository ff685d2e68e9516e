"""A thousand clusters against one dashboard: the agents' own retry code, timers and batches on a virtual clock.

Nothing here is measured on a network. The dashboard is a queue with one server, whose costs were fitted to
measurements of the real one: a cost for each POST, and one for each record.
"""

from __future__ import annotations

import random
import statistics
import threading
from typing import Any, Callable, Mapping, NamedTuple

from agent.dashboard.answer import Answer
from agent.dashboard.client import Dashboard
from agent.errors import DashboardUnreachable
from agent.sync.work_due import check_pause

from .clockwork import Clockwork

HOUR = 3600.0
TIMEOUT_SECONDS = 30.0  # the configuration's default
BATCH_SIZE = 5000  # likewise
SMALLEST_BATCH = 1
#: Measured at the real dashboard: 60,000 jobs took 5.5, 2.4 and 2.0 s in batches of 1,000, 5,000 and 20,000.
SECONDS_PER_POST = 0.065
OUTAGE = (1.0 * HOUR, 2.0 * HOUR)


class Scenario(NamedTuple):
    """One way of running a thousand clusters."""

    name: str
    records_per_second: float  # what the dashboard stores
    interval: float  # seconds from one flush to the next
    spread: float  # RandomizedDelaySec
    seconds_per_post: float = SECONDS_PER_POST
    shed_after: float | None = None  # a proxy answers 503 if more seconds of work are waiting
    retry_after: float = 0.0  # and asks to wait that long
    clusters: int = 1000
    jobs_per_day: int = 1_000_000
    hours: float = 6.0


class Outcome(NamedTuple):
    """The results: seconds, and POSTs a second."""

    calm_latency: tuple[float, float]  # median and 99th percentile before the outage
    calm_posts: float
    rush_posts: float  # in the busiest minute after the outage
    recovery: float | None  # until the latency is again below twice its old 99th percentile; None: never
    wasted: float  # share of the stored records that had been stored before


class Server:
    """The dashboard behind its proxy: one POST at a time, in order of arrival."""

    def __init__(self, scenario: Scenario, time: Clockwork) -> None:
        self.stored = 0
        self.posts: list[float] = []
        self._scenario = scenario
        self._time = time
        self._free_at = 0.0

    def post(self, records: int) -> Answer:
        """Serves a POST, and returns when its sender gets the answer."""
        now = self._time.now
        self.posts.append(now)
        if OUTAGE[0] <= now < OUTAGE[1]:
            raise DashboardUnreachable("connection refused")
        backlog = max(self._free_at - now, 0.0)
        if self._scenario.shed_after is not None and backlog > self._scenario.shed_after:
            wait = self._scenario.retry_after
            return Answer(503, {"Retry-After": f"{wait:.0f}"} if wait else {}, "")
        self._free_at = now + backlog + self._scenario.seconds_per_post + records / self._scenario.records_per_second
        self.stored += records
        took = self._free_at - now
        self._time.sleep(min(took, TIMEOUT_SECONDS))
        if took > TIMEOUT_SECONDS:  # the server does not notice, and continues
            raise DashboardUnreachable("no answer in time", timed_out=True, overwhelmed=True)
        return Answer(200, {}, f'{{"success": true, "jobs_processed": {records}}}')


class Cluster:
    """One cluster's flush unit: claims what has ended, delivers it in batches, keeps what could not be delivered."""

    def __init__(self, scenario: Scenario, time: Clockwork, server: Server, dice: random.Random) -> None:
        self.latencies: list[tuple[float, float]] = []  # when it was delivered, how old it was
        self.delivered = 0
        self._scenario = scenario
        self._time = time
        self._dice = dice
        self._rate = scenario.jobs_per_day / (24 * HOUR)
        self._pause_until = 0.0
        self._batch_size = BATCH_SIZE
        self._dashboard = Dashboard(
            "", "", self._transport(server), sleep=time.sleep, clock=time.clock, dice=dice.random
        )

    def get(self, name: str) -> float:
        """The end of the pause that the dashboard has asked for, which the ledger remembers."""
        return self._pause_until

    def run(self) -> None:
        """Flushes until the end of the simulation, as the timer says."""
        self._time.sleep(self._dice.uniform(0, self._scenario.interval))
        while True:
            started = self._time.now
            try:
                check_pause(self, started)  # type: ignore[arg-type]
                self._flush(int(self._rate * started) - self.delivered)
            except DashboardUnreachable as error:
                if error.retry_after_seconds:
                    self._pause_until = self._time.now + error.retry_after_seconds
                if error.timed_out:  # as Delivery does
                    self._batch_size = max(self._batch_size // 2, SMALLEST_BATCH)
            wait = self._scenario.interval + self._dice.uniform(0, self._scenario.spread)
            self._time.sleep(max(started + wait - self._time.now, 1.0))

    def _flush(self, pending: int) -> None:
        while pending > 0:
            count = min(pending, self._batch_size)
            self._dashboard.submit("", ["0"] * count)
            now = self._time.now
            for part in (0.0, 0.5, 1.0):
                self.latencies.append((now, now - (self.delivered + part * count) / self._rate))
            self.delivered += count
            pending -= count
            if count == self._batch_size:
                self._batch_size = min(self._batch_size * 2, BATCH_SIZE)

    def _transport(self, server: Server) -> Callable[[str, str, Mapping[str, str], Any], Answer]:
        return lambda method, url, headers, body: server.post(body.count(b"0"))


def simulate(scenario: Scenario, seed: int = 1) -> Outcome:
    """Runs a scenario to its end."""
    threading.stack_size(1 << 18)
    time = Clockwork(scenario.hours * HOUR)
    server = Server(scenario, time)
    clusters = [Cluster(scenario, time, server, random.Random(seed * 10_000 + n)) for n in range(scenario.clusters)]
    for cluster in clusters:
        time.start(cluster.run)
    time.run()
    latencies = sorted(pair for cluster in clusters for pair in cluster.latencies)
    calm = [age for at, age in latencies if 0.5 * HOUR <= at < OUTAGE[0]]
    median, worst = _percentile(calm, 0.5), _percentile(calm, 0.99)
    delivered = sum(cluster.delivered for cluster in clusters)
    return Outcome(
        calm_latency=(median, worst),
        calm_posts=sum(0.5 * HOUR <= at < OUTAGE[0] for at in server.posts) / (0.5 * HOUR),
        rush_posts=_busiest_minute([at for at in server.posts if at >= OUTAGE[1]]),
        recovery=_recovery(latencies, 2 * worst),
        wasted=1 - delivered / server.stored if server.stored else 0.0,
    )


def _recovery(latencies: list[tuple[float, float]], limit: float) -> float | None:
    """Seconds from the end of the outage until nothing older than the limit arrives any more."""
    if not latencies:
        return None
    late = [at for at, age in latencies if at >= OUTAGE[1] and age > limit]
    if not late:
        return 0.0
    return None if latencies[-1][0] - late[-1] < 600 else late[-1] - OUTAGE[1]


def _busiest_minute(times: list[float]) -> float:
    counts: dict[int, int] = {}
    for at in times:
        counts[int(at // 60)] = counts.get(int(at // 60), 0) + 1
    return max(counts.values(), default=0) / 60


def _percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100)[round(share * 100) - 1] if len(values) > 1 else 0.0


#: A million jobs a day and cluster are 11,574 records a second altogether. 36,900 a second is what the real dashboard
#: stores, beside its 65 ms a POST; the queueing ingest only takes the POST in.
SCENARIOS = [
    Scenario("the dashboard alone, timer of 5 min", 36_900, 300, 10),
    Scenario("the dashboard alone, path unit of 30 s", 36_900, 30, 0, hours=3),
    Scenario("a proxy that says 503 when 20 s of work wait, timer of 5 min", 36_900, 300, 10, shed_after=20),
    Scenario("the same, with Retry-After: 300", 36_900, 300, 10, shed_after=20, retry_after=300),
    Scenario("the same, half as fast again", 55_000, 300, 10, shed_after=20, retry_after=300),
    Scenario("the same, three times as fast", 110_000, 300, 10, shed_after=20, retry_after=300),
    Scenario("a queueing ingest in front, timer of 5 min", 200_000, 300, 10, seconds_per_post=0.002),
    Scenario("a queueing ingest in front, path unit of 30 s", 200_000, 30, 0, seconds_per_post=0.002, hours=3),
]


def make_simulation_table() -> str:
    """A Markdown table of all scenarios."""
    lines = [
        "| between exporters and dashboard | age on arrival: median, 99 % | POSTs a second: calm, rush"
        " | after an hour's outage | stored twice |",
        "|---|---|---|---|---|",
    ]
    for scenario in SCENARIOS:
        outcome = simulate(scenario)
        median, worst = outcome.calm_latency
        age = f"{median:.0f} s, {worst:.0f} s" if outcome.calm_latency != (0.0, 0.0) else "nothing is heard of in time"
        recovery = "not recovered" if outcome.recovery is None else f"recovered in {outcome.recovery / 60:.0f} min"
        if not worst:
            recovery = "overloaded all the time"
        lines.append(
            f"| {scenario.name} | {age} | {outcome.calm_posts:.1f}, {outcome.rush_posts:.0f} |"
            f" {recovery} | {outcome.wasted:.0%} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)
