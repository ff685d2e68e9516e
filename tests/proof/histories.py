"""Random but legal histories of jobs, as rows of slurmdbd's job table.

Each history follows what was seen on real Slurms: a requeue, a preemption or a lost node ends a row and begins the
next in the same second, a resize likewise, an array's last task runs under the raw ID of its array. ``job_name``
numbers the jobs, so that SQL can tell the owners of a reused JobID apart; the exporter never reads it.
"""

from __future__ import annotations

import random
from typing import Callable, Iterator, NamedTuple

NO_TASK = 4294967294
RUNNING, SUSPENDED, PENDING = 1, 2, 0
CANCELLED, NODE_FAIL, PREEMPTED, REQUEUED, RESIZING, REVOKED = 4, 7, 8, 1024, 8192, 0x80000
#: COMPLETED often, then every other way to end.
ENDS = (3, 3, 3, 3, 5, 6, CANCELLED, NODE_FAIL, PREEMPTED, 9, 10, 11)
HOUR, DAY = 3600, 86_400


class Row(NamedTuple):
    """One row of the job table, in the columns that matter."""

    id_job: int
    job_name: int
    state: int
    time_submit: int
    time_start: int
    time_end: int
    time_suspended: int = 0
    tres_alloc: str = ""
    nodelist: str = "None assigned"
    nodes_alloc: int = 0
    id_array_job: int = 0
    id_array_task: int = NO_TASK
    array_task_str: str | None = None
    het_job_id: int = 0
    het_job_offset: int = NO_TASK
    account: str | None = "physics"
    id_user: int = 0
    id_assoc: int = 0
    partition: str = "cpu"


class Owner(NamedTuple):
    """Whom a job belongs to."""

    account: str | None
    id_user: int
    id_assoc: int


def gpu_mixes(generic: str, a100: str, h100: str) -> list[str]:
    """None, of one type, of two, of types that are tracked alone, and of any; by their TRES ids."""
    types_and_all = [f",{generic}=2,{a100}=2", f",{generic}=3,{a100}=2,{h100}=1"]
    return ["", "", *types_and_all, f",{a100}=1,{h100}=4", f",{generic}=4"]


