"""Runs jobs of every kind on a real Slurm, and records sacct's answers and the hook's environment.

Run it in a throwaway system, because it adds and removes users::

    OUT=$PWD/tests/data tests/support/chroots.sh run SUITE sh -c 'cd /src && python3 -m tests.data.capture /out'

README.md describes the files; scenarios.py, what happens to the jobs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, TypeVar

from agent.slurm.environment import make_environment
from agent.slurm.row import FIELDS, OPTIONAL_FIELD
from agent.slurm.sacct_argv import make_ids_selection, make_sacct_argv, make_window_selection
from tests.data import scenarios
from tests.support.accounting import expected_records
from tests.support.rows import SEPARATOR
from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

T = TypeVar("T")
Done = subprocess.CompletedProcess

#: Wired as jobcomp/script and as EpilogSlurmctld alike.
RECORDER = '#!/bin/sh\nenv -0 >"$SLURM_USAGE_HISTORY_SPOOL/$(date +%s%N).$$.call"\nexit 0\n'
#: What the lab adds to the hook's environment, and the item behind the last separator.
OURS = {"SLURM_USAGE_HISTORY_SPOOL", "PWD", ""}
#: Up to 22.05 a run of a few seconds is written at its end first, and completed by its start some seconds later.
#: On 20.11 a run that a requeue, a preemption or a lost node ended that early is never completed.
HALF = "time_eligible = 0 and tres_alloc != '' and state in (3, 5)"
LIMIT_SECONDS = 180


class Capture:
    """A lab, the jobs of each scenario, and the files they leave.

    :param folder: gets the files.
    """

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm = slurm
        self.began = int(time.time()) - 1
        self.jobs: dict[str, list[int]] = {}
        version = slurm.run("sacct", "-V").split()[1]
        self._answers = _make_empty(folder / "sacct" / version)
        self._calls = _make_empty(folder / "hook" / version)
        helped = slurm.run("sacct", "--helpformat").split()
        self._fields = (*FIELDS, OPTIONAL_FIELD) if OPTIONAL_FIELD in helped else FIELDS

    # Doing

    def submit(self, scenario: str, *options: str, command: str = "sleep 1", user: str = "alice") -> int:
        """Submits a batch job of a scenario; returns its raw JobID."""
        usual = ("sbatch", "--parsable", "--output=/dev/null", "--chdir=/tmp")
        job = int(self.as_user(user, *usual, *options, f"--wrap={command}").partition(";")[0])
        self.jobs.setdefault(scenario, []).append(job)
        return job

    def as_user(self, user: str, *argv: str) -> str:
        return self.slurm.run("runuser", "-u", user, "--", *argv)

    def scontrol(self, *arguments: str) -> None:
        self.slurm.run("scontrol", *arguments)

    def cancel(self, *jobs: int, user: str = "root") -> None:
        self.as_user(user, "scancel", *map(str, jobs))

    def wait(self, job: int, what: str, condition: Callable[[], T]) -> T:
        """Waits until a condition holds for a job."""
        name = next((name for name, jobs in self.jobs.items() if job in jobs), "")
        return wait_for(condition, f"{name} {job}: {what}", limit_seconds=LIMIT_SECONDS, pause_seconds=0.5)

    def until(self, job: int, *states: str, seconds: float = 1.5) -> None:
        """Waits until slurmctld reports a job in such a state, and some seconds more.

        Two things that happen within one second could leave one row: its key is the second of the Submit.
        """
        self.wait(job, f"{states} in slurmctld", lambda: set(self.slurm.states(job)) <= set(states))
        time.sleep(seconds)

    def until_rows(self, job: int, *states: str) -> None:
        """Waits until the rows of a job are in these states in the accounting, oldest first."""
        wanted = [scenarios.STATES[state] for state in states]
        try:
            self.wait(job, f"{states} in the accounting", lambda: self.row_states(job) == wanted)
        except TimeoutError as error:
            raise TimeoutError(f"{error}, rows {self.row_states(job)}") from None

    def until_newest_row(self, job: int, state: str) -> None:
        """The same for the newest row alone, which must not be the first."""
        self.wait(job, f"{state} at last", lambda: self.row_states(job)[1:][-1:] == [scenarios.STATES[state]])

    def row_states(self, job: int) -> list[int]:
        """The states of a job's rows, oldest first, as numbers; none where one of them is not complete yet."""
        rows = self.slurm.sql(
            f"select state, {HALF} as half from lab_job_table where {job} in (id_job, id_array_job, het_job_id)"
            " order by time_submit, id_job"
        )
        return [] if any(row["half"] == "1" for row in rows) else [int(row["state"]) for row in rows]

    # Keeping

    def ask(self, *selection: str, user: str = "root") -> Done[bytes]:
        """Calls sacct like the exporter does."""
        env = make_environment(self.slurm.env, SLURM_TIME_FORMAT="%s", SLURM_BITSTR_LEN="0")
        argv = ["runuser", "-u", user, "--", *make_sacct_argv("sacct", self._fields, *selection, separator=SEPARATOR)]
        return subprocess.run(argv, capture_output=True, check=False, env=env, timeout=60)

    def keep(self, name: str, *jobs: int) -> None:
        """Records what sacct prints now for some jobs."""
        done = self.ask(*make_ids_selection([str(job) for job in jobs], self.began))
        assert done.returncode == 0, done.stderr
        (self._answers / f"{name}.txt").write_bytes(done.stdout)

    def keep_windows(self) -> None:
        """Records what ended since the beginning, with states and without."""
        chosen = make_window_selection(self.began, int(time.time()) + 1)
        plain = [word for word in chosen if not word.startswith("--state")]
        for name, selection in (("ended_window", chosen), ("plain_window", plain)):
            (self._answers / f"{name}.txt").write_bytes(self.ask(*selection).stdout)

    def keep_expected(self) -> None:
        """Records what the dashboard must have, computed with plain SQL."""
        records = sorted(expected_records(self.slurm).values(), key=lambda record: record["JobID"])
        lines = ",\n".join(json.dumps(record) for record in records)
        (self._answers / "expected.json").write_text(f"[\n{lines}\n]\n")

    def keep_failure(self, name: str, done: Done[bytes]) -> None:
        """Records exit status and both outputs of a call that answers only partially."""
        reported = {"returncode": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}
        (self._answers / f"failure_{name}.json").write_text(json.dumps(reported, indent=1) + "\n")

    def keep_calls(self) -> None:
        """The hook's environment at each call, a file for each scenario, in the order of the calls."""
        reported: dict[str, list[str]] = {name: [] for name in self.jobs}
        for file in sorted(self.slurm.spool.glob("*.call")):
            pairs = (item.decode("utf-8", "surrogateescape").partition("=") for item in file.read_bytes().split(b"\0"))
            call = {name: value for name, _, value in sorted(pairs) if name not in OURS}
            job = self._root(int(call.get("JOBID") or call["SLURM_JOB_ID"]))
            for name in (name for name, jobs in self.jobs.items() if job in jobs):
                reported[name].append(json.dumps(call))
        for name, calls in reported.items():
            (self._calls / f"{name}.jsonl").write_text("".join(f"{call}\n" for call in calls))

    def _root(self, job: int) -> int:
        """The raw ID that was submitted: that of the array or of the het job's leader."""
        rows = self.slurm.sql(
            f"select greatest(id_array_job, het_job_id) as root from lab_job_table where id_job = {job}"
        )
        return int(rows[0]["root"]) or job


def capture(folder: Path) -> None:
    """Runs all scenarios, and records them in a folder."""
    recorder = Path("/run/recorder.sh")
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    scenarios.prepare_host()
    with Slurm(jobcomp=True, epilog=True, hook=recorder, conf=scenarios.CONF.splitlines(), nodes=8) as slurm:
        slurm.layout.slurm_conf.chmod(0o644)  # users submit
        scenarios.prepare_accounting(slurm)
        taken = Capture(slurm, folder)
        scenarios.begin_reuse(taken)
        with ThreadPoolExecutor(len(scenarios.SIDE_BY_SIDE)) as pool:
            running = [pool.submit(scenario, taken) for scenario in scenarios.SIDE_BY_SIDE]
        failed = [str(error) for error in (future.exception() for future in running) if error]
        assert not failed, "\n".join(failed)
        for name, jobs in taken.jobs.items():
            taken.keep(name, *jobs)
        taken.keep_windows()
        taken.keep_expected()
        scenarios.reuse(taken)
        taken.keep_calls()
        scenarios.fail(taken)


def _make_empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    os.umask(0o022)
    capture(Path(sys.argv[1]))
