"""Walks through Slurm's accounting by End, slice by slice, and passes on each final job.

A job is found in the slice in which its newest run ended; its earlier runs are remembered. sacct is asked for it by ID
only if that leaves a doubt (:mod:`agent.sync.doubtful_jobs`). However many rows a slice has, only a few of them are in
memory.
"""

from __future__ import annotations

from itertools import islice
from typing import Iterator, Protocol

from agent.jobs.finality import Stage, stage
from agent.jobs.job import Runs, is_whole, runs_with
from agent.jobs.run import MAY_CONTINUE_STATES, Run
from agent.localtime import Range
from agent.slurm.sacct import WindowQuery
from agent.slurm.table import Table
from agent.sync.doubtful_jobs import DoubtfulJobs
from agent.sync.lookback import Lookback
from agent.sync.pipeline import Pipeline
from agent.sync.slices import Plan

#: This many jobs are passed on at a time.
JOBS_AT_ONCE = 500


class Visitor(Protocol):
    """Handles the jobs that a walk finds."""

    def take(self, jobs: list[Runs]) -> None:
        """Handles final jobs, each with all its runs."""

    def pass_over(self, part: Range, table: Table) -> None:
        """Removes the rows of a slice that can be skipped."""

    def finish(self, rows: int, done_to: int) -> None:
        """Called at the end of each slice.

        :param rows: of the slice.
        :param done_to: epoch seconds; the walk is complete up to then.
        """

    def may_go_ahead(self) -> bool:
        """Whether sacct may start on the next slice while the jobs of this one are handled.

        It may not if something else is delivered in between, which older answers of sacct must not overwrite.
        """


class Walk:
    """One walk.

    :param find_lost: also asks for jobs whose newest row is a requeued one: slurmctld may have lost such a job together
        with its state, or a federation may have moved it to another cluster.
    """

    def __init__(self, pipeline: Pipeline, earlier: Lookback, *, find_lost: bool = False) -> None:
        self._sacct = pipeline.sacct
        self._clock = pipeline.clock
        self._earlier = earlier
        self._find_lost = find_lost
        self._doubts = DoubtfulJobs(pipeline, earlier)
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
                visitor.finish(table.rows, self._doubts.done_to(part))
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
                if self._open:
                    for run in runs:  # not those of another owner of the ID
                        self._open.pop((raw_id, run.submit), None)
                if by_rows is Stage.CONTINUES and self._find_lost:
                    self._open[raw_id, runs[-1].submit] = runs[-1]
                elif by_rows is Stage.IN_DOUBT or (by_rows is Stage.FINAL and not is_whole(runs)):
                    self._doubts.add(runs)
                elif by_rows is Stage.FINAL:
                    final.append(runs)
        return final

    def _settle_overdue(self, visitor: Visitor) -> None:
        """Settles doubts that are numerous or old."""
        self._doubts.count_slice()
        while self._doubts.are_overdue():
            visitor.take(self._doubts.settle_some())

    def _settle_rest(self, last: Range, visitor: Visitor) -> None:
        """Settles all doubts, and asks for the jobs that continued but were not found again."""
        for run in self._open.values():
            self._doubts.add([run])
        self._open.clear()
        while self._doubts:
            visitor.take(self._doubts.settle_some())
            visitor.finish(0, self._doubts.done_to(last))


def _rows_by_raw_id(table: Table) -> Iterator[list[Run]]:
    """The rows of each raw ID in a slice."""
    repeated_ids = table.repeated_ids
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
    newest = max(rows, key=lambda run: run.submit)
    runs = runs_with(newest, [*earlier, *rows])
    # If a newer run has ended since, or in a later slice, the job is handled with that run.
    if runs[-1].submit <= newest.submit:
        yield runs
    of_earlier_owners = [run for run in rows if run.submit < runs[0].submit and run.job_id != newest.job_id]
    if of_earlier_owners:
        yield from _jobs_of_raw_id(of_earlier_owners, earlier)
