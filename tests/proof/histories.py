"""Random but legal histories of jobs, as rows of slurmdbd's job table.

Each history follows what was seen on real Slurms. A requeue, a preemption or a lost node ends a row; the next row
begins in the same second, or after a slow Epilog, a hung node or a hold: minutes to months later. A resize begins the
next row at once. An array's last task runs under the raw ID of its array. ``job_name`` numbers the jobs, so that SQL
can tell the owners of a reused JobID apart; the exporter never reads it.
"""

from __future__ import annotations

import random
import time
from typing import Callable, Iterator, NamedTuple, Sequence

NO_TASK = 4294967294
RUNNING, SUSPENDED, PENDING, COMPLETED = 1, 2, 0, 3
CANCELLED, NODE_FAIL, PREEMPTED, REQUEUED, RESIZING, REVOKED = 4, 7, 8, 1024, 8192, 0x80000
GOES_ON = (REQUEUED, RESIZING, PREEMPTED, NODE_FAIL)
#: After a row in these states the job continues, or may: the same user's next row belongs to the same job.
LEADS_ON = frozenset(GOES_ON)
NORMAL, UNKNOWN_QOS = 1, 4711
#: Accounts that users may type: separators, newlines, escapes, what looks like a row, ...
ODD_TEXTS = ("a", "|", "\x1f", "\n", "\n\n", "\r", "\t", "\x1b[2J", "\x07", "\\", "'", '"', "%s", " ", "_", "é", "✘")
ODD_TEXTS_OF_ROWS = ("\u202e", "\n1|1|lab|root|0|", "\n99999\x1f99999\x1flab\x1f")
#: ... and bytes that are not UTF-8.
ODD_BYTES = (*(text.encode() for text in (*ODD_TEXTS, *ODD_TEXTS_OF_ROWS)), b"\xff", b"\xc3", b"\x80")
LONGEST_ACCOUNT = 255
#: COMPLETED often, and every other way to end.
ENDS = (*[COMPLETED] * 4, 5, 6, CANCELLED, NODE_FAIL, PREEMPTED, 9, 10, 11)
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
    nodelist: str | None = "None assigned"
    nodes_alloc: int = 0
    id_array_job: int = 0
    id_array_task: int = NO_TASK
    array_task_str: str | None = None
    het_job_id: int = 0
    het_job_offset: int = NO_TASK
    account: bytes | None = b"physics"
    id_user: int = 0
    id_assoc: int = 0
    partition: str = "cpu"
    id_qos: int = NORMAL
    restart_cnt: int = 0  # omitted if the table has no such column


class Owner(NamedTuple):
    """The owner of a job."""

    account: bytes | None
    id_user: int
    id_assoc: int


