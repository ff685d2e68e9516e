"""Walks through Slurm's accounting by End, slice by slice, and passes on each final job.

A job is found in the slice in which its newest run ended; its earlier runs are remembered. sacct is asked for it by ID
only if that leaves a doubt, and for many such jobs in one call, as the call itself takes longer than the jobs. However
many rows a slice has, only a few of them are in memory.
"""

from __future__ import annotations

from itertools import islice
from typing import Callable, Container, Iterator, NamedTuple, Protocol, Sequence

from agent.jobs.entry import is_task
from agent.jobs.finality import Stage, is_for_slurmctld, stage, stage_by_slurmctld
from agent.jobs.job import LOOKBACK_SECONDS, Runs, is_whole, runs_again, runs_with
from agent.jobs.rows import Rows
from agent.jobs.run import MAY_CONTINUE_STATES, REVOKED, Run
from agent.localtime import Range
from agent.slurm.sacct import IDS_PER_CALL, Sacct, WindowQuery
from agent.slurm.table import Table
from agent.sync.earlier import EarlierRuns
from agent.sync.slices import Plan

#: This many jobs are passed on at a time.
JOBS_AT_ONCE = 500
#: A doubt is settled after this many slices at the latest, because an interrupted run has to resume from there.
MOST_SLICES_IN_DOUBT = 16

#: Returns which of these raw IDs slurmctld knows as not ended; None if it does not answer.
AskSlurmctld = Callable[[Sequence[int]], "Container[int] | None"]


class Slice(NamedTuple):
    """One slice of a walk, all of whose jobs have been passed on."""

    part: Range
    rows: int
    done_to: int  # epoch seconds: the walk is complete up to then


class Visitor(Protocol):
    """Handles the jobs that a walk finds."""

    def take(self, jobs: list[Runs]) -> None:
        """Handles final jobs, each with all its runs."""

    def pass_over(self, part: Range, table: Table) -> None:
        """Removes the rows of a slice that can be skipped."""

    def finish(self, done: Slice) -> None:
        """Called at the end of each slice."""

    def may_go_ahead(self) -> bool:
        """Whether sacct may start on the next slice while the jobs of this one are handled.

        It may not if something else is delivered in between, which older answers of sacct must not overwrite.
        """


