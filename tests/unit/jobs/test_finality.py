"""When a job is final; test_queue_verdict.py adds slurmctld's answer."""

from __future__ import annotations

import pytest

from agent.jobs.finality import Stage, stage
from tests.support.rows import NOON, make_run


@pytest.mark.parametrize(
    ("state", "reported"),
    [
        ("COMPLETED", Stage.FINAL),
        ("VAPORIZED", Stage.FINAL),
        ("NODE_FAIL", Stage.IN_DOUBT),
        ("PREEMPTED", Stage.IN_DOUBT),
        ("REQUEUED", Stage.CONTINUES),
        ("RESIZING", Stage.CONTINUES),
        ("REVOKED", Stage.ELSEWHERE),
        ("RUNNING", Stage.LIVE),
    ],
)
def test_stage(state: str, reported: Stage) -> None:
    """A job is final when its newest row has ended and the job does not continue in another, here or elsewhere."""
    assert reported is stage([make_run(State=state)], NOON + 4000)
