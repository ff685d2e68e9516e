"""Compares the dashboard with slurmdbd's job table by plain SQL, without code of the exporter."""

from __future__ import annotations

import time
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

from tests.ha.sites import Site

NO_TASK = 4294967294  # NO_VAL
LIVE = 3  # PENDING, RUNNING, SUSPENDED
REVOKED = 1 << 19
STATES = {
    3: "COMPLETED",
    4: "CANCELLED",
    5: "FAILED",
    6: "TIMEOUT",
    7: "NODE_FAIL",
    8: "PREEMPTED",
    9: "BOOT_FAIL",
    10: "DEADLINE",
    11: "OUT_OF_MEMORY",
}
_COLUMNS = (
    "id_job,id_array_job,id_array_task,ifnull(array_task_str,''),het_job_id,het_job_offset,time_submit,time_start,"
    "time_end,state,`partition`"
)


class Job(NamedTuple):
    """The newest row of a raw ID."""

    raw_id: int
    job_id: str  # in sacct's form
    submit: int
    end: int
    state: int
    is_half: bool  # slurmdbd has little more than its end

    @property
    def has_ended(self) -> bool:
        return self.state & 0xFF >= LIVE and self.end > 0

    @property
    def is_revoked(self) -> bool:
        """Whether a sibling of the federation ran it."""
        return bool(self.state & REVOKED)

    @property
    def word(self) -> str:
        """The state that the dashboard must show."""
        return STATES[self.state & 0xFF]


class Comparison(NamedTuple):
    """What is wrong on the dashboard."""

    jobs: int  # of the accounting, ended on this cluster
    half_written: int
    live: int
    lost: list[Job]  # complete ones
    lost_half: list[Job]  # half-written ones, which wait for a day
    foreign: list[str]  # JobIDs without an ended row in the accounting
    wrong: list[str]
    sent_by_several: int
    delays: list[float]  # from the End to the first arrival, in seconds, sorted

    @property
    def sent_wrong(self) -> int:
        """Records that should not be there, or not like this."""
        return len(self.foreign) + len(self.wrong)


def read_rows(site: Site, cluster: str) -> list[Job]:
    """Every row of a cluster, oldest first."""
    rows = site.sql(f"select {_COLUMNS} from {cluster}_job_table where deleted=0 order by time_submit, job_db_inx")
    return [_make_job(row) for row in rows]


def compare(site: Site, cluster: str, *, since: float = 0) -> Comparison:
    """Compares what the dashboard shows now with the accounting.

    :param since: leaves out what ended before.
    """
    stored = {key[2]: record for key, record in site.board.stored.items() if key[0] == cluster}
    rows = read_rows(site, cluster)
    newest = {row.raw_id: row for row in rows if not _is_abandoned(row, rows)}
    # If a JobID is reused under another raw ID, the dashboard shows the newer job.
    jobs = list({row.job_id: row for row in sorted(newest.values(), key=lambda row: row.submit)}.values())
    ended = [job for job in jobs if job.has_ended and not job.is_revoked]
    lost: list[Job] = []
    lost_half: list[Job] = []
    wrong: list[str] = []
    delays: list[float] = []
    for job in ended:
        if job.end < since:
            continue
        record = stored.get(job.job_id)
        if record is None or record["Submit"] != _local(job.submit):
            (lost_half if job.is_half else lost).append(job)
            continue
        if (record["End"], record["State"]) != (_local(job.end), job.word):
            wrong.append(f"{job.job_id}: {record['State']} at {record['End']}, not {job.word} at {_local(job.end)}")
        delays.append(site.board.first[cluster, job.job_id, record["Submit"]].at - job.end)
    known = {row.job_id for row in rows if row.end}  # a killed slurmctld may assign an ID twice
    return Comparison(
        jobs=len(ended),
        half_written=sum(job.is_half for job in ended),
        live=sum(not job.has_ended for job in jobs),
        lost=lost,
        lost_half=lost_half,
        foreign=sorted(set(stored) - known),
        wrong=wrong,
        sent_by_several=_count_sent_by_several(site, cluster),
        delays=sorted(delays),
    )


def overdue(site: Site, cluster: str, hosts: Iterable[str]) -> list[str]:
    """The jobs that wait on these controllers although slurmdbd has everything that the hook announced.

    Other waiting jobs cannot be delivered yet: a killed slurmctld has reported such a job to slurmdbd only partially,
    without the end that the hook was called for, or never.
    """
    rows = read_rows(site, cluster)
    found: list[str] = []
    for name in hosts:
        exporter = site.exporters[name]
        queued = exporter.status()["backlog"]["queued"]
        found += [f"{name}: {queued} queued"] * bool(queued)
        for raw_id, submit, end, reason in exporter.waiting():
            own = [row for row in rows if row.raw_id == raw_id and row.submit >= (submit or 0) and row.has_ended]
            if any(row.end >= (end or 0) - 1 and not row.is_half for row in own):
                found.append(f"{name}: {raw_id} of {submit} to {end}: {reason}; {own}")
    return found


def unsent(site: Site, cluster: str) -> list[Job]:
    """The jobs that the dashboard lacks because they have never come; the others that it lacks were erased."""
    lost = compare(site, cluster).lost
    return [job for job in lost if (cluster, job.job_id, _local(job.submit)) not in site.board.first]


def percentile(values: Sequence[float], share: float) -> float:
    """A percentile of sorted values; 0 if there are none."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def _is_abandoned(row: Job, rows: Iterable[Job]) -> bool:
    """A requeue that a killed slurmctld had not saved: the job continued under its older Submit."""
    return not row.has_ended and any(
        other.raw_id == row.raw_id and other.submit < row.submit < other.end and other.has_ended for other in rows
    )


def _count_sent_by_several(site: Site, cluster: str) -> int:
    senders: dict[Any, set[str]] = {}
    for address, key in site.board.sent:
        if key[0] == cluster:
            senders.setdefault(key, set()).add(address)
    return sum(len(addresses) > 1 for addresses in senders.values())


def _make_job(row: Sequence[str]) -> Job:
    numbers = [int(text) if text not in ("NULL", "") else NO_TASK for text in (*row[:3], *row[4:10])]
    raw_id, array, task, het, offset, submit, _, end, state = numbers
    bits, partition = row[3], row[10]
    job_id = str(raw_id)
    if bits not in ("", "NULL"):
        job_id = f"{array}_[{_fold(n for n, bit in enumerate(bin(int(bits, 16))[:1:-1]) if bit == '1')}]"
    elif array and task != NO_TASK:
        job_id = f"{array}_{task}"
    elif het:
        job_id = f"{het}+{offset}"
    return Job(raw_id, job_id, submit, end, state, is_half=partition in ("", "NULL"))


def _fold(numbers: Iterable[int]) -> str:
    def spans() -> Iterator[tuple[int, int]]:
        first = last = None
        for number in numbers:
            if first is None or last is None:
                first = last = number
            elif number == last + 1:
                last = number
            else:
                yield first, last
                first = last = number
        if first is not None and last is not None:
            yield first, last

    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans())


def _local(epoch_seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(epoch_seconds))
