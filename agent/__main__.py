"""The command as a process: ``slurm-usage-history-exporter``, and ``python -m agent``."""

from __future__ import annotations

import gc

# Loading modules makes thousands of objects, none of them garbage, and Python looks for cycles after every 700.
gc.set_threshold(20_000)

from agent.cli import run  # noqa: E402

if __name__ == "__main__":
    run()
