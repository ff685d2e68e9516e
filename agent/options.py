"""The options of each command, as they leave the command line."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Sequence

#: The name of an instance: safe without quoting in unit names, folder names and shell commands.
INSTANCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")

# argparse sets the fields; what is not given stays as the class has it. NamedTuples take longer to load.


class GlobalOptions:
    """The options of every command."""

    config: Path | None = None
    cluster_name: str | None = None
    instance: str = ""
    dry_run: bool = False
    verbose: bool = False


class FlushOptions:
    """``flush`` has no options of its own."""


class ReconcileOptions:
    """The options of ``reconcile``. Both days are inclusive and in the cluster's time zone."""

    start_date: date | None
    end_date: date | None
    only_missing: bool


class RunOptions:
    """The options of ``run``; times in seconds."""

    every: float
    reconcile_every: float
    health_file: Path | None


class QueueOptions:
    """The options of ``queue``."""

    action: str
    jobs: Sequence[str] = ()
    all: bool = False


class StatusOptions:
    """The options of ``status``."""

    json: bool = False
    check: bool = False


class CheckOptions:
    """The options of ``check``. ``wait`` and ``test_job`` ask it to wait for a real call of the hook."""

    json: bool
    wait: int | None = None  # seconds
    test_job: bool = False


class SetupOptions:
    """The options of ``setup``; exactly one of the two keys is given."""

    api_url: str
    deploy_key: str | None
    api_key_file: Path | None
    allow_http: bool
    yes: bool


#: What timers and monitoring call often, without options of its own: a parser would take a tenth of the time.
BARE_COMMANDS = {"flush": FlushOptions, "status": StatusOptions}