def gpu_mixes(generic: str, a100: str, h100: str) -> list[str]:
    """GPU allocations: none, one type, two types, types without a generic count, and any type, by TRES IDs."""
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
    :param has_restarts: whether the table says how often a job had been requeued.
    """

    def __init__(
        self,
        seed: int,
        owners: list[Owner],
        gpus: list[str],
        moments: list[int],
        end: int,
        *,
        most_tasks: int,
        has_restarts: bool,
    ) -> None:
        self._dice = random.Random(seed)
        self._owners = owners
        self._gpus = gpus
        self._moments = moments
        self._end = end
        self._most_tasks = most_tasks
        self._has_restarts = has_restarts
        self._next_id = 1000
        self._job_name = 0
        self._old: list[Row] = []  # the last rows of jobs whose ID may be reused

    def rows(self, jobs: int) -> list[Row]:
        """The rows of at least that many jobs, in random order."""
        kinds: list[Callable[[Owner, int], Iterator[Row]]] = [
            *[self._plain] * 6,
            *[self._chain] * 5,
            self._handed_over,
            self._lost,
            self._requeued_after_its_end,
            self._never_started,
            self._live,
            self._revoked,
            self._array,
            self._bracket,
            self._het,
            self._odd,
            *[self._reused] * 2,
        ]
        made: list[Row] = []
        while self._job_name < jobs:
            made += self._dice.choice(kinds)(self._owner(), self._submit())
        self._dice.shuffle(made)
        return made

    def _owner(self) -> Owner:
        """One user in eight has named an arbitrary account, as any user can if associations are not enforced."""
        if self._dice.randint(0, 7):
            return self._dice.choice(self._owners)
        pieces = self._dice.choices(ODD_BYTES, k=self._dice.choice([1, 3, 10, 200]))
        return self._dice.choice(self._owners)._replace(account=b"".join(pieces)[:LONGEST_ACCOUNT], id_assoc=0)

    def _submit(self) -> int:
        around = self._dice.choice(self._moments)
        return min(around + self._dice.randint(-2 * DAY, 2 * DAY), self._end - 40 * DAY)

    def _gap(self, end: int) -> int:
        """Seconds from a run's End to the next Submit: COMPLETING and a hold can take any time."""
        longest = self._end - 30 * DAY - end  # leaves time for later runs to end
        shortest, longest_here = self._dice.choice(
            [(0, 1), (0, 1), (2, 600), (601, 2 * HOUR), (2 * HOUR, 7 * DAY), (7 * DAY, 90 * DAY), (90 * DAY, 300 * DAY)]
        )
        gap = self._dice.randint(shortest, longest_here)
        return gap if gap <= longest else self._dice.randint(0, 1)

    def _new(self) -> int:
        """A raw ID; the job's number advances with it."""
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
        self._old.append(run)
        yield run

    def _runs_that_go_on(self, owner: Owner, raw_id: int, submit: int, states: Sequence[int]) -> Iterator[Row]:
        """Up to four runs after each of which the job continues.

        The accounts of some jobs had no association at first, so that only the uid names their user. Rows
        written before slurmdbd counted restarts have none.
        """
        early = owner._replace(account=None, id_assoc=0) if self._dice.randint(0, 4) == 0 else owner
        counts = self._has_restarts and self._dice.randint(0, 4) > 0
        restarts = 0
        for number in range(self._dice.randint(1, 4)):
            run = self._run(early if number == 0 else owner, raw_id, submit, self._dice.choice(states))
            if run.time_end <= submit:  # one row for each JobID and Submit
                run = run._replace(time_end=run.time_start + 1 + (submit == run.time_start))
            yield run._replace(restart_cnt=restarts)
            restarts += counts and run.state != RESIZING
            submit = run.time_end + (0 if run.state == RESIZING else self._gap(run.time_end))

    def _next(self, owner: Owner, before: Row, state: int) -> Row:
        """A later run of the same job."""
        gap = 0 if before.state == RESIZING else self._gap(before.time_end)
        run = self._run(owner, before.id_job, before.time_end + gap, state)
        counts = self._has_restarts and (before.restart_cnt > 0 or self._dice.randint(0, 4) > 0)
        return run._replace(restart_cnt=before.restart_cnt + (counts and before.state != RESIZING))

    def _chain(self, owner: Owner, submit: int) -> Iterator[Row]:
        """Requeued, preempted, failed with its node or resized, up to four times, and then one of many ends."""
        *runs, last = self._runs_of_one_job(owner, self._new(), submit)
        yield from (*runs, last)
        if last.time_end and last.time_start:
            self._old.append(last)

    def _runs_of_one_job(self, owner: Owner, raw_id: int, submit: int) -> Iterator[Row]:
        *runs, before = self._runs_that_go_on(owner, raw_id, submit, GOES_ON)
        yield from (*runs, before)
        last = self._next(owner, before, self._dice.choice(ENDS))
        kind = self._dice.randint(0, 9)
        if kind == 0:
            last = self._unstarted(last, PENDING)
        elif kind == 1:
            last = last._replace(state=RUNNING, time_end=0, time_suspended=0)
        elif kind == 2:
            last = self._unstarted(last, CANCELLED)
        yield last

    def _runs_of_a_part(self, owner: Owner, raw_id: int, submit: int) -> Iterator[Row]:
        """Of a task, or of a part of a het job: one in three is requeued like any other job."""
        if self._dice.randint(0, 2):
            yield self._run(owner, raw_id, submit, self._dice.choice(ENDS))
        else:
            yield from self._runs_of_one_job(owner, raw_id, submit)

    def _handed_over(self, owner: Owner, submit: int) -> Iterator[Row]:
        """The job ran here, was requeued, and then ran on another cluster, so its newest row is REVOKED."""
        *runs, before = self._runs_that_go_on(owner, self._new(), submit, [REQUEUED])
        yield from (*runs, before)
        yield self._next(owner, before, REVOKED)

    def _lost(self, owner: Owner, submit: int) -> Iterator[Row]:
        """The job was requeued, and then lost by a slurmctld that lost its state: there is no newer row."""
        *runs, last = self._runs_that_go_on(owner, self._new(), submit, GOES_ON)
        yield from runs
        yield last._replace(state=REQUEUED)
        self._old.append(last._replace(state=REQUEUED))

    def _requeued_after_its_end(self, owner: Owner, submit: int) -> Iterator[Row]:
        """By ``scontrol requeue``: 26.05 leaves the row COMPLETED, older versions make it REQUEUED.

        Both are within one year of Submit: the dashboard stores jobs by that year, and would keep an earlier record in
        another. So a ledger of a year also remembers which of the two is newer.
        """
        first = self._run(owner, self._new(), submit, COMPLETED)
        last = self._next(owner, first, self._dice.choice(ENDS))
        is_another_year = time.localtime(last.time_submit)[0] != time.localtime(submit)[0]
        if not last.restart_cnt or is_another_year or last.time_end < self._end - 360 * DAY:
            first = first._replace(state=REQUEUED)
        yield first
        yield last._replace(time_submit=max(last.time_submit, submit + 1))

    def _unstarted(self, run: Row, state: int) -> Row:
        """A run that has not started or was cancelled before; for the latter, older versions set Start to its End."""
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

    def _odd(self, owner: Owner, submit: int) -> Iterator[Row]:
        """A row without Submit, QOS, node list or partition: a killed slurmctld, an old version or an admin."""
        run = self._run(owner, self._new(), submit, self._dice.choice(ENDS))
        if run.time_end == run.time_start:
            run = run._replace(time_end=run.time_end + 7)
        yield self._dice.choice(
            [
                run._replace(time_submit=0),
                run._replace(id_qos=UNKNOWN_QOS),
                run._replace(nodelist=None),
                run._replace(nodelist="(null)"),
                run._replace(partition=""),
            ]
        )

    def _array(self, owner: Owner, submit: int) -> Iterator[Row]:
        """Tasks with their own raw IDs, except the last one, which has the array's."""
        array = self._new()
        tasks = self._dice.sample(range(1, 50), self._dice.randint(1, 6))
        for task in tasks:
            raw_id = self._new()
            if task == tasks[-1]:
                raw_id = array
            for run in self._runs_of_a_part(owner, raw_id, submit):
                yield run._replace(id_array_job=array, id_array_task=task)

    def _bracket(self, owner: Owner, submit: int) -> Iterator[Row]:
        """An array cancelled while pending: one row for all its tasks, as a bitmap."""
        array = self._new()
        tasks = {1, *self._dice.sample(range(3, 200), self._dice.randint(2, self._most_tasks))}
        bits = hex(sum(1 << task for task in tasks))
        run = self._unstarted(self._run(owner, array, submit, CANCELLED), CANCELLED)
        yield run._replace(id_array_job=array, array_task_str=bits)

    def _het(self, owner: Owner, submit: int) -> Iterator[Row]:
        first = self._new()
        for offset in range(self._dice.randint(2, 3)):
            raw_id = first if offset == 0 else self._new()
            for run in self._runs_of_a_part(owner, raw_id, submit):
                yield run._replace(het_job_id=first, het_job_offset=offset)

    def _reused(self, owner: Owner, submit: int) -> Iterator[Row]:
        """A JobID that had an owner long before.

        The new owner is another user if the old job's last row allows that it continues: in the accounting, such a
        row and the same user's next one are one job.
        """
        before = [
            old
            for old in self._old
            if old.time_end < submit - 200 * DAY and (old.state not in LEADS_ON or old.id_user != owner.id_user)
        ]
        if before:
            old = self._dice.choice(before)
            self._old.remove(old)
            self._job_name += 1
            yield self._run(owner, old.id_job, submit, self._dice.choice(ENDS))
