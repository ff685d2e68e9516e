"""What sacct's rows say about a queued job: send it, wait for its record, or let it go. Pure.

The hook is called before slurmctld has queued the accounting record, and also for requeues and resizes, which are no
end. So a queue entry only says: something ended here, at this time. The rows decide what.
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
    LET_GO = "let go"


class Verdict(NamedTuple):
    """The fate of an entry, why, and the job's runs where it is to be sent or asked for."""

    fate: Fate
    reason: str
    runs: Sequence[Run] = ()


_FATES = {
    Stage.FINAL: Fate.SEND,
    Stage.IN_DOUBT: Fate.ASK_SLURMCTLD,
    Stage.HALF_WRITTEN: Fate.WAIT,
    Stage.ELSEWHERE: Fate.LET_GO,
    Stage.LIVE: Fate.LET_GO,  # the end that the entry tells of was a requeue's; the next one calls the hook again
    Stage.GOES_ON: Fate.LET_GO,
}


def judge_entry(entry: QueueEntry, rows: Iterable[Run], now: float) -> Verdict:
    """Decides on a queued job.

    :param rows: all rows of this JobID, those of earlier owners of it included.
    :param now: epoch seconds.
    """
    runs = own_runs(rows)
    if not runs:
        return Verdict(Fate.WAIT, "no record yet")
    if not _is_told(entry, runs):
        return Verdict(Fate.WAIT, "record not up to date yet" if runs[-1].ended else "still running in the accounting")
    told = stage(runs, now)
    if told is Stage.IN_DOUBT and not is_for_slurmctld(runs, now):
        told = Stage.FINAL
    fate = _FATES[told]
    if told in {Stage.LIVE, Stage.GOES_ON} and not entry.submit and entry.end is None:
        return Verdict(Fate.WAIT, "requeued, or still running in the accounting")
    return Verdict(fate, told.value, runs)


def judge_doubtful(verdict: Verdict, now: float, alive: Container[int] | None) -> Verdict:
    """Decides where the rows leave it open whether the job goes on.

    :param alive: see :func:`agent.jobs.finality.stage_by_slurmctld`.
    """
    if stage_by_slurmctld(verdict.runs, now, alive) is Stage.FINAL:
        return verdict._replace(fate=Fate.SEND, reason=Stage.FINAL.value)
    return verdict._replace(fate=Fate.WAIT)


def _is_told(entry: QueueEntry, runs: Iterable[Run]) -> bool:
    """Whether the end that the entry speaks of is among the rows. The newest one may be a later run's."""
    ended = [run for run in runs if run.ended]
    if entry.submit is not None:
        ended = [run for run in ended if run.submit >= entry.submit]
    if entry.end is not None:
        ended = [run for run in ended if run.end is not None and run.end >= entry.end - END_SLACK_SECONDS]
    return bool(ended)