class Histories:
    """Makes the rows of a number of jobs.

    :param seed: the same one makes the same rows.
    :param owners: to choose from.
    :param gpus: what is allocated of them, as the end of a TRES text: see :func:`gpu_mixes`.
    :param moments: epoch seconds around which many jobs begin and end: changes of summer time, new year.
    :param end: nothing ends after it.
    :param most_tasks: of an array that was cancelled while pending; 20.11 cuts a long list of them.
    """

    def __init__(
        self, seed: int, owners: list[Owner], gpus: list[str], moments: list[int], end: int, *, most_tasks: int
    ) -> None:
        self._dice = random.Random(seed)
        self._owners = owners
        self._gpus = gpus
        self._moments = moments
        self._end = end
        self._most_tasks = most_tasks
        self._next_id = 1000
        self._job_name = 0
        self._old: list[tuple[int, int]] = []  # raw ID and End of jobs whose ID may be used again

    def rows(self, jobs: int) -> list[Row]:
        """The rows of at least so many jobs, in no order."""
        kinds: list[Callable[[Owner, int], Iterator[Row]]] = [
            *[self._plain] * 6,
            *[self._chain] * 4,
            self._never_started,
            self._live,
            self._revoked,
            self._array,
            self._bracket,
            self._het,
            self._reused,
        ]
        made: list[Row] = []
        while self._job_name < jobs:
            owner = self._dice.choice(self._owners)
            made += self._dice.choice(kinds)(owner, self._submit())
        self._dice.shuffle(made)
        return made

    def _submit(self) -> int:
        around = self._dice.choice(self._moments)
        return min(around + self._dice.randint(-2 * DAY, 2 * DAY), self._end - 40 * DAY)

    def _new(self) -> int:
        """A raw ID; the job's number goes on with it."""
        self._next_id += self._dice.randint(1, 3)
        self._job_name += 1
        return self._next_id

    def _run(self, owner: Owner, raw_id: int, submit: int, state: int) -> Row:
        """A run that started and ended."""
        start = submit + self._dice.choice([0, 1, 60, self._dice.randint(0, 2 * DAY)])
        seconds = self._dice.choice([0, 1, 59, HOUR, self._dice.randint(0, 3 * DAY)])
        nodes = self._dice.choice([1, 1, 1, 2, 1024])
        return Row(
            raw_id,
            self._job_name,
            state,
            submit,
            start,
            start + seconds,
            self._dice.choice([0, 0, 0, seconds // 3]),
            self._tres(nodes),
            "n1" if nodes == 1 else f"n[1-{nodes}]",
            nodes,
            account=owner.account,
            id_user=owner.id_user,
            id_assoc=owner.id_assoc,
            partition=self._dice.choice(["cpu", "gpu", "long"]),
        )

    def _tres(self, nodes: int) -> str:
        cpus = nodes * self._dice.choice([1, 2, 17, 64])
        memory_mb = self._dice.choice([1, 500, 4000, 1_500_000])
        return f"1={cpus},2={memory_mb},4={nodes},5={cpus}{self._dice.choice(self._gpus)}"

    def _plain(self, owner: Owner, submit: int) -> Iterator[Row]:
        run = self._run(owner, self._new(), submit, self._dice.choice(ENDS))
        self._old.append((run.id_job, run.time_end))
        yield run

    def _chain(self, owner: Owner, submit: int) -> Iterator[Row]:
        """Requeued, preempted, failed with its node or resized, up to four times, and then one of many ends."""
        raw_id = self._new()
        for _ in range(self._dice.randint(1, 4)):
            run = self._run(owner, raw_id, submit, self._dice.choice([REQUEUED, RESIZING, PREEMPTED, NODE_FAIL]))
            if run.time_end <= submit:  # one row for each JobID and Submit
                run = run._replace(time_end=run.time_start + 1 + (submit == run.time_start))
            yield run
            submit = run.time_end + self._dice.choice([0, 0, 1])
        last = self._run(owner, raw_id, submit, self._dice.choice(ENDS))
        kind = self._dice.randint(0, 9)
        if kind == 0:
            last = self._unstarted(last, PENDING)
        elif kind == 1:
            last = last._replace(state=RUNNING, time_end=0, time_suspended=0)
        elif kind == 2:
            last = self._unstarted(last, CANCELLED)
        yield last

    def _unstarted(self, run: Row, state: int) -> Row:
        """A run that has not started, or was cancelled before; older versions write its End as its Start."""
        end = run.time_end if state == CANCELLED else 0
        start = self._dice.choice([0, end])
        return run._replace(
            state=state,
            time_start=start,
            time_end=end,
            time_suspended=0,
            tres_alloc="",
            nodelist="None assigned",
            nodes_alloc=0,
        )

    def _never_started(self, owner: Owner, submit: int) -> Iterator[Row]:
        yield self._unstarted(self._run(owner, self._new(), submit, CANCELLED), CANCELLED)

    def _live(self, owner: Owner, submit: int) -> Iterator[Row]:
        run = self._run(owner, self._new(), submit, self._dice.choice([RUNNING, SUSPENDED]))
        yield run._replace(time_end=0, time_suspended=0)

    def _revoked(self, owner: Owner, submit: int) -> Iterator[Row]:
        yield self._run(owner, self._new(), submit, REVOKED)

    def _array(self, owner: Owner, submit: int) -> Iterator[Row]:
        """Tasks under raw IDs of their own, the last one under the array's."""
        array = self._new()
        tasks = self._dice.sample(range(1, 50), self._dice.randint(1, 6))
        for task in tasks:
            raw_id = array if task == tasks[-1] else self._new()
            run = self._run(owner, raw_id, submit, self._dice.choice(ENDS))
            yield run._replace(id_array_job=array, id_array_task=task)

    def _bracket(self, owner: Owner, submit: int) -> Iterator[Row]:
        """An array that was cancelled while pending: one row for all its tasks, given as bits."""
        array = self._new()
        tasks = {1, *self._dice.sample(range(3, 200), self._dice.randint(2, self._most_tasks))}
        bits = hex(sum(1 << task for task in tasks))
        run = self._unstarted(self._run(owner, array, submit, CANCELLED), CANCELLED)
        yield run._replace(id_array_job=array, array_task_str=bits)

    def _het(self, owner: Owner, submit: int) -> Iterator[Row]:
        first = self._new()
        for offset in range(self._dice.randint(2, 3)):
            raw_id = first if offset == 0 else self._new()
            run = self._run(owner, raw_id, submit, self._dice.choice(ENDS))
            yield run._replace(het_job_id=first, het_job_offset=offset)

    def _reused(self, owner: Owner, submit: int) -> Iterator[Row]:
        """A JobID that had an owner in another year, long before."""
        before = [raw_id for raw_id, end in self._old if end < submit - 200 * DAY]
        if before:
            raw_id = self._dice.choice(before)
            self._old = [(old, end) for old, end in self._old if old != raw_id]
            self._job_name += 1
            yield self._run(owner, raw_id, submit, self._dice.choice(ENDS))
