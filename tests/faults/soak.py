"""Real Slurm, real kills: ``make soak``, for as long as SOAK_MINUTES says. SOAK_MODE=run: one long-running process.
SOAK_SPARE=slurmctld: without kills of slurmctld, after which Slurm itself reuses JobIDs.

Jobs end all the time while everything around them fails: the exporter is killed at random moments and steps, slurmdbd
and MariaDB are killed or frozen, slurmctld is killed or restarted, the dashboard resets, hangs, redirects and refuses,
a stopped process holds the lock, hooks are killed, the spool's disk is full, the configuration is changed or broken,
the health file cannot be written. nginx is the reverse proxy, with a small body limit and a short time-out, and is
killed and restarted. After each round all faults end, and the dashboard is compared with the accounting.

A killed slurmctld forgets some jobs, and reuses their IDs. Jobs that never reached slurmdbd can't be delivered; those
that it shows as running forever are fixed as an admin would, with sacctmgr's runawayjobs, and must then reach the
dashboard.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Mapping, TypeVar

from agent.jobs.finality import HALF_WRITTEN_SECONDS
from agent.spool.ledger import view_ledger
from tests.faults.long_run import LongRunningAgent
from tests.proxies.daemons import Nginx
from tests.proxies.site import works_slowly
from tests.support import dashboard_faults as faults
from tests.support.accounting import expected_records
from tests.support.dashboard import Answer, Connection, Fault, ReceivingDashboard, Request
from tests.support.disk import fill, small_disk
from tests.support.exporter import ROOT, Exporter
from tests.support.forked_agent import KILLED, ForkedAgents
from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

JOBS_A_ROUND = 30
RUNS_A_ROUND = 12
#: The spool's disk, which one of the faults fills.
SPOOL_KILOBYTES = 32_000
#: The time limit for full delivery once all faults are over.
RECOVERY_LIMIT_SECONDS = 120
T = TypeVar("T")

DASHBOARD_FAULTS: dict[str, Fault] = {
    "reset": faults.reset,
    "stored and reset": faults.store_and_reset,
    "hang": faults.hang(),
    "drip": faults.drip(0.1),
    "redirect": faults.answer(302, "", Location="http://127.0.0.1:1/"),
    "500": faults.answer(500, {"detail": "boom"}),
    "502": faults.answer(502, "<html>Bad Gateway</html>"),
    "503": faults.answer(503, "busy", Retry_After="1"),
    "413": faults.answer(413, "too large"),
    "401": faults.answer(401, {"detail": "no"}),
    "login page": faults.answer(200, "<html>log in</html>"),
    "success: false": faults.answer(200, {"success": False}),
    "slow": works_slowly(0.2),
}


class Soak:
    """One lab, one dashboard behind a proxy, one spool, and counts of the faults."""

    def __init__(
        self,
        slurm: Slurm,
        dashboard: ReceivingDashboard,
        agents: ForkedAgents | LongRunningAgent,
        config: Path,
        dice: random.Random,
        *,
        proxy: Nginx,
    ) -> None:
        self.faults: Counter[str] = Counter()
        self.kills = 0
        self.rounds = 0
        self.submitted = 0
        self.slowest = 0.0
        self.forgotten = 0
        self.stale = 0
        self._slurm = slurm
        self._dashboard = dashboard
        self._proxy = proxy
        self._agents = agents
        self._config = config
        self._dice = dice

    def round(self) -> None:
        """Runs jobs, faults and kills; then ends all faults and compares.

        :raises AssertionError: if a job is lost, duplicated, wrong or still queued.
        """
        self.rounds += 1
        self._submit()
        with ExitStack() as mends:
            causes = self._causes()
            for number in sorted(self._dice.sample(range(len(causes)), self._dice.randint(1, 3))):
                mends.callback(causes[number]())
            for _ in range(RUNS_A_ROUND):
                self._run()
        wait_for(lambda: self.unsettled() == "", "the end of every job", limit_seconds=300, pause_seconds=1)
        self._recover()

    def _submit(self) -> None:
        tasks = self._dice.randint(2, JOBS_A_ROUND // 2)
        # Names distinguish jobs with the same ID: a killed slurmctld runs an array again under IDs that it forgot.
        name = f"--job-name={self.rounds}"
        self._slurm.sbatch(name, f"--array=1-{tasks}", command=self._dice.choice(["true", "false", "sleep 1"]))
        for number in range(JOBS_A_ROUND - tasks):
            self._slurm.sbatch(f"{name}.{number}", command=self._dice.choice(["true", "exit 3", "sleep 1"]))
        self.submitted += JOBS_A_ROUND

    def _run(self) -> None:
        """One run, killed more often than not."""
        command = self._dice.choice([("flush",), ("flush",), ("flush",), ("reconcile", f"--start-date={_today()}")])
        how = self._dice.choice(["step", "moment", "let be"])
        if how == "step":
            status = self._agents.run(*command, kill_at=self._dice.randint(1, 400))
        elif how == "moment":
            status = self._agents.run(*command, kill_after=self._dice.uniform(0.001, 1.0))
        else:
            status = self._agents.run(*command)
        self.kills += status == KILLED

    def unsettled(self) -> str:
        """What has not reached slurmdbd yet; empty if nothing is missing."""
        self._help_slurmdbd()
        squeue, sdiag = self._slurm.run("squeue", "-h", "-a"), self._slurm.run("sdiag")
        if squeue and self.faults["slurmctld killed"] and int(time.monotonic()) % 20 == 0:
            self._help_slurmctld()
        if squeue or "DBD Agent queue size: 0\n" not in sdiag:
            return squeue or sdiag
        if self.faults["slurmctld killed"]:
            self._slurm.sacctmgr("show", "runawayjobs")  # and fixes them
        return str(self._slurm.sql(f"select * from {self._slurm.cluster}_job_table where time_end = 0") or "")

    def _help_slurmctld(self) -> None:
        """What an admin does after slurmctld was killed, if jobs or nodes do not recover by themselves."""
        self._slurm.run("scontrol", "reconfigure")  # the nodes register, and report the jobs that they do not run
        for node in self._slurm.run("sinfo", "-h", "-N", "-t", "down,drain", "-o", "%N").split():
            self._slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
        held = self._slurm.run("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r").splitlines()
        for job in (line.split()[0] for line in held if "held" in line):  # slurmctld was dead at their launch
            self._slurm.run("scontrol", "release", job)

    def _help_slurmdbd(self) -> None:
        """What an admin does after slurmdbd has ended by itself.

        That of 22.05 does if MariaDB is killed during a query: "fatal: You haven't inited this storage yet." Until it
        runs again, slurmctld keeps its reports.
        """
        if not self._slurm.daemons.alive("slurmdbd"):
            self.faults["slurmdbd ended with MariaDB"] += 1
            self._slurm.start("slurmdbd")

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        names = ("slurmctld", "slurmdbd", "mariadbd")
        return "\n".join(f"the end of {name}'s log:\n{self._slurm.daemons.log(name)[-2000:]}" for name in names)

    def _recover(self) -> None:
        """Flushes until the dashboard equals the accounting, with one reconcile for what killed hooks lost."""
        self._dashboard.manners = faults.behave
        started = time.monotonic()
        reconciled = False
        while True:
            expected, shown, behind = self._compare()
            if shown == expected and (not behind or (reconciled and self._is_stale(behind))):
                break
            assert time.monotonic() - started < RECOVERY_LIMIT_SECONDS, self._difference(expected, shown)
            self._agents.run("queue", "retry")
            self._agents.run("flush")
            if not reconciled and (not behind or time.monotonic() - started > RECOVERY_LIMIT_SECONDS / 4):
                reconciled = True
                self._agents.run("reconcile", f"--start-date={_today()}")
        self.slowest = max(self.slowest, time.monotonic() - started)
        if behind:
            self.stale += len(behind)
            self._agents.run("queue", "drop", *behind)
        self.forgotten = self.submitted - len(expected_records(self._slurm))
        assert not self.forgotten or self.faults["slurmctld killed"], f"slurmdbd does not know of {self.forgotten} jobs"

    def finish(self) -> None:
        """Records that are still incomplete after a day must be on the dashboard, too.

        :raises AssertionError: where it is not.
        """
        for command in (("queue", "retry"), ("flush",), ("reconcile",)):
            argv = [sys.executable, "-m", "tests.support.other_clock", str(HALF_WRITTEN_SECONDS)]
            subprocess.run([*argv, "--config", str(self._config), *command], check=True, cwd=ROOT, env=self._slurm.env)
        expected, shown = expected_records(self._slurm), _without(self._overwritten(), self._dashboard.records)
        # How sacct fills the gaps in an incomplete row is not compared.
        for job in self.half_written() & expected.keys() & shown.keys():
            del expected[job], shown[job]
        assert shown == expected, self._difference(expected, shown)

    def _compare(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
        """What the dashboard should show, what it shows, and what waits; without incomplete records."""
        late = self.half_written()
        expected = _without(late, expected_records(self._slurm))  # some rows are filled in seconds after their end
        shown = _without(late | self._overwritten(), self._dashboard.records)
        return expected, shown, _without(late, self._waiting())

    def _is_stale(self, behind: Mapping[str, str]) -> bool:
        """Whether all queued jobs are ones whose end a killed slurmctld never reported to slurmdbd.

        They would wait for `retry_max_age_days`; the dashboard has what the accounting knows of these jobs.
        """
        reasons = {"record not up to date yet", "still running in the accounting", "no record yet"}
        return bool(self.faults["slurmctld killed"]) and set(behind.values()) <= reasons

    def half_written(self) -> set[str]:
        """Jobs of which a killed slurmctld reported only the end: the exporter waits a day for more."""
        since = int(time.time()) - HALF_WRITTEN_SECONDS - 5
        table = f"{self._slurm.cluster}_job_table"
        rows = self._slurm.sql(f"select id_job from {table} where `partition` = '' and time_end > {since}")
        return {row["id_job"] for row in rows}

    def _overwritten(self) -> set[str]:
        """Raw IDs that tasks use now: an earlier job with the same raw ID and Submit has lost its row to the task."""
        if not self.faults["slurmctld killed"]:
            return set()
        table = f"{self._slurm.cluster}_job_table"
        grouped = "group by id_job having count(*) = 1 and max(id_array_job) not in (0, id_job)"
        return {row["id_job"] for row in self._slurm.sql(f"select id_job from {table} {grouped}")}

    def _waiting(self) -> dict[str, str]:
        """What is not delivered yet, and why."""
        ledger = view_ledger(self._slurm.spool / "ledger.db")
        behind = {item.entry.asked: item.reason for item in ledger.waiting.newest()}
        behind.update({record.shown_id: record.reason for record in ledger.rejected.newest()})
        ledger.close()
        files = (path.name for path in self._slurm.spool.glob("queue*") if path.suffix != ".lock")
        return {**behind, **dict.fromkeys(files, "in the spool")}

    def _difference(self, expected: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
        lost, alien = sorted(expected.keys() - shown.keys()), sorted(shown.keys() - expected.keys())
        both = expected.keys() & shown.keys()
        wrong = {job: (expected[job], shown[job]) for job in both if expected[job] != shown[job]}
        rows = [self._rows_of(job) for job in [*lost, *alien, *wrong][:3]]
        return f"lost {lost}, alien {alien}, wrong {wrong}, behind {self._waiting()}, rows of the first {rows}"

    def _rows_of(self, job: str) -> object:
        array, _, task = job.partition("_")
        where = f"id_array_job = {array} and id_array_task = {task}" if task else f"id_job = {job}"
        return self._slurm.sql(f"select * from {self._slurm.cluster}_job_table where {where}")

    # Faults: each breaks something, and returns what fixes it.

    def _causes(self) -> list[Callable[[], Callable[[], object]]]:
        """slurmctld comes first, so that it is fixed last: it does not start while slurmdbd is frozen."""
        killed = [partial(self._kill, name) for name in ("slurmdbd", "mariadbd")]
        frozen = [partial(self._freeze, name) for name in ("slurmdbd", "mariadbd")]
        ours = [self._spoil_dashboard, self._spoil_dashboard, self._kill_proxy, self._hold_lock, self._kill_hooks]
        ours += [self._fill_disk, self._change_config, self._break_config]
        if isinstance(self._agents, LongRunningAgent):
            ours.append(self._spoil_health_file)
        worst = [] if os.environ.get("SOAK_SPARE") == "slurmctld" else [partial(self._kill, "slurmctld")]
        return [*worst, self._restart_controller, *killed, *frozen, *ours]

    def _kill(self, daemon: str) -> Callable[[], object]:
        if not self._slurm.daemons.alive(daemon):
            return lambda: None
        time.sleep(self._dice.uniform(0, 2))
        self.faults[f"{daemon} killed"] += 1
        self._slurm.daemons.kill(daemon)
        return lambda: self._slurm.start(daemon)

    def _restart_controller(self) -> Callable[[], object]:
        """Stops it with SIGTERM, so that it forgets nothing."""
        if not self._slurm.daemons.alive("slurmctld"):
            return lambda: None
        self.faults["slurmctld restarted"] += 1
        self._slurm.daemons.stop("slurmctld")
        return lambda: self._slurm.start("slurmctld")

    def _freeze(self, daemon: str) -> Callable[[], object]:
        if not self._slurm.daemons.alive(daemon):
            return lambda: None
        self.faults[f"{daemon} frozen"] += 1
        self._slurm.daemons.freeze(daemon)
        return lambda: self._slurm.daemons.thaw(daemon) if self._slurm.daemons.alive(daemon) else None

    def _spoil_dashboard(self) -> Callable[[], object]:
        name = self._dice.choice(sorted(DASHBOARD_FAULTS))
        self.faults[f"dashboard: {name}"] += 1
        spoilt = DASHBOARD_FAULTS[name]

        def sometimes(request: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
            fault = spoilt if self._dice.random() < 0.7 else faults.behave
            fault(request, connection, serve)

        self._dashboard.manners = sometimes
        return lambda: None

    def _kill_proxy(self) -> Callable[[], object]:
        self.faults["nginx killed"] += 1
        self._proxy.kill()
        return self._proxy.start_again

    def _hold_lock(self) -> Callable[[], object]:
        self.faults["lock held by a stopped process"] += 1
        argv = ["flock", str(self._slurm.spool / "queue.lock"), "sleep", "1000"]
        holder = subprocess.Popen(argv, start_new_session=True)
        time.sleep(0.1)
        os.killpg(holder.pid, signal.SIGSTOP)

        def repair() -> None:
            os.killpg(holder.pid, signal.SIGKILL)
            holder.wait()

        return repair

    def _kill_hooks(self) -> Callable[[], object]:
        """Kills hooks of jobs that never existed: the files that they leave must be harmless."""
        for _ in range(10):
            env = {"PATH": os.environ["PATH"], "JOBID": "1", "SLURM_USAGE_HISTORY_SPOOL": str(self._slurm.spool)}
            with subprocess.Popen(["sh", str(Path(__file__).parents[2] / "hooks" / "jobcomp.sh")], env=env) as hook:
                time.sleep(self._dice.uniform(0, 0.01))
                hook.kill()
            self.faults["hook killed"] += 1
        return lambda: None

    def _fill_disk(self) -> Callable[[], object]:
        """Fills the spool's disk: a hook cannot queue its job then, and reconcile has to find it."""
        self.faults["full disk"] += 1
        return fill(self._slurm.spool, leave_kilobytes=self._dice.choice([0, 0, 8, 64])).unlink

    def _break_config(self) -> Callable[[], object]:
        """Breaks the configuration, as an editor does for a moment, or a mistake for longer."""
        self.faults["configuration broken"] += 1
        good = self._config.read_text()
        self._config.write_text(good[: self._dice.randrange(len(good))])
        return lambda: self._config.write_text(good)

    def _change_config(self) -> Callable[[], object]:
        """Changes it permanently, so that later rounds run with it."""
        self.faults["configuration changed"] += 1
        settings = json.loads(self._config.read_text())
        settings["batch_size"] = self._dice.choice([1, 3, 10, 50])
        settings["timeout"] = self._dice.choice([2, 3])
        self._config.write_text(json.dumps(settings))
        return lambda: None

    def _spoil_health_file(self) -> Callable[[], object]:
        assert isinstance(self._agents, LongRunningAgent)
        self.faults["health file unwritable"] += 1
        return self._agents.spoil_health_file()


