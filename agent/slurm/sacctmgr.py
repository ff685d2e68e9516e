"""Asks slurmdbd for everything except job records: its configuration, the clusters, and a user's rights."""

from __future__ import annotations

import re
from typing import Mapping

from agent.slurm.process import Output
from agent.slurm.quick_call import QuickCalls, locate, parse_settings

_DAYS_AND_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", re.ASCII)


class Sacctmgr:
    """Calls sacctmgr.

    :param scontrol: the command or its path.
    :param sacct: likewise; sacctmgr is expected in the folder of one of them.
    :param timeout: see :class:`QuickCalls`.
    :param environ: likewise.
    """

    def __init__(self, scontrol: str, sacct: str, *, timeout: float, environ: Mapping[str, str]) -> None:
        self._sacctmgr = locate("sacctmgr", scontrol, sacct)
        self._calls = QuickCalls(timeout=timeout, environ=environ)

    def read_accounting_config(self) -> dict[str, str]:
        """slurmdbd's own settings, from ``sacctmgr show configuration``.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        _, _, text = self._calls.run(self._sacctmgr, "show", "configuration").text.partition("SlurmDBD configuration:")
        return parse_settings(text)

    def widest_range(self) -> int | None:
        """slurmdbd's MaxQueryTimeRange in seconds, which limits users who are not Operators; None if unlimited.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        return parse_range(self.read_accounting_config().get("MaxQueryTimeRange", ""))

    def clusters(self) -> set[str]:
        """The names of the clusters that slurmdbd knows.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        return self.list_clusters()[0]

    def list_clusters(self) -> tuple[set[str], str]:
        """The names of the clusters that slurmdbd knows, and what sacctmgr printed on standard error.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        output = self._show("cluster", "format=Cluster")
        return set(output.text.split()), output.stderr

    def admin_level(self, user: str) -> str:
        """The user's AdminLevel: None, Operator or Administrator; empty for a user that slurmdbd does not know.

        :raises SlurmUnreachable: where slurmdbd does not answer.
        """
        return self._show("user", f"user={user}", "format=AdminLevel").text.strip()

    def _show(self, *selection: str) -> Output:
        return self._calls.run(self._sacctmgr, "--noheader", "--parsable2", "show", *selection)


def parse_range(text: str) -> int | None:
    """A MaxQueryTimeRange, as sacctmgr prints it, in seconds; None for UNLIMITED and anything that is not a time.

    >>> parse_range("7-00:00:00"), parse_range("12:00:00"), parse_range("UNLIMITED")
    (604800, 43200, None)
    """
    match = _DAYS_AND_TIME.fullmatch(text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
