"""A real engine instead of the dashboard: Logprep from PyPI, with jobs of a real Slurm.

Run by `make test-packages`. Of the engines that docs/receivers.md names, it is the one that can be installed here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.packaging.ansible import install_tools
from tests.support.exporter import Exporter
from tests.support.slurm import Slurm
from tests.support.waiting import wait_for

SETTINGS = """\
process_count: 1
timeout: 0.1
pipeline: []
input:
  jobs:
    type: http_input
    message_backlog_size: 1000
    collect_meta: false
    uvicorn_config: {{host: 127.0.0.1, port: {port}}}
    endpoints: {{/slurm-jobs: json}}
output:
  file: {{type: jsonl_output, output_file: {output}}}
"""

pytestmark = pytest.mark.timeout(600)


class Engine:
    """Logprep, from HTTP to a file."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.output = folder / "out.jsonl"
        (folder / "prometheus").mkdir()
        self._env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder / "prometheus")}
        self._log = folder / "engine.log"
        self._argv = [str(install_tools() / "logprep"), "run", str(folder / "engine.yml")]
        (folder / "engine.yml").write_text(SETTINGS.format(port=self.port, output=self.output))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._argv, env=self._env, stdout=log, stderr=log)
        wait_for(self._listens, "the engine", limit_seconds=90)

    def stop(self) -> None:
        """Ends it."""
        if self._process:
            self._process.terminate()
            self._process.wait(60)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def jobs(self) -> list[str]:
        """The JobIDs that arrived, in order, possibly with repeats."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        return [job["JobID"] for line in lines for job in json.loads(line)["jobs"]]


def test_jobs_wait_until_the_engine_has_answered(tmp_path: Path) -> None:
    """Each job arrives once; while the engine is down, jobs stay queued."""
    engine = Engine(tmp_path)
    settings = {"receiver": "any", "ingest_path": "/slurm-jobs", "ingest_header": "Authorization: Bearer {api_key}"}
    with Slurm(jobcomp=True) as slurm:
        exporter = Exporter(
            tmp_path, slurm.env, api_url=f"http://127.0.0.1:{engine.port}", cluster_name="lab", timeout=5, **settings
        )
        engine.start()
        try:
            first = [str(slurm.sbatch("--wait", command="true")) for _ in range(3)]
            wait_for(lambda: _flush(exporter) == 0, "a flush that delivers all", limit_seconds=90)
            wait_for(lambda: sorted(first) == sorted(engine.jobs()), "three jobs", limit_seconds=30)
            engine.stop()
            later = str(slurm.sbatch("--wait", command="true"))
            assert _flush(exporter) > 0
            engine.start()
            exporter.run("queue", "retry")
            wait_for(lambda: _flush(exporter) == 0, "a flush that delivers all", limit_seconds=90)
            wait_for(lambda: sorted([*first, later]) == sorted(engine.jobs()), "the fourth job", limit_seconds=30)
        finally:
            engine.stop()


def _flush(exporter: Exporter) -> int:
    """Flushes, whatever the result, and returns the number of jobs that remain."""
    subprocess.run(exporter.argv("flush"), check=False, cwd=Path(__file__).parents[2], env=exporter._env)
    return exporter.backlog()
