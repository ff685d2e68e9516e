"""Which of sacct's answers can be trusted. Pure but for reading what it has printed.

Trusted is an answer with exit status 0, the header that was asked for, whole lines, and nothing on standard error that
speaks of the query. Up to 23.11.3 a failed query could exit 0 with nothing. But sacct also says ``error:`` about what
has nothing to do with the query: an odd line of slurm.conf, or a first slurmdbd that can't be reached while its backup
answers. That is told from a failure by what is said, word for word, where nobody asks for jobs: by sacct when it lists
its fields, which reads slurm.conf and, up to 24.11, opens the connection; and by a sacctmgr that lists the clusters.
"""

from __future__ import annotations

import re
from typing import AbstractSet, Sequence

from agent.errors import SlurmUnreachable, TimeRangeTooWide
from agent.slurm.process import Output
from agent.slurm.table import NOT_SLURMS

#: How sacct speaks of an attempt to reach a slurmdbd, and how it says that none has succeeded. Beside rows the former
#: does not count: they come from one that answered. (Lines of 20.11 to 26.05: tests/data/sacct/*/complaints.json.)
_ATTEMPT = re.compile(
    r"getaddrinfo|slurm_set_addr|unable to resolve|error connecting, bad data|address family '\d+'"
    r"|persist_?(conn|init|_recv|ent connection)",
    re.IGNORECASE,
)
_TOO_WIDE = "Too wide of a date range"
_NUMBER = re.compile(r"-?\d+")
_COMMAND = re.compile(r"\w+: (?=error:|fatal:)")


def usual_complaints(stderr: str) -> frozenset[str]:
    """What a command of Slurm says on standard error although it does all that it should."""
    return frozenset(map(_bare, stderr.splitlines()))


def count_lines(output: Output, header: str, usual: AbstractSet[str]) -> int:
    """How many lines there are behind the header of an answer that can be trusted.
    :param header: as it has to be.
    :param usual: see :func:`usual_complaints`.
    :raises SlurmUnreachable: where it can't be trusted.
    """
    printed = output.stdout.readline()
    lines, last = 0, printed
    for last in output.stdout:  # noqa: B007  # it is looked at behind the loop
        lines += 1
    complaints = [line for line in output.stderr.splitlines() if "error:" in line or "fatal:" in line]
    unusual = [line for line in complaints if _bare(line) not in usual]
    if _TOO_WIDE in output.stderr:
        raise TimeRangeTooWide("slurmdbd refuses a time range this wide to users who are no Operator")
    if output.returncode or any("fatal:" in line or not (lines and _ATTEMPT.search(line)) for line in unusual):
        raise failure(output, unusual or complaints)
    if last and not last.endswith(b"\n"):
        raise SlurmUnreachable(
            "sacct's answer was cut off in the middle of a row",
            hint="see slurmdbd's log; everything is kept, a later run asks again",
        )
    first = printed.rstrip(b"\n").decode("utf-8", "replace")
    if first != header:
        raise SlurmUnreachable(
            f"sacct did not print the header that was asked for, but {first[:100]!r}", hint=NOT_SLURMS
        )
    return lines


def failure(output: Output, complaints: Sequence[str] = ()) -> SlurmUnreachable:
    """What to raise for a call of sacct that has failed.

    :param complaints: the lines on standard error that tell of it, where they are known.
    """
    said = _first_line("\n".join(complaints) or output.stderr)
    return SlurmUnreachable(
        f"sacct failed with exit status {output.returncode}: {said}",
        hint="see that slurmdbd and its database answer: sacctmgr show cluster; everything is kept",
    )


def speaks_of_attempts(stderr: str) -> bool:
    """Whether an attempt to reach a slurmdbd has failed, be it one that fails in every call."""
    return any(_ATTEMPT.search(line) for line in stderr.splitlines() if "error:" in line)


def _bare(line: str) -> str:
    """A line without the command's name, and without numbers: attempts have one, and ports vary."""
    return _NUMBER.sub("#", _COMMAND.sub("", line.strip()))


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "it said nothing"
