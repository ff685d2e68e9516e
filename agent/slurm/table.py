"""Splits sacct's output into rows, using a random separator.

Where AccountingStorageEnforce lacks ``associations``, a job's account is free text of its user: up to 255 bytes of
anything, including newlines and separators, which sacct does not escape. So each call draws its own separator, a row
may span several lines, and a row that does not have exactly the requested columns is set aside on its own.
"""

from __future__ import annotations

import secrets
from array import array
from functools import cached_property
from itertools import compress, repeat
from operator import itemgetter
from typing import IO, Callable, Iterator, Mapping, Sequence, TypeVar

from agent.errors import ExporterError, SlurmUnreachable, UnreadableRow
from agent.jobs.record import digest_row
from agent.jobs.run import Run
from agent.slurm.row import LONGEST_NUMBER, RAW_ID, parse_row

NOT_SLURMS = (
    "check that `sacct` in the configuration is Slurm's own, or a wrapper that passes on its arguments and environment;"
    " everything is kept"
)
#: Replaces the separator where rows of several calls are compared.
US = b"\x1f"
_WITHOUT_NEWLINE = itemgetter(slice(-1))
T = TypeVar("T")
#: How much of a malformed row is shown.
SHOWN_CHARACTERS = 80


def draw_separator() -> str:
    """Eight random characters. A user who puts a guess into an account is right once in 2^48 times."""
    return secrets.token_urlsafe(6)


class Table:
    """The rows of one call of sacct. They can be iterated repeatedly.

    :param stdout: what sacct printed, including the header.
    :param fields: the requested fields.
    :param separator: the requested separator.
    :param check_cluster: called once with the cluster of the rows; raises if it is the wrong one.
    :param complain: called for each unreadable row.
    :param lines: the number of lines after the header.
    """

    def __init__(
        self,
        stdout: IO[bytes],
        fields: Sequence[str],
        separator: str,
        *,
        lines: int,
        check_cluster: Callable[[str], None],
        complain: Callable[[ExporterError], None],
    ) -> None:
        self._stdout = stdout
        self._columns = len(fields)
        self._separator = separator.encode()
        self._check_cluster = check_cluster
        self._complain = complain
        self.rows = lines
        self._odd = 0  # malformed rows so far
        self._kept = bytearray()  # for each line, whether it is not skipped; empty if none is
        self._is_regular = False  # whether each line is known to be a whole row

    def __iter__(self) -> Iterator[Run]:
        cluster = None
        self._odd = 0
        separator = self._separator.decode()
        for row in self._whole_rows(self._set_aside):
            try:
                run = parse_row(row.decode("utf-8", "replace").split(separator), row.replace(self._separator, US))
            except UnreadableRow as error:
                self._odd += 1
                self._complain(error)
                continue
            if run.cluster != cluster:
                if cluster is not None:
                    raise SlurmUnreachable(
                        f"sacct answered for several clusters: {cluster!r} and {run.cluster!r}", hint=NOT_SLURMS
                    )
                cluster = run.cluster
                self._check_cluster(cluster)
            yield run
        if self._odd and cluster is None:
            raise SlurmUnreachable(f"none of the {self.rows} rows printed by sacct is readable", hint=NOT_SLURMS)

    def has_odd_rows(self) -> bool:
        """Whether any row has too few or too many columns, even when joined with the lines after it."""
        wanted = self._columns - 1
        self._is_regular = all(line.count(self._separator) == wanted for line in self._lines())
        if self._is_regular:
            return False
        odd: list[bytes] = []
        for _ in self._whole_rows(odd.append):
            pass
        return bool(odd)

    def leave_out(self, known: Mapping[bytes, T]) -> Iterator[tuple[list[str], T]]:
        """Skips the known rows from now on, except those with a repeated raw ID.

        :param known: by :func:`agent.jobs.record.digest_row`.
        :returns: yields the values of each row that is skipped, and what ``known`` holds for it.
        """
        kept = bytearray(b"\1") * self.rows
        separator, repeated_ids = self._separator.decode(), self.repeated_ids
        for number, line in enumerate(self._lines()):
            seen = known.get(digest_row(line.replace(self._separator, US)))
            if seen is not None:
                values = line.decode("utf-8", "replace").split(separator)
                if int(values[RAW_ID]) not in repeated_ids:
                    kept[number] = 0
                    yield values, seen
        self._kept = kept

    @cached_property
    def repeated_ids(self) -> set[int]:
        """The raw IDs of more than one row."""
        ordered = sorted(array("q", self._raw_ids()))  # takes a fraction of the memory of strings
        return {one for one, other in zip(ordered, ordered[1:]) if one == other}

    def _raw_ids(self) -> Iterator[int]:
        separator = self._separator
        for line in self._lines():
            raw_id = line.partition(separator)[2].partition(separator)[0]
            if raw_id.isdigit() and len(raw_id) <= LONGEST_NUMBER:
                yield int(raw_id)

    def _whole_rows(self, set_aside: Callable[[bytes], None]) -> Iterator[bytes]:
        """The rows, joined if they span several lines. Anything else is set aside up to the next complete line."""
        if self._is_regular:
            yield from self._lines()
            return
        wanted = self._columns - 1
        pending: list[bytes] = []
        missing = 0  # separators, in the pending lines
        for line in self._lines():
            here = line.count(self._separator)
            if pending and (here >= wanted or here > missing):
                set_aside(b"\n".join(pending))
                pending = []
            if here == wanted:
                yield line
            elif here > wanted:
                set_aside(line)
            else:
                missing = (missing if pending else wanted) - here
                pending.append(line)
                if not missing:
                    yield b"\n".join(pending)
                    pending = []
        if pending:
            set_aside(b"\n".join(pending))

    def _set_aside(self, row: bytes) -> None:
        self._odd += 1
        text = row.replace(self._separator, b"|").decode("utf-8", "replace")
        columns = row.count(self._separator) + 1
        self._complain(
            UnreadableRow(
                f"a row of sacct has {columns} columns instead of {self._columns}: {text[:SHOWN_CHARACTERS]!a}",
                subject=text,
            )
        )

    def _lines(self) -> Iterator[bytes]:
        self._stdout.seek(0)
        self._stdout.readline()
        return map(_WITHOUT_NEWLINE, compress(self._stdout, self._kept or repeat(1)))
