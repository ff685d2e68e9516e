"""Decides what to do with a queued job, given sacct's rows: send it, wait, or dismiss the queue entry. Pure.

The hook is called before slurmctld has queued the accounting record, and also for requeues and resizes, which do not
end the job. So a queue entry only says that something ended at that time. The rows say what.
"""

from __future__ import annotations

import enum
from typing import Iterable, Mapping, NamedTuple, Sequence

from agent.jobs.finality import HALF_WRITTEN_SECONDS, Stage, is_for_slurmctld, stage, stage_by_slurmctld
from agent.jobs.job import own_runs
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.run import LIVE_STATES, Run

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
    is_half: bool = False  # a killed slurmctld may have left the record like this


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
    reached = stage(runs, now)
    if not _is_up_to_date(entry, runs):
        if not runs[-1].ended:
            return Verdict(Fate.WAIT, "still running in the accounting")
        ran_again = _has_ended_before(entry, runs) and reached is not Stage.CONTINUES
        if not ran_again or now - (entry.end or 0) < HALF_WRITTEN_SECONDS:
            return Verdict(Fate.WAIT, "record not up to date yet", is_half=ran_again)
    if reached is Stage.IN_DOUBT and not is_for_slurmctld(runs, now):
        reached = Stage.FINAL
    if reached in {Stage.LIVE, Stage.CONTINUES} and not entry.submit and entry.end is None:
        fate = Fate.ASK_SLURMCTLD if entry.submit is None else Fate.WAIT
        return Verdict(fate, "requeued, or still running in the accounting", runs)
    return Verdict(_FATES[reached], reached.value, runs, is_half=reached is Stage.HALF_WRITTEN)


def judge_doubtful(verdict: Verdict, now: float, alive: Mapping[int, str] | None) -> Verdict:
    """Decides about a job whose rows do not show whether it continues.

    If it is pending or running by now, the entry stands for an earlier end; the job's next end calls the hook again.

    :param alive: see :data:`agent.sync.pipeline.AskSlurmctld`.
    """
    if stage_by_slurmctld(verdict.runs, now, alive) is Stage.FINAL:
        return verdict._replace(fate=Fate.SEND, reason=Stage.FINAL.value)
    is_live = alive is not None and alive.get(verdict.runs[-1].raw_id) in LIVE_STATES
    return verdict._replace(fate=Fate.DISMISS if is_live else Fate.WAIT)


def _is_up_to_date(entry: QueueEntry, runs: Iterable[Run]) -> bool:
    """Whether the rows include the end that the entry stands for. The newest row may be a later run."""
    ended = [run for run in runs if run.ended]
    if entry.submit is not None:
        ended = [run for run in ended if run.submit >= entry.submit or _has_that_end(entry, run)]
    if entry.end is not None:
        ended = [run for run in ended if run.end is not None and run.end >= entry.end - END_SLACK_SECONDS]
    return bool(ended)


def _has_that_end(entry: QueueEntry, run: Run) -> bool:
    """Whether a run ended when the hook said and after the Submit that it reported, which no earlier run did.

    The run's own Submit may be missing. And a job that is requeued after a resize continues in the row of the resize,
    with the Submit of that (seen on 20.11 and 22.05).
    """
    end = run.end or 0
    return (entry.submit or 0) < end and abs(end - (entry.end or 0)) <= END_SLACK_SECONDS


def _has_ended_before(entry: QueueEntry, runs: Sequence[Run]) -> bool:
    """Whether the newest run is the one that the entry stands for, with an earlier end.

    A slurmctld that is killed before it saves the end of a run, or its backup, runs the job again under the same
    Submit. If it is killed once more, slurmdbd may never learn of the later end. (Seen on 22.05.)
    """
    return entry.submit is not None and 0 < entry.submit <= runs[-1].submit
