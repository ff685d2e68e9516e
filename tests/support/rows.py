"""Rows of sacct and records for tests: a plain job, with the fields that a test changes."""

from __future__ import annotations

from typing import Iterable

from agent.jobs.record import Record
from agent.jobs.run import Run
from agent.slurm.row import FIELDS, OPTIONAL_FIELD, parse_row

NOON = 1_700_000_000
#: The placeholder in files for the separator, which is random for each call.
SEPARATOR = "\x1f"
#: Lines of a shell script that replaces sacct: they copy a recorded answer to a file, with the call's separator instead
#: of :data:`SEPARATOR`.
FILL_IN = """for word; do case $word in --delimiter=*) between=${word#*=} ;; esac; done
sed "s/$(printf '\\037')/$between/g" '%(recorded)s' >'%(answer)s'
"""
PLAIN = {
    "JobID": "100",
    "JobIDRaw": "100",
    "Cluster": "lab",
    "User": "alice",
    "UID": "1000",
    "Account": "physics",
    "Partition": "cpu",
    "State": "COMPLETED",
    "QOS": "normal",
    "Submit": str(NOON),
    "Start": str(NOON + 60),
    "End": str(NOON + 3660),
    "ElapsedRaw": "3600",
    "AllocCPUS": "8",
    "AllocNodes": "2",
    "AllocTRES": "billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=4000M,node=2",
    "NodeList": "n[1-2]",
}


def make_values(**changes: str) -> list[str]:
    """The values of one row, in the order of FIELDS, followed by Restarts if it is given."""
    values = {**PLAIN, **changes}
    names = (*FIELDS, OPTIONAL_FIELD) if OPTIONAL_FIELD in values else FIELDS
    return [values[name] for name in names]


def make_run(**changes: str) -> Run:
    """A run of the plain job, with some values changed."""
    return parse_row(make_values(**changes))


def values_of(run: Run) -> list[str]:
    """The values from which :func:`agent.slurm.row.parse_row` makes the same run."""
    tres = f"mem={run.memory_mb}M,gres/gpu={run.gpus}"
    ids = (run.job_id, run.raw_id, run.cluster, run.user, run.uid, run.account, run.partition, run.state, run.qos)
    sizes = (run.submit, run.start, run.end, run.elapsed_seconds, run.cpus, run.nodes, tres, run.node_list)
    restarts = () if run.restarts is None else (run.restarts,)
    return ["" if value is None else str(value) for value in (*ids, *sizes, *restarts)]


def make_output(*rows: list[str]) -> bytes:
    """What sacct prints for some rows, with its header."""
    names = (*FIELDS, OPTIONAL_FIELD) if rows and len(rows[0]) > len(FIELDS) else FIELDS
    return "".join(f"{SEPARATOR.join(values)}\n" for values in [list(names), *rows]).encode()


def make_bare_record(job_id: int, size: int = 0) -> Record:
    """A minimal record; ``size`` pads it to that many bytes, including the comma after it."""
    text = f'{{"JobID":"{job_id}","NodeList":""}}'
    return Record(
        (job_id, NOON - 100),
        NOON - 10,
        str(job_id),
        cpu_seconds=90,
        gpu_seconds=0,
        text=text.replace('""', f'"{"n" * (size - 1 - len(text))}"'),
    )


def bare_job_ids(texts: Iterable[str]) -> list[int]:
    """The JobIDs of such records, as numbers."""
    return [int(text.split('"', 4)[3]) for text in texts]