class Walk:
    """One walk.

    :param alive: asks slurmctld about jobs for which the accounting leaves open whether they continue.
    :param clock: epoch seconds.
    :param find_lost: also asks for jobs whose newest row is a requeued one: slurmctld may have lost such a job together
        with its state, or a federation may have moved it to another cluster.
    """

    def __init__(
        self,
        sacct: Sacct,
        earlier: EarlierRuns,
        alive: AskSlurmctld,
        clock: Callable[[], float],
        *,
        find_lost: bool = False,
    ) -> None:
        self._sacct = sacct
        self._earlier = earlier
        self._alive = alive
        self._clock = clock
        self._find_lost = find_lost
        self._doubtful: list[Runs] = []  # the known runs of jobs to ask for by ID
        self._slices_in_doubt = 0
        self._open: dict[tuple[int, int], Run] = {}  # by raw ID and Submit, runs whose job continues
        self._newest_end = 0  # of all rows so far, in epoch seconds

    def over(self, plan: Plan, visitor: Visitor) -> None:
        """Walks the slices of a plan; doubts are settled at the end at the latest.

        :raises SlurmUnreachable: if sacct does not answer.
        """
        part = plan(None, 0)
        call = self._begin(part)
        last = part
        try:
            while part and call:
                (table, part), call = self._answer(call), None
                self._earlier.known_up_to(part.end)  # its rows are remembered below
                self._settle_overdue(visitor)  # before the next call is under way
                following = plan(part, table.rows)
                if visitor.may_go_ahead():
                    call = self._begin(following)
                visitor.pass_over(part, table)
                self._visit(table, visitor)
                visitor.finish(Slice(part, table.rows, self._done_to(part)))
                call = call or self._begin(following)
                last, part = part, following
        finally:
            if call:
                call.cancel()
        if last:
            self._settle_rest(last, visitor)
        self._earlier.save(self._newest_end)

    def _begin(self, part: Range | None) -> WindowQuery | None:
        if not part:
            return None
        self._earlier.reach(part.start)
        return self._sacct.ask_window(*part)

    def _answer(self, call: WindowQuery) -> tuple[Table, Range]:
        """The rows and the period they cover, which slurmdbd may have shortened.

        An empty answer is trusted only if sacct repeats it: sacct also prints nothing if its database fails midway.
        """
        table = call.answer()
        if not table.rows:
            call = self._sacct.ask_window(call.start, call.end)
            table = call.answer()
        return table, Range(call.start, call.end)

    def _visit(self, table: Table, visitor: Visitor) -> None:
        """Passes on the final jobs of a slice, and remembers the rows whose job continues."""
        going_on: list[Run] = []
        rows_of_jobs = _rows_by_raw_id(table)
        for some in iter(lambda: list(islice(rows_of_jobs, JOBS_AT_ONCE)), []):
            visitor.take(self._sort_jobs(some))
            going_on += (run for rows in some for run in rows if run.state in MAY_CONTINUE_STATES)
        self._earlier.keep(going_on)

    def _sort_jobs(self, rows_of_jobs: list[list[Run]]) -> list[Runs]:
        """Notes which jobs are in doubt, and returns the final ones; the others are left to a later slice or run.

        :param rows_of_jobs: the rows of each raw ID.
        """
        earlier = self._earlier.of([rows[0].raw_id for rows in rows_of_jobs])
        now = self._clock()
        ends = (run.end or 0 for rows in rows_of_jobs for run in rows)
        self._newest_end = max(self._newest_end, max(ends, default=0))
        final: list[Runs] = []
        for rows in rows_of_jobs:
            raw_id = rows[0].raw_id
            remembered = earlier.get(raw_id)
            jobs = _jobs_of_raw_id(rows, remembered or []) if remembered or len(rows) > 1 else (rows,)
            for runs in jobs:
                by_rows = stage(runs, now)
                for run in runs:  # not those of another owner of the ID
                    self._open.pop((raw_id, run.submit), None)
                if by_rows is Stage.CONTINUES and self._find_lost:
                    self._open[raw_id, runs[-1].submit] = runs[-1]
                elif by_rows is Stage.IN_DOUBT or (by_rows is Stage.FINAL and not is_whole(runs)):
                    self._doubtful.append(runs)
                elif by_rows is Stage.FINAL:
                    final.append(runs)
        return final

    def _done_to(self, part: Range) -> int:
        return min([part.end, *((runs[-1].end or 0) - 1 for runs in self._doubtful)])

    def _settle_overdue(self, visitor: Visitor) -> None:
        """Settles doubts once they are numerous or old."""
        self._slices_in_doubt += bool(self._doubtful)
        while len(self._doubtful) >= IDS_PER_CALL or (self._doubtful and self._slices_in_doubt >= MOST_SLICES_IN_DOUBT):
            self._settle_some(visitor)

    def _settle_rest(self, last: Range, visitor: Visitor) -> None:
        """Settles all doubts, and asks for the jobs that continued but were not found again."""
        self._doubtful += [[run] for run in self._open.values()]
        self._open.clear()
        while self._doubtful:
            self._settle_some(visitor)
            visitor.finish(Slice(last, 0, self._done_to(last)))

    def _settle_some(self, visitor: Visitor) -> None:
        """Asks sacct for one call's worth of doubtful jobs by ID, and slurmctld about those still in doubt."""
        asked, self._doubtful = self._doubtful[:IDS_PER_CALL], self._doubtful[IDS_PER_CALL:]
        self._slices_in_doubt = 0
        jobs = self._ask_by_id(asked)
        now = self._clock()
        alive: Container[int] | None = ()
        in_doubt = [runs[-1].raw_id for runs in jobs if is_for_slurmctld(runs, now)]
        if in_doubt:
            alive = self._alive(in_doubt)
        visitor.take([runs for runs in jobs if stage_by_slurmctld(runs, now, alive) is Stage.FINAL])

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


def _rows_by_raw_id(table: Table) -> Iterator[list[Run]]:
    """The rows of each raw ID in a slice."""
    repeated_ids = table.repeated_ids()
    repeated: dict[int, list[Run]] = {}
    for run in table:
        if run.raw_id in repeated_ids:
            repeated.setdefault(run.raw_id, []).append(run)
        else:
            yield [run]
    yield from repeated.values()


def _jobs_of_raw_id(rows: list[Run], earlier: Runs) -> Iterator[Runs]:
    """The jobs that used one raw ID and have rows that ended in a slice.

    Earlier owners of the ID are included only under another JobID, as tasks of an array are: of each JobID the
    dashboard keeps only the newest job.

    :param earlier: the remembered runs of the raw ID.
    """
    while rows:
        newest, runs = rows[0], rows
        if len(rows) > 1 or earlier:
            newest = max(rows, key=lambda run: run.submit)
            runs = runs_with(newest, [*earlier, *rows])
        # If a newer run has ended since, or in a later slice, the job is handled with that run.
        if runs[-1].submit <= newest.submit:
            yield runs
        rows = [run for run in rows if run.submit < runs[0].submit and run.job_id != newest.job_id]
