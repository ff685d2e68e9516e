"""Asks slurmdbd for everything except job records: its configuration, the clusters, and a user's rights."""

from __future__ import annotations

import re
from typing import Mapping

from agent.config import Config
from agent.slurm.client_commands import ClientCommands, parse_settings
from agent.slurm.process import Output

_DAYS_AND_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", re.ASCII)


class Sacctmgr:
    """Calls sacctmgr. Each method raises SlurmUnreachable if slurmdbd does not answer."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._commands = ClientCommands(config, environ)

    def read_accounting_config(self) -> dict[str, str]:
        """slurmdbd's own settings, from ``sacctmgr show configuration``."""
        shown = self._call("show", "configuration").text
        return parse_settings(shown.partition("SlurmDBD configuration:")[2])

    def widest_range(self) -> int | None:
        """slurmdbd's MaxQueryTimeRange in seconds, which limits users who are not Operators; None if unlimited."""
        return parse_range(self.read_accounting_config().get("MaxQueryTimeRange", ""))

    def clusters(self) -> set[str]:
        """The names of the clusters that slurmdbd knows."""
        return self.list_clusters()[0]

    def list_clusters(self) -> tuple[set[str], str]:
        """The names of the clusters that slurmdbd knows, and what sacctmgr printed on standard error."""
        output = self._call("--noheader", "--parsable2", "show", "cluster", "format=Cluster")
        return set(output.text.split()), output.stderr

    def admin_level(self, user: str) -> str:
        """The user's AdminLevel: None, Operator or Administrator; empty for a user that slurmdbd does not know."""
        selection = ("user", f"user={user}", "format=AdminLevel")
        return self._call("--noheader", "--parsable2", "show", *selection).text.strip()

    def _call(self, *arguments: str) -> Output:
        return self._commands.run(self._commands.locate("sacctmgr"), *arguments)


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
