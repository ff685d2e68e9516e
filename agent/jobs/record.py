"""The dashboard's record of a job. Pure."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as _json
from typing import NamedTuple, Sequence

from agent.jobs.job import runs_here
from agent.jobs.nodelist import unfold
from agent.jobs.run import MAY_CONTINUE_STATES, UNKNOWN, Run
from agent.localtime import local_day, local_text

#: Incremented whenever a change of the code makes the same rows yield a different record.
FORMAT = 2
SECONDS_PER_HOUR = 3600.0


class Record(NamedTuple):
    """What is sent for a job, and what distinguishes it from an earlier record of the same job."""

    key: tuple[int, int]  # raw ID and Submit, which identify a run within its cluster
    end: int
    job_id: str
    cpu_seconds: int
    gpu_seconds: int
    text: str  # the JSON object that is sent
    row: bytes = b""  # as sacct printed it, if the record depends on this one row only

    @property
    def raw_id(self) -> int:
        """JobIDRaw."""
        return self.key[0]

    @property
    def submit(self) -> int:
        """Epoch seconds."""
        return self.key[1]

    @property
    def digest(self) -> bytes:
        """Changes whenever anything in the record changes."""
        return blake2b(self.text.encode(), digest_size=12).digest()

    @property
    def row_digest(self) -> bytes | None:
        """See :func:`digest_row`; None if the record is made from several rows."""
        return digest_row(self.row) if self.row else None


def place(job_id: str, submit: int) -> tuple[str, int]:
    """Where the dashboard stores a record. For each JobID and year of Submit it keeps only the last one to arrive."""
    return job_id, local_day(submit).year


def digest_row(row: bytes) -> bytes:
    """The digest that identifies a known row. A collision of its 80 bits is less likely than a disk error."""
    return blake2b(row, digest_size=10).digest()


def make_record(runs: Sequence[Run], cluster: str, *, requeued_runs: str = "sum") -> Record:
    """The dashboard's record of a job as a JSON object.

    Times are the cluster's wall clock without an offset; Start and End are never null. The node list is a list of names
    separated by commas, and empty if there are none: null would become a node called "nan". The text is composed
    field by field, which takes two thirds of the time of a dict and an encoder.

    :param runs: all runs of a final job, oldest first. If the last one remained half written, as root's and without an
        account, the job keeps the names of the run before.
    :param cluster: the cluster's name on the dashboard.
    :param requeued_runs: see :func:`usage`.
    """
    run = who = runs[-1]
    if len(runs) > 1:
        runs = runs_here(runs)
        run = runs[-1]
        who = next((known for known in reversed(runs) if known.partition != UNKNOWN), run)
    end = run.end
    if end is None:
        raise ValueError(f"job {run.job_id} has not ended")
    cpu_seconds, gpu_seconds = usage(runs, requeued_runs=requeued_runs)
    if run.never_started:
        start, nodes, allocated = end, '""', _allocated(0, 0, 0, 0.0)
    else:
        start = end if run.start is None else run.start
        nodes = _nodes(run.node_list or "")
        allocated = _allocated(run.cpus, run.gpus, run.nodes, run.memory_mb)
    submit = run.submit or start  # a Submit in 1970 would make a year of its own
    text = (
        f'{{"JobID":"{run.job_id}",{_who(who.user, who.account, who.partition, run.state, who.qos)}'
        f',"NodeList":{nodes}'
        f',"Submit":"{local_text(submit)}","Start":"{local_text(start)}","End":"{local_text(end)}"'
        f',"CPUHours":{_hours(cpu_seconds)},"GPUHours":{_hours(gpu_seconds)},{allocated}'
        f',"WaitingTimeHours":{_hours(max(start - submit, 0))}'
        f',"ElapsedHours":{_hours(run.elapsed_seconds)},"Cluster":{_name(cluster)}}}'
    )
    return Record((run.raw_id, run.submit), end, run.job_id, cpu_seconds, gpu_seconds, text, _only_row(runs))


def usage(runs: Sequence[Run], *, requeued_runs: str) -> tuple[int, int]:
    """The CPU-seconds and GPU-seconds that the counted runs of a job used, excluding suspension.

    :param requeued_runs: ``"sum"`` counts all runs, ``"last"`` only the last one: the last row and the RESIZING
        segments directly before it.
    """
    cpu_seconds = gpu_seconds = 0
    for run in runs if requeued_runs == "sum" else _last_run(runs):
        if not run.never_started:
            cpu_seconds += run.elapsed_seconds * run.cpus
            gpu_seconds += run.elapsed_seconds * run.gpus
    return cpu_seconds, gpu_seconds


def _last_run(runs: Sequence[Run]) -> Sequence[Run]:
    first = len(runs) - 1
    while first > 0 and runs[first - 1].state == "RESIZING":
        first -= 1
    return runs[first:]


def _only_row(runs: Sequence[Run]) -> bytes:
    """The row of a job that has only one and can't get another."""
    run = runs[-1]
    return run.row if len(runs) == 1 and not run.restarts and run.state not in MAY_CONTINUE_STATES else b""


@lru_cache(maxsize=4096)
def _who(user: str, account: str, partition: str, state: str, qos: str | None) -> str:
    """The fields that repeat from record to record."""
    return (
        f'"User":{_json(user)},"Account":{_json(account)},"Partition":{_json(partition)},"State":{_json(state)}'
        f',"QOS":{"null" if qos is None else _json(qos)}'
    )


@lru_cache(maxsize=4096, typed=True)
def _allocated(cpus: int, gpus: int, nodes: int, memory_mb: float) -> str:
    """Likewise: sizes of jobs repeat."""
    return f'"AllocCPUS":{cpus},"AllocGPUS":{gpus},"AllocNodes":{nodes},"AllocMemoryMB":{memory_mb}'


@lru_cache(maxsize=1024)
def _hours(seconds: int) -> str:
    """A time in hours. Most jobs are short, so half of these times repeat, and writing a fraction is slow."""
    return repr(seconds / SECONDS_PER_HOUR)


def _nodes(node_list: str) -> str:
    """The node names as JSON text."""
    return _expanded(node_list) if "[" in node_list else _json(node_list)


@lru_cache(maxsize=256)
def _expanded(node_list: str) -> str:
    """Likewise, of a folded list. These repeat, and one of 5,000 names is 40 kB."""
    return _json(unfold(node_list))


@lru_cache(maxsize=16)
def _name(text: str) -> str:
    return _json(text)
