"""Decides what to do with a queued job, given sacct's rows: send it, wait, or dismiss the queue entry. Pure.

The hook is called before slurmctld has queued the accounting record, and also for requeues and resizes, which do not
end the job. So a queue entry only says that something ended at that time. The rows say what.
"""

from __future__ import annotations

import enum
from typing import Container, Iterable, NamedTuple, Sequence

from agent.jobs.entry import QueueEntry
from agent.jobs.finality import Stage, is_for_slurmctld, stage, stage_by_slurmctld
from agent.jobs.job import own_runs
from agent.jobs.run import Run

#: How far the hook's END and the End in the accounting may differ.
END_SLACK_SECONDS = 1


class Fate(enum.Enum):
    """What becomes of a queue entry."""

    SEND = "send"
    WAIT = "wait"
    ASK_SLURMCTLD = "ask slurmctld"
    DISMISS = "dismiss"


class Verdict(NamedTuple):
    """The fate of an entry, the reason, and the job's runs unless its record is incomplete."""

    fate: Fate
    reason: str
    runs: Sequence[Run] = ()


_FATES = {
    Stage.FINAL: Fate.SEND,
    Stage.IN_DOUBT: Fate.ASK_SLURMCTLD,
    Stage.HALF_WRITTEN: Fate.WAIT,
    Stage.ELSEWHERE: Fate.DISMISS,
    Stage.LIVE: Fate.DISMISS,  # the entry stands for a requeue; the job's next end calls the hook again
    Stage.CONTINUES: Fate.DISMISS,
}


def judge_entry(entry: QueueEntry, rows: Iterable[Run], now: float) -> Verdict:
    """Decides about a queued job by its rows.

    :param rows: all rows of this JobID, including those of its earlier owners.
    :param now: epoch seconds.
    """
    runs = own_runs(rows)
    if not runs:
        return Verdict(Fate.WAIT, "no record yet")
    if not _is_up_to_date(entry, runs):
        return Verdict(Fate.WAIT, "record not up to date yet" if runs[-1].ended else "still running in the accounting")
    reached = stage(runs, now)
    if reached is Stage.IN_DOUBT and not is_for_slurmctld(runs, now):
        reached = Stage.FINAL
    if reached in {Stage.LIVE, Stage.CONTINUES} and not entry.submit and entry.end is None:
        return Verdict(Fate.WAIT, "requeued, or still running in the accounting")
    return Verdict(_FATES[reached], reached.value, runs)


def judge_doubtful(verdict: Verdict, now: float, alive: Container[int] | None) -> Verdict:
    """Decides about a job whose rows do not show whether it continues.

    :param alive: see :func:`agent.jobs.finality.stage_by_slurmctld`.
    """
    if stage_by_slurmctld(verdict.runs, now, alive) is Stage.FINAL:
        return verdict._replace(fate=Fate.SEND, reason=Stage.FINAL.value)
    return verdict._replace(fate=Fate.WAIT)


def _is_up_to_date(entry: QueueEntry, runs: Iterable[Run]) -> bool:
    """Whether the rows include the end that the entry stands for. The newest row may be a later run."""
    ended = [run for run in runs if run.ended]
    if entry.submit is not None:
        ended = [run for run in ended if run.submit >= entry.submit]
    if entry.end is not None:
        ended = [run for run in ended if run.end is not None and run.end >= entry.end - END_SLACK_SECONDS]
    return bool(ended)
