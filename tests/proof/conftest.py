"""The site of the proof: a real Slurm whose accounting database is filled with random histories.

``PROOF_SEEDS=40 PROOF_JOBS=5000`` in the environment makes it a long one.
"""

from __future__ import annotations

import os
import time
from typing import Iterator

import pytest

from tests.proof.jobtable import prepare_accounting
from tests.support.loopback import own_loopback
from tests.support.slurm import Slurm
from tests.support.tools import need_to_run

SEEDS = int(os.environ.get("PROOF_SEEDS") or 2)
JOBS = int(os.environ.get("PROOF_JOBS") or 400)
ZONES = ("Europe/Berlin", "America/St_Johns", "UTC")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(SEEDS))


@pytest.fixture
def jobs() -> int:
    """The minimum number of jobs of a seed."""
    return JOBS


@pytest.fixture(scope="package")
def slurm() -> Iterator[Slurm]:
    """Its accounting has some users; each test fills the job table.

    The exporter runs in the time zone of another host, for which it needs a mount namespace. It asks sacct thousands of
    times, and that is quicker in a network of its own. A container without CAP_SYS_ADMIN has neither.
    """
    need_to_run(["unshare", "--mount", "--net", "true"], "the kernel gives no namespaces here")
    with own_loopback(), Slurm(nodes=1) as lab:
        prepare_accounting(lab)
        yield lab


@pytest.fixture
def zone(seed: int) -> Iterator[str]:
    """The host's time zone, also for this process: the records computed with SQL are in its wall clock."""
    name = ZONES[seed % len(ZONES)]
    os.environ["TZ"] = name
    time.tzset()
    yield name
    del os.environ["TZ"]
    time.tzset()
