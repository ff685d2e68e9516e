"""Queries Slurm's accounting for finished jobs, by ID or by the time they ended."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from typing import Callable, Iterator, Mapping, Sequence

from agent.errors import ConfigError, ExporterError, SlurmUnreachable, TimeRangeTooWide
from agent.slurm.conf import read_slurm_conf
from agent.slurm.environment import find_slurm_conf, make_environment
from agent.slurm.process import Child, Output, run
from agent.slurm.row import FIELDS, OPTIONAL_FIELD
from agent.slurm.scontrol import QUICK_SECONDS, Scontrol
from agent.slurm.table import NOT_SLURMS, Table, draw_separator
from agent.slurm.trust import count_lines, failure, speaks_of_attempts, usual_complaints

#: With these states and both bounds, sacct returns exactly the rows that ended between them, both bounds included,
#: even those cancelled while held. Every version knows these names; a single unknown one would fail the whole call.
ALL_ENDS = "BF,CA,CD,DL,F,NF,OOM,PR,TO,RQ,RS"
#: The states of rows whose job continues, or may continue, in a newer one.
GOING_ON = "RQ,RS,PR,NF"
#: MariaDB looks up this many IDs one by one. Above its eq_range_index_dive_limit of 200 it reads all rows that ended
#: since the start time: with five million of them, that takes 5 s instead of 0.2 s.
IDS_PER_CALL = 190
#: ``uts`` with a smaller number fails the whole call (seen on 20.11 to 26.05).
EARLIEST_SECONDS = 1_000_000
#: A refused time range is not halved below this.
NARROWEST_SECONDS = 60
_WHICH = "see ClusterName in slurm.conf, and slurm_cluster in the configuration"
_ASKED = re.compile(r"[0-9]+(_[0-9]+)?", re.ASCII)

logger = logging.getLogger(__name__)


def make_sacct_argv(
    sacct: str, fields: Sequence[str], *selection: str, separator: str, cluster: str | None = None
) -> list[str]:
    """The command line for the jobs of all users: every run, without steps.

    :param cluster: Slurm's name of the cluster, None for the one in this host's slurm.conf.
    """
    return [
        sacct,
        "--allusers",
        f"--clusters={cluster}" if cluster else "--local",  # not the other clusters of a federation
        "--duplicates",
        "--allocations",
        "--parsable2",
        f"--delimiter={separator}",
        "--noconvert",
        f"--format={','.join(fields)}",
        *selection,
    ]


def make_window_selection(start: int, end: int, states: str = ALL_ENDS) -> tuple[str, ...]:
    """Selects the rows that ended from ``start`` to ``end``, both inclusive, in epoch seconds."""
    return f"--state={states}", f"--starttime={_uts(start)}", f"--endtime={_uts(end)}"


def make_ids_selection(asked: Sequence[str], since: int) -> tuple[str, ...]:
    """Selects jobs by ID, back to ``since`` (epoch seconds).

    :param asked: raw JobIDs, or ARRAYJOBID_TASK. An invalid one would fail the whole call; an empty list would select
        everything of today.
    """
    wrong = [text for text in asked if not _ASKED.fullmatch(text)]
    if wrong or not asked:
        raise ValueError(f"no valid JobIDs to ask for: {wrong!r}")
    return f"--starttime={_uts(since)}", f"--jobs={','.join(asked)}"


def _uts(epoch_seconds: int) -> str:
    return f"uts{max(epoch_seconds, EARLIEST_SECONDS)}"


class Query:
    """A running call of sacct."""

    def __init__(self, child: Child, read: Callable[[Output], Table]) -> None:
        self._child = child
        self._read = read

    def answer(self) -> Table:
        """Waits for the answer.

        :raises SlurmUnreachable: where sacct fails, or its answer can't be trusted.
        """
        return self._read(self._child.wait())

    def cancel(self) -> None:
        """Kills the call if it is still running."""
        self._child.kill()


class WindowQuery(Query):
    """A call of sacct for what ended from ``start`` to ``end``, which is earlier than requested where MaxQueryTimeRange
    forbids the whole range."""

    def __init__(self, sacct: Sacct, start: int, end: int, states: str) -> None:
        self.start = start
        self._sacct = sacct
        self._states = states
        self._begin(end)

    def _begin(self, end: int) -> None:
        self.end = min(end, self.start + self._sacct.widest_seconds - 1) if self._sacct.widest_seconds else end
        query = self._sacct.ask(*make_window_selection(self.start, self.end, self._states), confirm=True)
        super().__init__(query._child, query._read)

    def answer(self) -> Table:
        """See :meth:`Query.answer`. Afterwards :attr:`end` is the end of the range that was answered."""
        while True:
            try:
                return super().answer()
            except TimeRangeTooWide:
                self._sacct.narrow(self.end - self.start + 1)
                self._begin(self.end)


class Sacct:
    """Calls sacct and checks its answers.

    :param sacct: the command or its path.
    :param timeout: seconds for one call.
    :param environ: the caller's environment, of which sacct inherits only a few variables.
    :param complain: called for each unreadable row.
    :param cluster: Slurm's name of the cluster to query, None for the one in this host's slurm.conf.
    :param shown_as: the cluster's name on the dashboard, None where it is not configured.
    """

    def __init__(
        self,
        sacct: str,
        scontrol: Scontrol,
        *,
        timeout: float,
        environ: Mapping[str, str],
        complain: Callable[[ExporterError], None],
        cluster: str | None = None,
        shown_as: str | None = None,
    ) -> None:
        #: The widest time range that slurmdbd accepts, None while it has not refused one.
        self.widest_seconds: int | None = None
        self._sacct = sacct
        self._scontrol = scontrol
        self._timeout = timeout
        # Epoch seconds have no time zone. The bracket text of a pending array is not truncated at 64 characters.
        self._environment = make_environment(environ, SLURM_TIME_FORMAT="%s", SLURM_BITSTR_LEN="0")
        self._complain = complain
        self._odd_rows: set[int] = set()  # hashes of the unreadable ones
        self._cluster = cluster
        self._shown_as = shown_as
        self._met: str | None = None  # the cluster of the rows so far
        self._confirmed = False
        self._fields: tuple[str, ...] = ()
        self._usual: frozenset[str] = frozenset()
        self._attempts_fail = False
        self._heard_sacctmgr = False  # whether its usual complaints are included

    def ask_window(self, start: int, end: int, states: str = ALL_ENDS) -> WindowQuery:
        """Starts a query for the rows that ended from ``start`` to ``end``, both inclusive, in epoch seconds."""
        return WindowQuery(self, start, end, states)

    def ask_ids(self, asked: Sequence[str], since: int) -> Query:
        """Starts a query for all rows of some JobIDs since ``since`` (epoch seconds)."""
        return self.ask(*make_ids_selection(asked, since))

    def ask(self, *selection: str, confirm: bool = False, again: bool = True) -> Query:
        """Starts a query for a selection of rows.

        :param confirm: whether slurmdbd has to confirm an empty answer, once in a run.
        :param again: whether to repeat the query with another separator if a row is malformed. While sacct runs, its
            separator shows in the process list; somebody who reads it there can't predict the next one.
        """
        if not self._fields:
            self._learn()
        fields, separator = self._fields, draw_separator()
        argv = make_sacct_argv(self._sacct, fields, *selection, separator=separator, cluster=self._cluster)

        def read(output: Output) -> Table:
            lines = self._count_lines(output, separator.join(fields))
            self._attempts_fail = speaks_of_attempts(output.stderr)
            if not lines and (confirm or self._attempts_fail):
                self.confirm_emptiness()
            table = Table(
                output.stdout,
                fields,
                separator,
                lines=lines,
                check_cluster=self._check_cluster,
                complain=self._set_aside,
            )
            if again and table.has_odd_rows():
                return self.ask(*selection, confirm=confirm, again=False).answer()
            return table

        return Query(Child(argv, environment=self._environment, timeout=self._timeout), read)

    def _count_lines(self, output: Output, header: str) -> int:
        """See :func:`agent.slurm.trust.count_lines`. What a successful sacctmgr complains of is harmless, too."""
        try:
            return count_lines(output, header, self._usual)
        except TimeRangeTooWide:
            raise
        except SlurmUnreachable as error:
            if output.returncode or not output.stderr or self._heard_sacctmgr:
                raise
            try:
                clusters, stderr = self._scontrol.list_clusters()
            except SlurmUnreachable:
                raise error from None
        self._heard_sacctmgr = True
        if clusters:
            self._usual |= usual_complaints(stderr)
        output.stdout.seek(0)
        return count_lines(output, header, self._usual)

    def version(self) -> str:
        """The version that sacct reports, such as ``slurm 22.05.8``.

        :raises SlurmUnreachable: where sacct can't be run.
        """
        output = run([self._sacct, "--version"], environment=self._environment, timeout=self._quick_seconds)
        if output.returncode:
            raise SlurmUnreachable(f"{self._sacct} --version failed: {output.stderr.strip()[:300]}", hint=NOT_SLURMS)
        return output.text.strip()

    @property
    def odd_rows(self) -> int:
        """The number of unreadable rows; one that came several times counts once."""
        return len(self._odd_rows)

    def _set_aside(self, row: ExporterError) -> None:
        self._odd_rows.add(hash(str(row.subject)))
        self._complain(row)

    def expect(self, cluster: str) -> None:
        """Sets the cluster whose rows are accepted from now on, by Slurm's own name."""
        self._met = cluster

    def narrow(self, refused_seconds: int) -> None:
        """Narrows the following queries because slurmdbd has refused a range of this many seconds.

        :raises SlurmUnreachable: where it refuses even the narrowest range.
        """
        try:
            allowed = self._scontrol.widest_range()
        except SlurmUnreachable:
            allowed = None
        half = refused_seconds // 2
        self.widest_seconds = allowed if allowed and allowed < refused_seconds else half
        if self.widest_seconds < NARROWEST_SECONDS:
            raise SlurmUnreachable(
                "slurmdbd's MaxQueryTimeRange does not allow this user even the shortest time range",
                hint="make the user an Operator: sacctmgr modify user NAME set AdminLevel=Operator",
            )

    def confirm_emptiness(self) -> None:
        """Makes sure that an empty answer can be trusted: slurmdbd has to respond and know the cluster.

        For an unknown cluster, and for a server that speaks another protocol, sacct exits 0 and prints nothing (seen on
        20.11 to 26.05).

        :raises SlurmUnreachable: where the answer can't be trusted.
        :raises ConfigError: where slurmdbd does not know the configured cluster.
        """
        if self._confirmed:
            return
        try:
            known = {name.lower() for name in self._scontrol.clusters()}
        except SlurmUnreachable as error:
            if self._attempts_fail:
                raise
            logger.debug("%s: an empty answer of sacct is trusted without confirmation", error)  # no sacctmgr here
            return
        for name in [self._cluster] if self._cluster else [self._met, *self._local_names()]:
            if name and name.lower() not in known:
                raise _unknown_cluster(name, known, configured=self._cluster is not None)
        if not known:
            raise SlurmUnreachable("slurmdbd does not know any cluster", hint="see sacctmgr show cluster")
        self._confirmed = True

    def _check_cluster(self, name: str) -> None:
        """Makes sure that rows belong to the right cluster.

        :raises SlurmUnreachable: where they belong to another cluster than the requested one, or than earlier rows.
        :raises ConfigError: where they would be sent under the name of another cluster of this slurmdbd.
        """
        if name == self._met:
            return
        wanted = self._cluster or self._met
        if wanted and wanted.lower() != name.lower():
            raise SlurmUnreachable(
                f"sacct was asked for cluster {wanted!r} and answered for {name!r}",
                hint=f"{_WHICH}; everything is kept",
            )
        shown_as = self._shown_as
        if not self._cluster and shown_as and shown_as.lower() != name.lower() and self._is_other_cluster(shown_as):
            raise ConfigError(
                f"these are the jobs of cluster {name}, and {shown_as} is another cluster of the same slurmdbd",
                hint=f'for the jobs of {shown_as} set slurm_cluster = "{shown_as}"; '
                f'to show those of {name} as {shown_as} set slurm_cluster = "{name}"',
            )
        self._met = name

    def _local_names(self) -> Iterator[str]:
        """ClusterName in this host's slurm.conf, which sacct uses, and in slurmctld, where they can be read."""
        conf = find_slurm_conf(self._environment)
        setting = read_slurm_conf(conf).get("ClusterName") if conf else None
        if setting:
            yield setting.value
        with suppress(SlurmUnreachable):
            yield self._scontrol.controllers().cluster

    def _is_other_cluster(self, name: str) -> bool:
        try:
            return name.lower() in {known.lower() for known in self._scontrol.clusters()}
        except SlurmUnreachable as error:
            logger.warning("%s: cannot tell whether %s is another cluster of the same slurmdbd", error, name)
            return False

    def _learn(self) -> None:
        """Asks sacct, without requesting jobs, which fields it supports and what it complains of in every call.

        One unknown field fails the whole call, so support for Restarts is looked up first, and never guessed: without
        it, where the version has it, the runs of a requeued job would be mistaken for separate jobs.

        :raises SlurmUnreachable: where sacct fails, as it does without slurmdbd (seen on 20.11 and 22.05).
        """
        output = run([self._sacct, "--helpformat"], environment=self._environment, timeout=self._timeout)
        if output.returncode:
            raise failure(output)
        self._usual = usual_complaints(output.stderr)
        self._fields = (*FIELDS, OPTIONAL_FIELD) if OPTIONAL_FIELD in output.text.split() else FIELDS

    @property
    def _quick_seconds(self) -> float:
        return min(QUICK_SECONDS, self._timeout)


def _unknown_cluster(name: str, known: set[str], *, configured: bool) -> ExporterError:
    words = f"slurmdbd does not know cluster {name}; it knows {', '.join(sorted(known)) or 'none'}"
    if configured:
        return ConfigError(words, hint="set slurm_cluster to Slurm's own name of the cluster")
    return SlurmUnreachable(words, hint=f"see ClusterName in slurm.conf, or: sacctmgr add cluster {name}")
