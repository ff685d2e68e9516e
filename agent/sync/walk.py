"""Walks through Slurm's accounting by the time that jobs ended: slice by slice, what ended for good, with all its runs.

A job is met in the slice in which its newest run has ended, together with its earlier runs, which are remembered. Only
where that leaves a doubt is it asked for by ID: some jobs at a time, as each call takes longer than they do. However
many rows a slice has, only some of them are in memory.
"""

from __future__ import annotations

from itertools import islice
from typing import Callable, Generator, Iterator, List, NamedTuple

from agent.jobs.job import has_all_runs, is_final, is_settled, runs_with
from agent.jobs.rows import Rows
from agent.jobs.run import REQUEUEABLE_STATES, Run
from agent.localtime import Range
from agent.slurm.sacct import IDS_PER_CALL, LOOKBACK_SECONDS, Answer, Query, Slurm
from agent.sync.earlier import GOES_ON, EarlierRuns
from agent.sync.slices import Plan

#: So many jobs are handed out at a time.
JOBS_AT_ONCE = 500
#: A doubt is not left standing longer than so many slices: an interrupted run would have to go on from there.
MOST_SLICES_IN_DOUBT = 16

#: All runs of a job, oldest first, the last one final.
History = List[Run]


class Step(NamedTuple):
    """What was met in one slice. The jobs have to be taken before the next step."""

    part: Range
    rows: int
    jobs: Iterator[list[History]]  # some at a time


class Walk:
    """One walk.

    :param clock: epoch seconds.
    """

    def __init__(self, slurm: Slurm, earlier: EarlierRuns, clock: Callable[[], float]) -> None:
        self._slurm = slurm
        self._earlier = earlier
        self._clock = clock
        self._doubtful: list[History] = []  # what is known of jobs that have to be asked for
        self._slices_in_doubt = 0
        self._newest_end = 0  # of all rows that were met, in epoch seconds

    def over(self, plan: Plan, *, ahead: Callable[[], bool] = lambda: True) -> Generator[Step, None, None]:
        """Goes through the slices of a plan; what was in doubt comes at the end at the latest.

        :param ahead: whether sacct may work on the next slice while the caller is busy with the jobs of this one. Not
            so where the caller delivers something else in between: what is sent must never be older than that.
        :raises SlurmUnreachable: where sacct does not answer.
        """
        part = plan(None, 0)
        query = self._ask(part)
        try:
            while part and query:
                answer, query = self._answer(query, part), None
                self._earlier.known_to = max(self._earlier.known_to, part.end)  # what is in it is kept below
                told = self._ask_overdue()
                following = plan(part, answer.rows)
                if following and ahead():
                    query = self._ask(following)
                yield Step(part, answer.rows, self._jobs(told, answer))
                query = query or self._ask(following)
                last, part = part, following
        finally:
            if query:
                query.cancel()
        while self._doubtful:
            yield Step(last, 0, iter([self._ask_doubtful()]))
        self._earlier.save(self._newest_end)

    def done_to(self, step: Step) -> int:
        """Up to when (epoch seconds) nothing is left to do, once the jobs of a step have been taken."""
        return min([step.part.end, *((runs[-1].end or 0) - 1 for runs in self._doubtful)])

    def _ask(self, part: Range | None) -> Query | None:
        if not part:
            return None
        self._earlier.reach(part.start)
        return self._slurm.ask_window(*part)

    def _answer(self, query: Query, part: Range) -> Answer:
        """Nothing is believed when it is said twice: sacct says it, too, where slurmdbd's database fails it midway."""
        answer = query.answer()
        return answer if answer.rows else self._slurm.ask_window(*part).answer()

    def _jobs(self, told: list[History], answer: Answer) -> Iterator[list[History]]:
        """The jobs that ended for good in a slice, behind those that were asked for."""
        if told:
            yield told
        going_on: list[Run] = []
        rows_of_jobs = _rows_of_jobs(answer, going_on)
        chunk = list(islice(rows_of_jobs, JOBS_AT_ONCE))
        while chunk:
            yield self._settled_jobs(chunk)
            chunk = list(islice(rows_of_jobs, JOBS_AT_ONCE))
        self._earlier.keep(going_on)

    def _settled_jobs(self, rows_of_jobs: list[list[Run]]) -> list[History]:
        """What of some jobs' rows in a slice is final. The rest is in doubt, or left to a later slice or run."""
        earlier = self._earlier.of([rows[0].raw_id for rows in rows_of_jobs])
        now = self._clock()
        jobs: list[History] = []
        self._newest_end = max(self._newest_end, *(run.end or 0 for rows in rows_of_jobs for run in rows))
        for rows in rows_of_jobs:
            for history in _histories(rows, earlier.get(rows[0].raw_id, [])):
                if not is_final(history[-1]):
                    continue
                if history[-1].state in REQUEUEABLE_STATES or not has_all_runs(history):
                    self._doubtful.append(history)
                elif is_settled(history[-1], now):
                    jobs.append(history)
        return jobs

    def _ask_overdue(self) -> list[History]:
        """Asks for what is in doubt where it has become much, or for long. No other call is under way meanwhile."""
        self._slices_in_doubt += bool(self._doubtful)
        jobs: list[History] = []
        while len(self._doubtful) >= IDS_PER_CALL or self._slices_in_doubt >= MOST_SLICES_IN_DOUBT:
            jobs += self._ask_doubtful()
        return jobs

    def _ask_doubtful(self) -> list[History]:
        """Asks for some of the jobs that may have gone on, or of which an earlier run is missing."""
        asked, self._doubtful = self._doubtful[:IDS_PER_CALL], self._doubtful[IDS_PER_CALL:]
        self._slices_in_doubt = 0
        since = min(runs[0].submit for runs in asked) - LOOKBACK_SECONDS
        rows = Rows(self._slurm.ask_ids([str(runs[-1].raw_id) for runs in asked], max(since, 0)).answer())
        now = self._clock()
        jobs: list[History] = []
        for runs in asked:
            history = runs_with(runs[-1], [*runs[:-1], *rows.of_raw_id(runs[-1].raw_id)])
            newest = history[-1]
            if newest.submit == runs[-1].submit and is_final(newest) and is_settled(newest, now):
                jobs.append(history)
        return jobs


def _rows_of_jobs(answer: Answer, going_on: list[Run]) -> Iterator[list[Run]]:
    """The rows of each job in a slice; those whose job may go on are noted, too."""
    repeated = answer.repeated_ids()
    several: dict[int, list[Run]] = {}
    for run in answer:
        if run.state in GOES_ON:
            going_on.append(run)
        if run.raw_id in repeated:
            several.setdefault(run.raw_id, []).append(run)
        else:
            yield [run]
    # A slurmctld that was killed may run a task again under another raw ID: of one JobID the newest comes last.
    yield from sorted(several.values(), key=lambda runs: max(run.end or 0 for run in runs))


def _histories(rows: list[Run], earlier: list[Run]) -> Iterator[History]:
    """The jobs that have had one raw ID, of which these rows ended in a slice.

    Of earlier owners only those that go by another JobID, as tasks of an array do: of one JobID the dashboard keeps
    the newest alone.

    :param earlier: what is remembered of the raw ID.
    """
    while rows:
        newest, history = rows[0], rows
        if len(rows) > 1 or earlier:
            newest = max(rows, key=lambda run: run.submit)
            history = runs_with(newest, [*earlier, *rows])
        # A newer run that has ended since, or in a later slice, brings the job when its turn comes.
        if history[-1].submit <= newest.submit:
            yield history
        rows = [run for run in rows if run.submit < history[0].submit and run.job_id != newest.job_id]
