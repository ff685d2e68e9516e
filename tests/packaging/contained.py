"""The exporter as a sidecar, in real containers: podman, without systemd, cron and a network.

Run by `make test-packages`. The base image is a folder of Debian 12 with its Slurm, as registries are out of reach.
It contains no slurmdbd: the tests show only that hook, spool, process and signals fit together.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Iterator

import pytest

from tests.install.installation import CHECKOUT, NAME
from tests.install.machine import build_base
from tests.packaging.ansible import install_tools
from tests.packaging.building import build_zipapp
from tests.support.tools import need
from tests.support.waiting import wait_for

SPOOL = f"/var/spool/{NAME}"
HOOK = "/opt/slurm-usage-history-exporter/jobcomp.sh"
#: Inside another container the limits can't be raised.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=500:500", "--network=none")

pytestmark = pytest.mark.timeout(600)


class Engine:
    """podman with its own storage."""

    def __init__(self, folder: Path) -> None:
        self._podman = ["podman", "--root", str(folder), "--cgroup-manager=cgroupfs", "--runtime=runc"]

    def __call__(self, *arguments: str, expect: int | None = 0) -> str:
        done = subprocess.run([*self._podman, *arguments], check=False, capture_output=True, text=True)
        assert expect in {None, done.returncode}, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    need("podman")
    need("runc")
    folder = Path(tempfile.mkdtemp(prefix="podman-"))
    engine = Engine(folder)
    try:
        base = folder / "base.tar"
        subprocess.run(["tar", "-C", str(build_base("bookworm")), "-cf", str(base), "."], check=True)
        engine("import", str(base), "localhost/slurm")
        context = folder / "context"
        shutil.copytree(CHECKOUT / "hooks", context / "hooks")
        build_zipapp(context / "dist")
        recipe = str(CHECKOUT / "etc/container/Containerfile")
        # podman's sandbox for build steps requires cgroups, which a nested container lacks.
        options = ["--isolation=chroot", "--build-arg=BASE=localhost/slurm", "--tag=exporter"]
        engine("build", *options, "--file", recipe, str(context))
        yield engine
    finally:
        engine("system", "reset", "--force", expect=None)
        subprocess.run(["rm", "-rf", str(folder)], check=False)


@pytest.fixture
def volumes(engine: Engine, tmp_path: Path) -> list[str]:
    """The folders that both containers share: spool, configuration and hook."""
    uid, gid = (int(engine("run", "--rm", *LIMITS, "--entrypoint=id", "exporter", word)) for word in ("-u", "-g"))
    spool, etc = tmp_path / "spool", tmp_path / "etc"
    for folder in (spool, etc):
        folder.mkdir(mode=0o750)
    config = etc / "config.toml"
    config.write_text('api_url = "http://127.0.0.1:1"\napi_key = "key"\ncluster_name = "contained"\n')
    config.chmod(0o600)
    for path in (spool, etc, config):
        os.chown(path, uid, gid)
    hook = CHECKOUT / "hooks/jobcomp.sh"
    mounts = [f"{spool}:{SPOOL}", f"{etc}:/etc/{NAME}:ro", f"{hook}:{HOOK}:ro"]
    return [f"--volume={mount}" for mount in mounts]


@pytest.fixture
def sidecar(engine: Engine, volumes: list[str]) -> Iterator[str]:
    """The exporter, run as in the manifest except for the interval."""
    options = ["--detach", "--read-only", "--tmpfs=/tmp", "--cap-drop=all", *LIMITS, *volumes]
    name = engine("run", *options, "exporter", "run", "--every", "1s", "--health-file", "/tmp/health").strip()
    name = name.splitlines()[-1]
    wait_for(lambda: "Flush: " in engine("logs", name), "the first flush", limit_seconds=60)
    yield name
    engine("rm", "--force", name)


def test_the_manifest_is_valid_for_kubernetes() -> None:
    """The manifest is valid under Kubernetes' schema."""
    validate = install_tools() / "kubernetes-validate"
    subprocess.run([str(validate), "--strict", str(CHECKOUT / "etc/container/kubernetes.yaml")], check=True)


def test_a_job_ends_in_one_container_and_is_processed_in_the_other(
    engine: Engine, sidecar: str, volumes: list[str]
) -> None:
    """A mounted hook queues jobs in a shared volume, and the exporter reads them."""
    options = ["--rm", *LIMITS, *volumes, "--env=JOBID=4711", f"--entrypoint={HOOK}"]
    engine("run", *options, "exporter")
    status = ("exec", sidecar, f"/usr/local/bin/{NAME}", "status", "--json")

    def waiting() -> int:
        return int(json.loads(engine(*status))["backlog"]["waiting"])

    wait_for(lambda: waiting() == 1, "the job in the ledger", limit_seconds=60)


def test_each_run_is_a_line_and_renews_the_health_file(engine: Engine, sidecar: str) -> None:
    """The health file is recent, as a probe requires."""
    before = engine("exec", sidecar, "stat", "-c", "%Y", "/tmp/health")
    wait_for(lambda: engine("exec", sidecar, "stat", "-c", "%Y", "/tmp/health") != before, "another run")
    probe = 'test -n "$(find /tmp/health -mmin -20)"'
    engine("exec", sidecar, "sh", "-c", probe)
    engine("exec", sidecar, "sh", "-c", probe.replace("-mmin -20", "-mmin +20"), expect=1)
    assert engine("exec", sidecar, "cat", "/tmp/health").startswith("Flush: ")


def test_it_stops_at_sigterm(engine: Engine, sidecar: str) -> None:
    """As process 1, it ends at SIGTERM, long before it would be killed."""
    began = time.monotonic()
    engine("stop", "--time", "60", sidecar)
    assert time.monotonic() - began < 20
    assert "0" == engine("inspect", "--format", "{{.State.ExitCode}}", sidecar).strip()
    assert "stopped; all undelivered jobs are kept" in engine("logs", sidecar)
