"""A cluster in a folder: a replayed sacct, a dashboard, a spool, and exporters that can be killed."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from agent.localtime import local_day
from tests.support.dashboard import API_KEY, Answer, Connection, ReceivingDashboard, Request
from tests.support.forked_agent import ForkedAgents
from tests.support.replayed_sacct import SEPARATOR, ReplayedSacct

#: The files that the hook leaves behind; each holds a share of the jobs.
FILES = ("queue", "queue.side.{job}.{job}", "queue.claimed.1.{job}", "queue.part.{job}.{job}")


class Site:
    """The surroundings of a run: sacct, dashboard, spool and configuration.

    :param python: the interpreter of its sacct.
    :param settings: more keys of the configuration.
    """

    def __init__(
        self, folder: Path, dashboard: ReceivingDashboard, *, python: str = sys.executable, **settings: Any
    ) -> None:
        self.spool = folder / "spool"
        self.dashboard = dashboard
        self.sacct = ReplayedSacct(folder / "slurm", python)
        self.config = folder / "config.json"
        content = {
            "api_url": dashboard.url,
            "api_key": API_KEY,
            "cluster_name": "lab",
            "sacct": str(self.sacct.path),
            "batch_size": 10,
            "timeout": 10,
            **settings,
        }
        self.config.write_text(json.dumps(content))
        self.config.chmod(0o600)
        self.env = {"PATH": os.environ["PATH"], "SLURM_USAGE_HISTORY_SPOOL": str(self.spool)}
        self.agents = ForkedAgents(self.config, self.env)

    def reconcile_argv(self) -> tuple[str, ...]:
        """A reconcile of the days on which the recorded jobs ended."""
        ends = [int(line.split()[2]) for line in self.hook_lines()]
        return "reconcile", f"--start-date={local_day(min(ends))}", f"--end-date={local_day(max(ends))}"

    def start_over(self) -> None:
        """An empty spool, and a dashboard that has seen nothing."""
        shutil.rmtree(self.spool, ignore_errors=True)
        self.spool.mkdir(mode=0o750)
        self.dashboard.stored.clear()
        self.dashboard.requests.clear()

    def hook_lines(self) -> list[str]:
        """What the hook writes when called once for each row."""
        header, *rows = [row.split(SEPARATOR) for row in self.sacct.rows]
        lines = []
        for row in rows:
            values = dict(zip(header, row))
            if not values["End"].isdigit():
                continue
            array, _, task = values["JobID"].partition("_")
            task = task if array == values["JobIDRaw"] and task.isdigit() else "-"
            lines.append(f"{values['JobIDRaw']} {values['Submit']} {values['End']} {task}")
        return lines

    def queue_everything(self) -> None:
        """Writes a line for each row: into the queue, and as a stuck lock, a killed flush and a killed hook would."""
        for number, line in enumerate(self.hook_lines()):
            job = line.split()[0]
            name = FILES[number % 5 if number % 5 < len(FILES) else 0].format(job=job)
            with (self.spool / name).open("a") as file:
                file.write(f"\n{line}\n")
            if ".part." in name:
                os.utime(self.spool / name, (time.time() - 1000,) * 2)

    def leftovers(self) -> list[str]:
        """Files in the spool that should not be there after a flush."""
        usual = {"queue.lock", "agent.lock", "ledger.db", "host"}
        return sorted(path.name for path in self.spool.iterdir() if path.name not in usual)


def refuse(job_id: str) -> Any:
    """A dashboard's manners: it answers 422 to every batch with this job."""

    def fault(request: Request, connection: Connection, serve: Any) -> None:
        indices = [index for index, job in enumerate(request.jobs) if job["JobID"] == job_id]
        problems = [{"loc": ["body", "jobs", index, "User"], "msg": "no such user"} for index in indices]
        connection.send(Answer(422, {"detail": problems}) if problems else serve())

    return fault
