"""The demo without Slurm: recorded output of a real one is replayed to the hook and the exporter."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.demo.arrivals import Arrivals
from tests.demo.flusher import Flusher
from tests.demo.screen import Screen, describe_delays
from tests.support.accounting import unfold_nodes
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter
from tests.support.replayed_sacct import SEPARATOR, ReplayedSacct
from tests.support.slurm import HOOK
from tests.support.waiting import wait_for

DATA = Path(__file__).parents[1] / "data"
SECONDS_FOR_ALL_CALLS = 15
LIMIT_SECONDS = 120
#: The scenario in which JobIDs are used again, recorded after all others and their accounting.
REUSED = "reused"


class Recording:
    """What was recorded of one version of Slurm: sacct's answers, and the hook's environment."""

    def __init__(self, version: str) -> None:
        self.version = version
        calls = [path for path in sorted((DATA / "hook" / version).glob("*.jsonl")) if path.stem != REUSED]
        answers = DATA / "sacct" / version
        #: sacct's final answer for the jobs that the hook was called for: its header, and each row once.
        said = (line for path in calls for line in (answers / f"{path.stem}.txt").read_text().split("\n") if line)
        self.lines = list(dict.fromkeys(said))
        #: The environment of each of jobcomp's calls, in their order.
        self.calls = sorted(
            (call for path in calls for call in map(json.loads, path.read_text().splitlines()) if "JOBID" in call),
            key=lambda call: int(call["END"]),
        )
        header, *rows = (line.split(SEPARATOR) for line in self.lines)
        #: JobID → the raw one, which the hook gets.
        self.raw_ids = {row[header.index("JobID")]: row[header.index("JobIDRaw")] for row in rows}
        expected = json.loads((answers / "expected.json").read_text())
        self.expected = {
            record["JobID"]: {**_in_this_zone(record), "NodeList": unfold_nodes(record["NodeList"] or "")}
            for record in expected
            if record["JobID"] in self.raw_ids
        }

    def days(self) -> list[str]:
        """The options for a reconcile of all days on which a job ended."""
        ends = sorted(record["End"][:10] for record in self.expected.values())
        return ["--start-date", ends[0], "--end-date", ends[-1]]


def run(interval_seconds: float, obstacle: str) -> int:
    """Replays the newest recording; returns 0 if the dashboard equals the recorded accounting."""
    recording = Recording(max(path.name for path in (DATA / "sacct").iterdir()))
    screen = Screen("from the hook to the dashboard")
    screen.title(f"NO SLURM IS RUNNING ({obstacle})")
    screen.say(
        f"What follows was RECORDED on Slurm {recording.version}: sacct's output and the hook's calls are replayed."
    )
    with tempfile.TemporaryDirectory(prefix="slurm-demo-") as made, ReceivingDashboard() as dashboard:
        folder = Path(made)
        env = {"PATH": os.environ["PATH"], "SLURM_USAGE_HISTORY_SPOOL": str(folder / "spool")}
        (folder / "spool").mkdir(mode=0o700)
        sacct = ReplayedSacct(folder / "slurm")
        sacct.rows = recording.lines
        exporter = Exporter(folder, env, api_url=dashboard.url, cluster_name="lab", sacct=str(sacct.path))
        called: dict[str, float] = {}  # raw JobID → when the hook was called for it last
        arrivals = Arrivals(screen, lambda record: called.get(recording.raw_ids[record["JobID"]], time.time()))
        dashboard.manners = arrivals

        screen.title(f"{len(recording.calls)} recorded calls of the hook; flush runs every {interval_seconds:g} s")
        screen.heading()
        with Flusher(exporter, interval_seconds) as flusher:
            for call in recording.calls:
                called[call["JOBID"]] = time.time()
                subprocess.run(["/bin/sh", HOOK], check=True, env={**call, **env})
                time.sleep(SECONDS_FOR_ALL_CALLS / len(recording.calls))
            wait_for(lambda: exporter.backlog() == 0, "the last job on the dashboard", limit_seconds=LIMIT_SECONDS)
        screen.title(f"RECORDED: {len(recording.expected)} jobs had ended in the job table")
        screen.complain(flusher.failures)
        differences = screen.report("after flush alone", recording.expected, dashboard.records)
        exporter.run("reconcile", *recording.days())
        differences += screen.report("after reconcile", recording.expected, dashboard.records)
        screen.say(f"from the hook to the dashboard: {describe_delays(list(arrivals.delays.values()))}")
        screen.say("RECORDED: this was no real Slurm", colour="1")
        return 1 if differences else 0


def _in_this_zone(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its times, recorded in UTC, converted to this machine's time zone."""
    moments = {field: datetime.fromisoformat(f"{record[field]}+00:00") for field in ("Submit", "Start", "End")}
    local = {field: moment.astimezone().strftime("%Y-%m-%dT%H:%M:%S") for field, moment in moments.items()}
    return {**record, **local}