def _without(late: set[str], jobs: Mapping[str, T]) -> dict[str, T]:
    """Removes some raw IDs, including that of the last task of an array."""
    return {job: value for job, value in jobs.items() if job not in late and job.partition("_")[0] not in late}


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.localtime(time.time() - 3600))


def main() -> int:
    """Soaks, and prints jobs in, jobs out, kills, faults and the slowest recovery."""
    minutes = float(os.environ.get("SOAK_MINUTES", "5"))
    seed = int(os.environ.get("SOAK_SEED", str(int(time.time()))))
    print(f"soaking for {minutes:g} minutes, seed {seed}", flush=True)
    deadline = time.monotonic() + minutes * 60
    with ExitStack() as stack:
        dashboard = stack.enter_context(ReceivingDashboard())
        proxy = stack.enter_context(Nginx(dashboard.url, "client_max_body_size 2k; proxy_read_timeout 1s;"))
        slurm = stack.enter_context(Slurm(jobcomp=True, nodes=2))
        stack.enter_context(small_disk(slurm.spool, SPOOL_KILOBYTES))
        made = stack.enter_context(TemporaryDirectory())
        settings = {"api_url": proxy.url, "timeout": 2, "sacct_timeout": 3, "cluster_name": "lab", "batch_size": 10}
        exporter = Exporter(Path(made), slurm.env, **settings)
        dice = random.Random(seed)
        agents = make_agents(exporter, slurm, dice)
        soak = Soak(slurm, dashboard, agents, exporter.config, dice, proxy=proxy)
        try:
            with agents:
                while time.monotonic() < deadline:
                    soak.round()
                    print(_tell(soak, slurm, dashboard), flush=True)
            if isinstance(agents, LongRunningAgent):
                print(agents.tell(), flush=True)
            soak.finish()  # after `run` has ended: to a clock that is a day ahead it would hold the lock for a day
            print(f"a day later: {len(dashboard.records)} jobs of {len(expected_records(slurm))}", flush=True)
        except TimeoutError as error:
            print(f"{error}: {soak.unsettled()}\nafter {_tell(soak, slurm, dashboard)}\n{soak.logs()}", flush=True)
            return 2
        except AssertionError as error:
            print(f"LOST: {error}\nafter {_tell(soak, slurm, dashboard)}\n{agents.log()[-5000:]}", flush=True)
            return 1
    return 0


def make_agents(exporter: Exporter, slurm: Slurm, dice: random.Random) -> ForkedAgents | LongRunningAgent:
    """What delivers: single runs, or one long-running process."""
    if os.environ.get("SOAK_MODE") == "run":
        return LongRunningAgent(exporter.config, slurm.env, dice)
    return ForkedAgents(exporter.config, slurm.env)


def _tell(soak: Soak, slurm: Slurm, dashboard: ReceivingDashboard) -> str:
    late = soak.half_written()
    known = ", ".join(f"{name} {count}" for name, count in sorted(soak.faults.items()))
    killed = f"half written {len(late)}, forgotten or given a second job's ID {soak.forgotten}, stale {soak.stale}"
    return (
        f"rounds {soak.rounds}, jobs in {len(_without(late, expected_records(slurm)))}, "
        f"jobs out {len(_without(late, dashboard.records))}, kills {soak.kills}, faults {sum(soak.faults.values())}, "
        f"slowest recovery {soak.slowest:.1f} s ({known}); by kills of slurmctld: {killed}"
    )


if __name__ == "__main__":
    sys.exit(main())
