"""Asks Slurm: finished jobs by ID or by the time they ended, and the cluster's name.

An answer of sacct is trusted only where the exit status is 0, the header is the one asked for, and standard error
holds neither ``error:`` nor ``fatal:``. Up to 23.11.3 a failed query could exit 0 with nothing.
"""

from __future__ import annotations

import re
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Mapping, Sequence

from agent.config import Config
from agent.errors import ExporterError, SlurmUnreachable, UnreadableRow
from agent.jobs.run import Run
from agent.slurm.controllers import Controllers, find_in_control, parse_controllers
from agent.slurm.environment import make_environment
from agent.slurm.row import FIELDS, OPTIONAL_FIELD, SEPARATOR, parse_row
from agent.slurm.squeue import make_squeue_argv, parse_states

if TYPE_CHECKING:
    from agent.slurm.process import Child, Output

#: With these and both bounds sacct answers with exactly the rows that ended between them, both ends included, those
#: cancelled while held among them. Every version knows these words, and one unknown word fails the whole call.
ENDED_STATES = "BF,CA,CD,DL,F,NF,OOM,PR,TO,RQ,RS"
#: The states of rows whose job goes on, or may go on, in a newer one.
GOES_ON_STATES = "RQ,RS,PR,NF"
#: So many IDs MariaDB looks up one by one. For more of them than its eq_range_index_dive_limit, 200, it reads all rows
#: that have ended since the call's start: where that are five million, 5 s instead of 0.2 s.
IDS_PER_CALL = 190
#: For a call that asks for no jobs.
QUICK_SECONDS = 30
#: For scontrol ping, which waits 10 s (MessageTimeout) for a controller whose host is off.
PING_SECONDS = 15
#: ``uts`` with a smaller number fails the whole call (tried on 20.11 to 26.05).
EARLIEST_SECONDS = 1_000_000
_NOT_SLURMS = "see that `sacct` in the configuration is Slurm's own; everything is kept"
_WHOLE = re.compile(r"[0-9]{1,11}", re.ASCII)
_ASKED = re.compile(r"[0-9]+(_[0-9]+)?", re.ASCII)


def make_sacct_argv(sacct: str, fields: Sequence[str], *selection: str) -> list[str]:
    """The call that answers with some fields of all users' jobs, every run of them, without their steps."""
    return [
        sacct,
        "--allusers",
        "--local",  # not the other clusters of a federation
        "--duplicates",
        "--allocations",
        "--parsable2",
        f"--delimiter={SEPARATOR}",
        "--noconvert",
        f"--format={','.join(fields)}",
        *selection,
    ]


def make_window_selection(start: int, end: int, states: str = ENDED_STATES) -> tuple[str, ...]:
    """Selects the rows that ended from ``start`` to ``end``, both included, in epoch seconds."""
    return f"--state={states}", f"--starttime={_uts(start)}", f"--endtime={_uts(end)}"


def make_ids_selection(asked: Sequence[str], since: int) -> tuple[str, ...]:
    """Selects jobs by ID, as far back as ``since`` (epoch seconds).

    :param asked: raw JobIDs, or ARRAYJOBID_TASK. A wrong one would fail the whole call, none would mean all of today.
    """
    wrong = [text for text in asked if not _ASKED.fullmatch(text)]
    if wrong or not asked:
        raise ValueError(f"no JobIDs to ask for: {wrong!r}")
    return f"--starttime={_uts(since)}", f"--jobs={','.join(asked)}"


def _uts(epoch_seconds: int) -> str:
    return f"uts{max(epoch_seconds, EARLIEST_SECONDS)}"


