"""The rows that sacct has printed: told apart by a separator nobody can know, joined until whole, read one by one.

Where AccountingStorageEnforce lacks ``associations``, a job's account is text of its user's: up to 255 bytes of
anything, newlines and separators included, and sacct escapes nothing. So the separator is drawn for each call, a row
may go over several lines, and a row without exactly the columns that were asked for is set aside, alone.
"""

from __future__ import annotations

import secrets
from array import array
from itertools import repeat
from typing import IO, Callable, Iterator, Mapping, Sequence, TypeVar

from agent.errors import ExporterError, SlurmUnreachable, UnreadableRow
from agent.jobs.record import digest_row
from agent.jobs.run import Run
from agent.slurm.row import LONGEST_NUMBER, parse_row

NOT_SLURMS = "see that `sacct` in the configuration is Slurm's own; everything is kept"
#: Stands for the separator where rows of several calls are compared.
US = b"\x1f"
T = TypeVar("T")
#: Of a row that is set aside so many characters are shown.
SHOWN_CHARACTERS = 80


def draw_separator() -> str:
    """Eight characters that whoever has named an account could not know: one guess in 2^48 is right."""
    return secrets.token_urlsafe(6)


class Table:
    """The rows of one call of sacct. They can be gone through again and again.

    :param stdout: what sacct printed, with its header.
    :param fields: what it was asked for.
    :param separator: what it was told to put between them.
    :param check_cluster: told once of the cluster whose rows these are; raises where it is not the right one.
    :param complain: told of each row that is set aside.
    :param lines: how many lines there are behind the header.
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
        self._odd = 0  # of the rows met so far
        self._left_out = bytearray()  # for each line, whether it is left out

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
            raise SlurmUnreachable(f"none of the {self.rows} rows that sacct printed can be read", hint=NOT_SLURMS)

    def has_odd_rows(self) -> bool:
        """Whether a row lacks columns, or has too many, even with the lines behind it."""
        wanted = self._columns - 1
        if all(line.count(self._separator) == wanted for line in self._lines()):
            return False
        odd: list[bytes] = []
        for _ in self._whole_rows(odd.append):
            pass
        return bool(odd)

    def leave_out(self, known: Mapping[bytes, T]) -> list[T]:
        """From now on leaves out the rows that are known, word for word; returns what is known of them.

        :param known: by what :func:`agent.jobs.record.digest_row` makes of a row.
        """
        met: list[T] = []
        left_out = bytearray(self.rows)
        for number, line in enumerate(self._lines()):
            seen = known.get(digest_row(line.replace(self._separator, US)))
            if seen is not None:
                left_out[number] = 1
                met.append(seen)
        self._left_out = left_out
        return met

    def repeated_ids(self) -> set[int]:
        """The raw IDs that more than one row has."""
        ordered = sorted(array("q", self._raw_ids()))  # numbers take a fraction of the memory of texts
        return {one for one, other in zip(ordered, ordered[1:]) if one == other}

    def _raw_ids(self) -> Iterator[int]:
        separator = self._separator
        for line in self._lines():
            raw_id = line.partition(separator)[2].partition(separator)[0]
            if raw_id.isdigit() and len(raw_id) <= LONGEST_NUMBER:
                yield int(raw_id)

    def _whole_rows(self, set_aside: Callable[[bytes], None]) -> Iterator[bytes]:
        """The rows, those of several lines joined. What is none is set aside; the next whole line is a row again."""
        wanted = self._columns - 1
        pending: list[bytes] = []
        missing = 0  # separators, in what is pending
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
        for line, left_out in zip(self._stdout, self._left_out or repeat(0)):
            if not left_out:
                yield line[:-1]
