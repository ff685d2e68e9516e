"""Settles what slices of the accounting leave open: sacct is asked for such jobs by ID, then slurmctld for the rest.

Many jobs share one call, as the call itself takes longer than the jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Mapping, Sequence

from agent.errors import SlurmUnreachable
from agent.jobs.finality import UNANSWERED_SECONDS, Stage, is_alive, is_for_slurmctld, stage_by_slurmctld
from agent.jobs.job import LOOKBACK_SECONDS, Runs, runs_again, runs_with
from agent.jobs.queue_entry import is_task
from agent.jobs.rows_by_id import Rows
from agent.jobs.run import REVOKED
from agent.localtime import Range
from agent.logger import Logger
from agent.slurm.sacct_argv import IDS_PER_CALL
from agent.spool.facts import SLURMCTLD_SILENT
from agent.spool.ledger import Ledger
from agent.sync.lookback import Lookback
from agent.sync.pipeline import AskSlurmctld, Pipeline

if TYPE_CHECKING:
    from agent.slurm.scontrol import Scontrol

#: A doubt is settled after this many slices at the latest, because an interrupted run has to resume from there.
MOST_SLICES_IN_DOUBT = 16

logger = Logger(__name__)


class DoubtfulJobs:
    """The jobs of a walk that may continue, or of which runs are missing."""

    def __init__(self, pipeline: Pipeline, earlier: Lookback) -> None:
        self._sacct, self._alive, self._clock = pipeline.sacct, pipeline.alive, pipeline.clock
        self._earlier = earlier
        self._jobs: list[Runs] = []  # the known runs of each
        self._slices = 0  # since the last call

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, runs: Runs) -> None:
        """Adds a job with its known runs."""
        self._jobs.append(runs)

    def done_to(self, part: Range) -> int:
        """Epoch seconds up to which the walk is complete after a slice."""
        return min([part.end, *((runs[-1].end or 0) - 1 for runs in self._jobs)])

    def count_slice(self) -> None:
        """Called once for each slice: a doubt ages by the slice."""
        self._slices += bool(self._jobs)

    def are_overdue(self) -> bool:
        """Whether the doubts are numerous or old."""
        return len(self._jobs) >= IDS_PER_CALL or (bool(self._jobs) and self._slices >= MOST_SLICES_IN_DOUBT)

    def settle_some(self) -> list[Runs]:
        """Asks for one call's worth of jobs, and returns those that are final.

        :raises SlurmUnreachable: if sacct does not answer.
        """
        asked, self._jobs = self._jobs[:IDS_PER_CALL], self._jobs[IDS_PER_CALL:]
        self._slices = 0
        jobs = self._ask_by_id(asked)
        now = self._clock()
        alive: Mapping[int, str] | None = {}
        in_doubt = [runs[-1].raw_id for runs in jobs if is_for_slurmctld(runs, now)]
        if in_doubt:
            alive = self._alive(in_doubt)
        return [runs for runs in jobs if stage_by_slurmctld(runs, now, alive) is Stage.FINAL]

    def _ask_by_id(self, asked: list[Runs]) -> list[Runs]:
        """Asks sacct for jobs by ID, and leaves out those that continued in a newer run.

        After slurmctld was killed, that run may have another raw ID; it is found by the JobID of the task. A run that
        such a slurmctld has forgotten is NODE_FAIL.
        """
        raw_ids = [runs[-1].raw_id for runs in asked]
        lost = {runs[-1].job_id for runs in asked if runs[-1].state == "NODE_FAIL" and is_task(runs[-1].job_id)}
        names = sorted({*map(str, raw_ids), *lost})
        remembered = self._earlier.of(raw_ids)
        since = min(runs[0].submit for runs in asked) - LOOKBACK_SECONDS
        rows = Rows(self._sacct.ask_ids(names, max(since, 0)).answer())
        jobs = []
        for runs, raw_id in zip(asked, raw_ids):
            whole = runs_with(runs[-1], [*remembered.get(raw_id, []), *runs[:-1], *rows.of_raw_id(raw_id)])
            # The job is handled with its newer run, when that is found. A revoked one is not passed on.
            goes_on = whole[-1].submit != runs[-1].submit and whole[-1].state != REVOKED
            if not goes_on and not runs_again(whole[-1], rows.of_job_id(whole[-1].job_id)):
                jobs.append(whole)
        return jobs


def ask_slurmctld(scontrol: Scontrol, ledger: Ledger, clock: Callable[[], float]) -> AskSlurmctld:
    """How a run asks slurmctld. One that is busy has a day to answer, which the ledger keeps count of."""
    facts = ledger.facts

    def note_silence(since: float) -> None:
        if facts.get(SLURMCTLD_SILENT) != since:
            with ledger.transaction():
                facts.set(SLURMCTLD_SILENT, since)

    def ask(raw_ids: Sequence[int]) -> Mapping[int, str] | None:
        now = clock()
        try:
            states = scontrol.job_states(raw_ids)
        except SlurmUnreachable as error:
            logger.info("%s: preempted jobs wait for its answer, for a day at most", error)
            silent_since = facts.get(SLURMCTLD_SILENT) or now
            note_silence(silent_since)
            return dict.fromkeys(raw_ids, "UNKNOWN") if now - silent_since < UNANSWERED_SECONDS else None
        note_silence(0)
        return {raw_id: state for raw_id, state in states.items() if is_alive(state)}

    return ask