class Answer:
    """The rows of one call of sacct that can be trusted. They can be gone through again and again.

    :param fields: what was asked for.
    :param complain: told of each row that makes no sense; such a row is passed over.
    """

    def __init__(self, output: Output, fields: Sequence[str], complain: Callable[[ExporterError], None]) -> None:
        self._stdout = output.stdout
        self._complain = complain
        self.rows = _check(output, SEPARATOR.join(fields))

    def __iter__(self) -> Iterator[Run]:
        cluster = None
        unreadable = 0
        for line in self._lines():
            try:
                run = parse_row(line.split(SEPARATOR))
            except UnreadableRow as error:
                unreadable += 1
                self._complain(error)
                continue
            if run.cluster != cluster:
                if cluster is not None:
                    raise SlurmUnreachable(
                        f"sacct answered for several clusters: {cluster!r} and {run.cluster!r}", hint=_NOT_SLURMS
                    )
                cluster = run.cluster
            yield run
        if unreadable and cluster is None:
            raise SlurmUnreachable(f"none of the {unreadable} rows that sacct printed can be read", hint=_NOT_SLURMS)

    def repeated_ids(self) -> set[int]:
        """The raw IDs of the rows that share theirs, or the JobID that is shown, with another row."""
        raw_ids = array("q")
        hashes = array("q")  # of the JobIDs: numbers take a fraction of the memory of texts
        for job_id, raw_id in self._ids():
            raw_ids.append(raw_id)
            hashes.append(hash(job_id))
        repeated, repeated_hashes = _repeated(raw_ids), _repeated(hashes)
        if repeated_hashes:
            repeated.update(raw_id for job_id, raw_id in self._ids() if hash(job_id) in repeated_hashes)
        return repeated

    def _ids(self) -> Iterator[tuple[str, int]]:
        for line in self._lines():
            job_id, raw_id, *_ = line.split(SEPARATOR, 2) if SEPARATOR in line else ("", "")
            if _WHOLE.fullmatch(raw_id):
                yield job_id, int(raw_id)

    def _lines(self) -> Iterator[str]:
        self._stdout.seek(0)
        self._stdout.readline()
        for line in self._stdout:
            yield line[:-1].decode("utf-8", "replace")


class Query:
    """A call of sacct that is under way."""

    def __init__(self, child: Child, fields: Sequence[str], complain: Callable[[ExporterError], None]) -> None:
        self._child = child
        self._fields = fields
        self._complain = complain

    def answer(self) -> Answer:
        """Waits for the answer.

        :raises SlurmUnreachable: where there is none that can be trusted.
        """
        return Answer(self._child.wait(), self._fields, self._complain)

    def cancel(self) -> None:
        """Kills the call, if it still runs."""
        self._child.kill()


