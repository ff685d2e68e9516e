"""A site to measure: a real slurmdbd with filled accounting, agents with their own spools, and a receiver."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from agent.errors import Busy
from agent.spool.lock import QUEUE_LOCK, locked
from tests.support.slurm import Slurm

from . import workload
from .measure import Outcome, expect, run
from .receiver import API_KEY, Receiver, receiving

MONTH, YEAR = "month", "year"  # the clusters
CHECKOUT = Path(__file__).parents[2]
#: As for a real slurmdbd's MariaDB; the tests' lab needs less.
DATABASE_SETTINGS = "set global innodb_buffer_pool_size = 1 << 30; set global innodb_log_file_size = 1 << 30"


class Job(NamedTuple):
    """A finished job, as the hook would queue it."""

    job_id: int
    submit: int
    end: int

    @property
    def line(self) -> str:
        return f"{self.job_id} {self.submit} {self.end} -\n"


class Agent:
    """The exporter as it runs for one cluster, with a spool of its own if it is not given one."""

    def __init__(
        self, folder: Path, env: dict[str, str], cluster: str, api_url: str, *, spool: Path | None = None
    ) -> None:
        self.folder, self.env = folder, env
        self.spool = spool or folder / "spool"
        self.spool.mkdir(mode=0o750, exist_ok=True)
        self._config = folder / "config.json"
        self._config.write_text(
            json.dumps({"api_url": api_url, "api_key": API_KEY, "cluster_name": cluster, "spool_dir": str(self.spool)})
        )
        self._config.chmod(0o600)

    def argv(self, *arguments: str) -> list[str]:
        """Its command line."""
        return [sys.executable, "-m", "agent", "--config", str(self._config), *arguments]

    def run(self, *arguments: str) -> Outcome:
        """Runs it to its end."""
        return run(self.argv(*arguments), self.env, cwd=CHECKOUT)

    def queue(self, jobs: Sequence[Job]) -> None:
        """Queues jobs, as one call of the hook for each would."""
        with locked(self.spool / QUEUE_LOCK, 10, Busy("a hook is stuck")), (self.spool / "queue").open("a") as queue:
            queue.writelines(job.line for job in jobs)


class Site:
    """The accounting of several clusters, in one slurmdbd.

    :param folder: of the lab.
    :param env: of Slurm's commands there.
    """

    def __init__(self, folder: Path, env: dict[str, str], receiver: Receiver, scale: float) -> None:
        self.folder, self.receiver = folder, receiver
        self._env = env
        self._scale = scale

    def scaled(self, count: int) -> int:
        """A number of jobs, scaled to this site."""
        return int(count * self._scale)

    def env(self, cluster: str) -> dict[str, str]:
        """The environment in which Slurm's commands speak for a cluster."""
        conf = self.folder / f"{cluster}-conf" / "slurm.conf"
        if not conf.exists():
            conf.parent.mkdir()
            lines = Path(self._env["SLURM_CONF"]).read_text().splitlines()
            conf.write_text("\n".join(f"ClusterName={cluster}" if "ClusterName=" in line else line for line in lines))
        env = {**self._env, "SLURM_CONF": str(conf)}
        del env["SLURM_USAGE_HISTORY_SPOOL"]  # each agent has its own
        return env

    @contextmanager
    def agent(self, cluster: str) -> Iterator[Agent]:
        """An exporter that has never run before."""
        with tempfile.TemporaryDirectory(prefix="bench-agent-") as folder:
            yield Agent(Path(folder), self.env(cluster), cluster, self.receiver.url)

    def sql(self, statements: str) -> list[dict[str, str]]:
        """Runs SQL on slurmdbd's database."""
        return _sql(self.folder, statements)

    def ended(self, cluster: str, count: int, *, in_arrays: bool = True) -> list[Job]:
        """The jobs that ended last, newest first; only those that ran once.

        :param in_arrays: whether to include tasks of arrays, whose JobID is not their raw ID.
        """
        rows = self.sql(
            f"select id_job, time_submit, time_end from {cluster}_job_table where time_end > 0 and state between 3 and"
            f" 11 and id_job % 100 != 50 and {'id_array_job != id_job' if in_arrays else 'id_array_job = 0'}"
            f" order by time_end desc limit {count}"
        )
        expect(len(rows), count, f"jobs that have ended on {cluster}")
        return [Job(*map(int, row.values())) for row in rows]


@contextmanager
def open_site(scale: float, kept: Path | None, clusters: Sequence[str]) -> Iterator[Site]:
    """A site with the workloads :func:`~tests.bench.workload.month` and :func:`~tests.bench.workload.year`.

    :param scale: of the workloads; 1 for the real ones.
    :param clusters: those of them that are wanted: to fill the year takes ten minutes.
    :param kept: the file in which :func:`keep_site` has recorded a running site.
    """
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        if kept:
            known = json.loads(kept.read_text())
            yield Site(Path(known["folder"]), known["env"], receiver, known["scale"])
            return
        slurm = stack.enter_context(Slurm(nodes=1))
        _fill(slurm, scale, clusters)
        yield Site(slurm.folder, slurm.env, receiver, scale)


def keep_site(scale: float, kept: Path) -> None:
    """Creates a site, records where it is, and keeps it until interrupted, to work on a single benchmark."""
    with Slurm(nodes=1) as slurm:
        _fill(slurm, scale, (MONTH, YEAR))
        kept.write_text(json.dumps({"folder": str(slurm.folder), "env": slurm.env, "scale": scale}))
        print("ready", flush=True)
        try:
            time.sleep(10**8)
        finally:
            kept.unlink()


def _fill(slurm: Slurm, scale: float, clusters: Sequence[str]) -> None:
    now = int(time.time())
    _sql(slurm.folder, DATABASE_SETTINGS)
    workloads = {MONTH: workload.month, YEAR: workload.year}
    for cluster in clusters:
        work = workloads[cluster](now, scale)
        started = time.monotonic()
        rows = workload.fill(work, lambda statements: _sql(slurm.folder, statements), slurm.sacctmgr)
        print(f"{work.cluster}: {rows} rows in {time.monotonic() - started:.0f} s", flush=True)


def _sql(folder: Path, statements: str) -> list[dict[str, str]]:
    argv = ["mariadb", "--no-defaults", f"--socket={folder}/mysql.sock", "--batch", "slurm_acct_db"]
    done = subprocess.run(argv, input=statements, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    header, *rows = [line.split("\t") for line in done.stdout.split("\n") if line] or [[]]
    return [dict(zip(header, row)) for row in rows]
