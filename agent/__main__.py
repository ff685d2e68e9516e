"""``python -m agent`` is the command ``slurm-usage-history-exporter``."""

from __future__ import annotations

from agent.cli import run

run()