class Slurm:
    """Slurm's commands, as the agent calls them.

    :param timeout: seconds for one call of sacct.
    :param environ: the caller's environment, of which the commands see next to nothing.
    :param complain: told of what is passed over.
    """

    def __init__(
        self,
        sacct: str,
        scontrol: str,
        *,
        timeout: float,
        environ: Mapping[str, str],
        complain: Callable[[ExporterError], None],
    ) -> None:
        self._sacct = sacct
        self._scontrol = scontrol
        self._timeout = timeout
        # Epoch seconds have no zone, and the bracket text of a pending array is not cut at 64 characters.
        self._environment = make_environment(environ, SLURM_TIME_FORMAT="%s", SLURM_BITSTR_LEN="0")
        self._complain = complain
        self._fields: tuple[str, ...] = ()

    def ask_window(self, start: int, end: int, states: str = ENDED_STATES) -> Query:
        """Begins to ask for the rows that ended from ``start`` to ``end``, both included, in epoch seconds."""
        return self._start(*make_window_selection(start, end, states))

    def ask_ids(self, asked: Sequence[str], since: int) -> Query:
        """Begins to ask for all rows of some JobIDs that are not older than ``since`` (epoch seconds)."""
        return self._start(*make_ids_selection(asked, since))

    def read_config(self) -> dict[str, str]:
        """What ``scontrol show config`` says: slurm.conf as slurmctld has read it.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return _parse_settings(self._print(self._scontrol, "show", "config"))

    def read_accounting_config(self) -> dict[str, str]:
        """What ``sacctmgr show configuration`` says of slurmdbd's own configuration.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        _, _, text = self._print(self._beside_sacct("sacctmgr"), "show", "configuration").partition(
            "SlurmDBD configuration:"
        )
        return _parse_settings(text)

    def admin_level(self, user: str) -> str:
        """None, Operator or Administrator; empty for a user that slurmdbd does not know.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        selection = ("show", "user", f"user={user}", "format=AdminLevel")
        return self._print(self._beside_sacct("sacctmgr"), "--noheader", "--parsable2", *selection).strip()

    def version(self) -> str:
        """What sacct calls itself, such as ``slurm 22.05.8``.

        :raises SlurmUnreachable: where there is no sacct.
        """
        return self._print(self._sacct, "--version").strip()

    def job_states(self, raw_ids: Sequence[int]) -> dict[int, str]:
        """The state of those of some jobs that slurmctld knows, such as COMPLETING, by their raw IDs.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        argv = make_squeue_argv(self._beside_sacct("squeue"), raw_ids)
        return parse_states(self._child(argv, min(QUICK_SECONDS, self._timeout)).finish())

    def controllers(self) -> Controllers:
        """The controllers of the cluster, by slurmctld's own configuration.

        :raises SlurmUnreachable: where slurmctld does not answer.
        """
        return parse_controllers(self.read_config())

    def in_control(self) -> str | None:
        """The name of the controller that is in control, None where none answers."""
        # scontrol's exit code tells no more than its words; a host that is off is waited for.
        argv = (self._scontrol, "ping")
        try:
            return find_in_control(self._child(argv, PING_SECONDS).finish().text)
        except SlurmUnreachable:
            return None

    def _beside_sacct(self, command: str) -> str:
        """Slurm's other commands lie where sacct lies."""
        return str(Path(self._sacct).with_name(command)) if "/" in self._sacct else command

    def _print(self, *argv: str) -> str:
        """What a command prints that should take no time."""
        output = self._child(argv, min(QUICK_SECONDS, self._timeout)).finish()
        if output.returncode:
            raise SlurmUnreachable(
                f"{' '.join(argv[:3])} failed: {_first_line(output.stderr)}",
                hint="see that slurm.conf is there, and that munge, slurmctld and slurmdbd run: scontrol ping",
            )
        return output.text

    def _start(self, *selection: str) -> Query:
        fields = self._fields = self._fields or self._known_fields()
        argv = make_sacct_argv(self._sacct, fields, *selection)
        return Query(self._child(argv, self._timeout), fields, self._complain)

    def _child(self, argv: Sequence[str], timeout: float) -> Child:
        from agent.slurm.process import Child  # noqa: PLC0415  # slow to load, and most flushes ask for nothing

        return Child(argv, environment=self._environment, timeout=timeout)

    def _known_fields(self) -> tuple[str, ...]:
        """One unknown field fails the whole call, so the one that not every version has is looked up first."""
        output = self._child([self._sacct, "--helpformat"], self._timeout).finish()
        known = output.text.split()
        return (*FIELDS, OPTIONAL_FIELD) if OPTIONAL_FIELD in known else FIELDS


def _check(output: Output, wanted: str) -> int:
    """Tells an answer from a failure, and counts its rows."""
    complaints = [line for line in output.stderr.splitlines() if "error:" in line or "fatal:" in line]
    if output.returncode or complaints:
        said = _first_line("\n".join(complaints) or output.stderr)
        raise SlurmUnreachable(
            f"sacct failed with exit status {output.returncode}: {said}",
            hint="see that slurmdbd and its database answer: sacctmgr show cluster; everything is kept",
        )
    header = last = output.stdout.readline()
    rows = 0
    for last in output.stdout:  # noqa: B007  # it is looked at behind the loop
        rows += 1
    if last and not last.endswith(b"\n"):
        raise SlurmUnreachable(
            "sacct's answer was cut off in the middle of a row",
            hint="see slurmdbd's log; everything is kept, a later run asks again",
        )
    printed = header.rstrip(b"\n").decode("utf-8", "replace")
    if printed != wanted:
        raise SlurmUnreachable(
            f"sacct did not print the header that was asked for, but {printed[:100]!r}",
            hint=_NOT_SLURMS,
        )
    return rows


def _repeated(numbers: array[int]) -> set[int]:
    ordered = sorted(numbers)
    return {one for one, other in zip(ordered, ordered[1:]) if one == other}


def _parse_settings(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "it said nothing"


def make_slurm(config: Config, environ: Mapping[str, str], complain: Callable[[ExporterError], None]) -> Slurm:
    """Slurm's commands, as configured."""
    return Slurm(config.sacct, config.scontrol, timeout=config.sacct_timeout, environ=environ, complain=complain)
