"""Queries Slurm's accounting for finished jobs, by ID or by the time they ended."""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

from agent.config import Config
from agent.errors import ExporterError, SlurmUnreachable, TimeRangeTooWide
from agent.logger import Logger
from agent.slurm.client_commands import ClientCommands
from agent.slurm.cluster_check import ClusterCheck
from agent.slurm.complaints import count_lines, failure, speaks_of_attempts, usual_complaints
from agent.slurm.environment import make_environment
from agent.slurm.process import Child, Output, run
from agent.slurm.row import FIELDS, OPTIONAL_FIELD
from agent.slurm.sacct_argv import ALL_ENDS, make_ids_selection, make_sacct_argv, make_window_selection
from agent.slurm.sacctmgr import Sacctmgr
from agent.slurm.scontrol import Scontrol
from agent.slurm.table import NOT_SLURMS, Table, draw_separator

#: A refused time range is not halved below this.
NARROWEST_SECONDS = 60

logger = Logger(__name__)


class Query:
    """A running call of sacct."""

    def __init__(self, child: Child, read: Callable[[Output], Table]) -> None:
        self._child = child
        self._read = read

    def answer(self) -> Table:
        """Waits for the answer.

        :raises SlurmUnreachable: if sacct fails, or its answer can't be trusted.
        """
        return self._read(self._child.wait())

    def cancel(self) -> None:
        """Kills the call if it is still running."""
        self._child.kill()


class WindowQuery:
    """A call of sacct for what ended from ``start`` to ``end``, which is earlier than requested where MaxQueryTimeRange
    forbids the whole range."""

    def __init__(self, sacct: Sacct, start: int, end: int, states: str) -> None:
        self.start = start
        self._sacct = sacct
        self._states = states
        self._begin(end)

    def _begin(self, end: int) -> None:
        widest = self._sacct.widest_seconds
        self.end = min(end, self.start + widest - 1) if widest else end
        self._query = self._sacct.ask(*make_window_selection(self.start, self.end, self._states), confirm=True)

    def answer(self) -> Table:
        """See :meth:`Query.answer`. Afterwards :attr:`end` is the end of the range that was answered."""
        while True:
            try:
                return self._query.answer()
            except TimeRangeTooWide:
                self._sacct.narrow(self.end - self.start + 1)
                self._begin(self.end)

    def cancel(self) -> None:
        """See :meth:`Query.cancel`."""
        self._query.cancel()


class Sacct:
    """Calls sacct and checks its answers.

    :param environ: the caller's environment, of which sacct inherits only a few variables.
    :param complain: called for each unreadable row.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        scontrol: Scontrol,
        sacctmgr: Sacctmgr,
        complain: Callable[[ExporterError], None],
    ) -> None:
        #: The widest time range that slurmdbd accepts, None while it has not refused one.
        self.widest_seconds: int | None = None
        self._config = config
        self._sacctmgr = sacctmgr
        # Epoch seconds have no time zone. The bracket text of a pending array is not truncated at 64 characters.
        self._environment = make_environment(environ, SLURM_TIME_FORMAT="%s", SLURM_BITSTR_LEN="0")
        self._commands = ClientCommands(config, environ)
        self._complain = complain
        self._odd_rows: set[int] = set()  # hashes of the unreadable ones
        self._cluster_check = ClusterCheck(config, environ, scontrol, sacctmgr)
        self._fields: tuple[str, ...] = ()
        self._usual: frozenset[str] = frozenset()
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
        config = self._config
        argv = make_sacct_argv(config.sacct, fields, *selection, separator=separator, cluster=config.slurm_cluster)

        def read(output: Output) -> Table:
            lines = self._count_lines(output, separator.join(fields))
            attempts_fail = speaks_of_attempts(output.stderr)
            if not lines and (confirm or attempts_fail):
                self._cluster_check.confirm_emptiness(attempts_fail=attempts_fail)
            table = Table(
                output.stdout,
                fields,
                separator,
                lines=lines,
                check_cluster=self._cluster_check.check_row,
                complain=self._set_aside,
            )
            if again and table.has_odd_rows():
                return self.ask(*selection, confirm=confirm, again=False).answer()
            return table

        return Query(Child(argv, environment=self._environment, timeout=config.sacct_timeout), read)

    def _count_lines(self, output: Output, header: str) -> int:
        """See :func:`agent.slurm.complaints.count_lines`. What a successful sacctmgr complains of is harmless, too."""
        try:
            return count_lines(output, header, self._usual)
        except TimeRangeTooWide:
            raise
        except SlurmUnreachable as error:
            if output.returncode or not output.stderr or self._heard_sacctmgr:
                raise
            try:
                clusters, stderr = self._sacctmgr.list_clusters()
            except SlurmUnreachable:
                raise error from None
        self._heard_sacctmgr = True
        if clusters:
            self._usual |= usual_complaints(stderr)
        output.stdout.seek(0)
        return count_lines(output, header, self._usual)

    def version(self) -> str:
        """The version that sacct reports, such as ``slurm 22.05.8``.

        :raises SlurmUnreachable: if sacct can't be run.
        """
        sacct = self._config.sacct
        output = self._commands.attempt(sacct, "--version")
        if output.returncode:
            raise SlurmUnreachable(f"{sacct} --version failed: {output.stderr.strip()[:300]}", hint=NOT_SLURMS)
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
        self._cluster_check.expect(cluster)

    def narrow(self, refused_seconds: int) -> None:
        """Narrows the following queries because slurmdbd has refused a range of this many seconds.

        :raises SlurmUnreachable: if it refuses even the narrowest range.
        """
        try:
            allowed = self._sacctmgr.widest_range()
        except SlurmUnreachable:
            allowed = None
        half = refused_seconds // 2
        self.widest_seconds = allowed if allowed and allowed < refused_seconds else half
        if self.widest_seconds < NARROWEST_SECONDS:
            raise SlurmUnreachable(
                "slurmdbd's MaxQueryTimeRange does not allow this user even the shortest time range",
                hint="make the user an Operator: sacctmgr modify user NAME set AdminLevel=Operator",
            )

    def _learn(self) -> None:
        """Asks sacct, without requesting jobs, which fields it supports and what it complains of in every call.

        One unknown field fails the whole call, so support for Restarts is looked up first, and never guessed: without
        it, if the version has it, the runs of a requeued job would be mistaken for separate jobs.

        :raises SlurmUnreachable: if sacct fails, as it does without slurmdbd (seen on 20.11 and 22.05).
        """
        config = self._config
        output = run([config.sacct, "--helpformat"], environment=self._environment, timeout=config.sacct_timeout)
        if output.returncode:
            raise failure(output)
        self._usual = usual_complaints(output.stderr)
        self._fields = (*FIELDS, OPTIONAL_FIELD) if OPTIONAL_FIELD in output.text.split() else FIELDS
