"""Which of sacct's answers can be trusted. Pure, except that it reads the output.

An answer is trusted if it has exit status 0, the expected header, complete lines, and no error about the query on
standard error. Up to 23.11.3 a failed query could exit 0 and print nothing. If sacct cannot fetch the names of TRES
after the jobs, it exits 0 and prints rows without GPUs. But sacct also prints ``error:`` about things unrelated to
the query: an odd line of slurm.conf, a first slurmdbd that is unreachable while its backup answers, or a damaged row.
A line is harmless if it also appears, word for word, when no jobs are requested: when sacct lists its fields, which
reads slurm.conf and, up to 24.11, opens the connection; or when sacctmgr lists the clusters.
"""

from __future__ import annotations

import re
from typing import AbstractSet, Sequence

from agent.errors import SlurmUnreachable, TimeRangeTooWide
from agent.slurm.process import Output
from agent.slurm.table import NOT_SLURMS

#: How sacct reports failed attempts to reach a slurmdbd. Next to rows they are harmless, since some slurmdbd answered.
#: (Lines of 20.11 to 26.05: tests/data/sacct/*/complaints.json.)
_ATTEMPT = re.compile(
    r"getaddrinfo|slurm_set_addr|unable to resolve|error connecting, bad data|address family '\d+'"
    r"|persist_?(conn|init|_recv|ent connection)",
    re.IGNORECASE,
)
#: What sacct reports about a single row while it prints it, or after the last one: the name service failed to look up a
#: uid (24.11, 26.05), TRES or array tasks are damaged (20.11 to 26.05), slurmdbd was stopped (26.05).
_ABOUT_ROWS = re.compile(r"getpwuid|no value found|bit_unfmt_hexmask|response to message type: DBD_FINI")
_TOO_WIDE = "Too wide of a date range"
_NUMBER = re.compile(r"-?\d+")
_COMMAND = re.compile(r"\w+: (?=error:|fatal:)")


def usual_complaints(stderr: str) -> frozenset[str]:
    """What a successful Slurm command printed on standard error: harmless complaints."""
    return frozenset(map(_bare, stderr.splitlines()))


def count_lines(output: Output, header: str, usual: AbstractSet[str]) -> int:
    """The number of lines after the header, if the answer can be trusted.

    :param header: the expected header.
    :param usual: see :func:`usual_complaints`.
    :raises SlurmUnreachable: if the answer can't be trusted.
    :raises TimeRangeTooWide: if slurmdbd's MaxQueryTimeRange refuses the query.
    """
    printed = output.stdout.readline()
    lines, last = 0, printed
    for last in output.stdout:  # noqa: B007  # used after the loop
        lines += 1
    complaints = [line for line in output.stderr.splitlines() if "error:" in line or "fatal:" in line]
    unusual = [line for line in complaints if _bare(line) not in usual]
    if _TOO_WIDE in output.stderr:
        raise TimeRangeTooWide("slurmdbd refuses a time range this wide to users who are not Operators")
    if output.returncode or any("fatal:" in line or not (lines and _is_harmless(line)) for line in unusual):
        raise failure(output, unusual or complaints)
    if last and not last.endswith(b"\n"):
        raise SlurmUnreachable(
            "sacct's answer was cut off in the middle of a row",
            hint="see slurmdbd's log; everything is kept, and a later run asks again",
        )
    first = printed.rstrip(b"\n").decode("utf-8", "replace")
    if first != header:
        raise SlurmUnreachable(f"sacct did not print the expected header, but {first[:100]!r}", hint=NOT_SLURMS)
    return lines


def failure(output: Output, complaints: Sequence[str] = ()) -> SlurmUnreachable:
    """The error to raise for a failed call of sacct.

    :param complaints: the relevant lines of standard error, if they are known.
    """
    said = _first_line("\n".join(complaints) or output.stderr)
    return SlurmUnreachable(
        f"sacct failed with exit status {output.returncode}: {said}",
        hint="check that slurmdbd and its database respond: sacctmgr show cluster; everything is kept",
    )


def _is_harmless(line: str) -> bool:
    """Whether the rows beside this error are complete."""
    return bool(_ATTEMPT.search(line) or _ABOUT_ROWS.search(line))


def speaks_of_attempts(stderr: str) -> bool:
    """Whether an attempt to reach a slurmdbd failed, even one that fails in every call."""
    return any(_ATTEMPT.search(line) for line in stderr.splitlines() if "error:" in line)


def _bare(line: str) -> str:
    """A line without the command's name and without its numbers, such as attempts and ports, which vary."""
    return _NUMBER.sub("#", _COMMAND.sub("", line.strip()))


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no error message"
