"""A cluster's host with the exporter, in its own time zone, and a dashboard."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Mapping

from tests.proof.histories import Row
from tests.proof.jobtable import queue_line
from tests.support.dashboard import ReceivingDashboard
from tests.support.exporter import Exporter

ZONEINFO = Path("/usr/share/zoneinfo")
#: Days without an ended job that are not split into separate reconciles.
FEW_DAYS = 14


class ZonedExporter(Exporter):
    """The exporter on a host in another time zone: it has another /etc/localtime in its own mount namespace."""

    zone = "UTC"
    walking = False

    def argv(self, *arguments: str) -> list[str]:
        options = ["walk"] if self.walking else []
        options += ["--config", str(self.config)]
        command = [sys.executable, "-m", "tests.proof.running", *options, *arguments]
        if not (ZONEINFO / self.zone).exists():
            return command
        mount = f"mount --bind {ZONEINFO / self.zone} {Path('/etc/localtime').resolve()}"
        return ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]


class Site:
    """An exporter that has delivered nothing yet, and its dashboard.

    :param folder: is created, for the configuration and the spool.
    :param env: the lab's.
    :param zone: the host's.
    :param settings: more keys of the configuration.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str], dashboard: ReceivingDashboard, zone: str, **settings: Any
    ) -> None:
        self.dashboard = dashboard
        self.spool = folder / "spool"
        self.spool.mkdir(parents=True)
        env = {**env, "SLURM_USAGE_HISTORY_SPOOL": str(self.spool)}
        self._exporter = ZonedExporter(folder, env, api_url=dashboard.url, batch_size=700, **settings)
        self._exporter.zone = zone

    def flush(self, rows: list[Row], *, walking: bool) -> None:
        """Queues the ends of some rows like the hook, and flushes.

        :param walking: as if many more jobs waited, so that they are found by End.
        """
        (self.spool / "queue").write_text("".join(map(queue_line, rows)))
        self._exporter.walking = walking
        self._exporter.run("flush")

    def reconcile(self, first: date, last: date, *options: str) -> None:
        """Replays some days, inclusive."""
        self._exporter.run("reconcile", "--start-date", str(first), "--end-date", str(last), *options)


def spans(rows: list[Row]) -> list[tuple[date, date]]:
    """The first and the last day of each period, in this process's time zone, in which a job ended."""
    found: list[tuple[date, date]] = []
    for day in sorted({date.fromtimestamp(row.time_end) for row in rows if row.time_end}):
        if found and day <= found[-1][1] + timedelta(days=FEW_DAYS):
            found[-1] = found[-1][0], day
        else:
            found.append((day, day))
    return found


def differences(shown: dict[Any, Any], expected: dict[Any, Any], rows: list[Row]) -> list[Any]:
    """The differences between dashboard and SQL: the keys, the fields of both, and the rows of the job."""
    found = []
    for key in sorted({*shown, *expected}):
        here, wanted = shown.get(key, {}), expected.get(key, {})
        fields = {name: (here.get(name), wanted.get(name)) for name in {*here, *wanted}}
        odd = {name: both for name, both in fields.items() if both[0] != both[1]}
        if odd:
            found.append((key, odd, *(row for row in rows if str(row.id_job) == key[2])))
    return found
