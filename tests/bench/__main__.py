"""Runs the benchmarks and writes their tables into docs/benchmarks.md."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable, Sequence

from . import backlog, controller, delivery, hook, ids, latency, queries
from .measure import Figure
from .report import describe_machine, make_table, note, replace_block, write_tables
from .simulation import make_simulation_table
from .site import MONTH, YEAR, Site, keep_site, open_site

BENCHMARKS: dict[str, Callable[[Site, int], list[Figure]]] = {
    "hook": hook.figures,
    "controller": controller.figures,
    "flush": delivery.flush_figures,
    "reconcile": delivery.reconcile_figures,
    "memory": delivery.memory_figures,
    "queries": queries.figures,
    "latency": latency.figures,
    "start": delivery.start_figures,
    "backlog": backlog.figures,
    "ids": ids.figures,
}
#: These measure at the year, too; the others at the month alone.
OF_THE_YEAR = {"memory", "backlog", "ids"}
#: Needs no site.
SIMULATION = "simulation"


def main(argv: Sequence[str] | None = None) -> int:
    """Exits 0 if every goal is met, otherwise 1."""
    options = _parse(argv)
    if options.keep:
        keep_site(options.scale, options.keep)
        return 0
    missed = 0
    wanted = options.only or list(BENCHMARKS)
    with open_site(options.scale, options.site, (MONTH, YEAR) if OF_THE_YEAR & set(wanted) else (MONTH,)) as site:
        for name in wanted:
            if name == SIMULATION:
                continue
            print(f"\n## {name}", flush=True)
            figures = BENCHMARKS[name](site, options.rounds)
            print(make_table(figures), flush=True)
            missed += sum(figure.met is False for figure in figures)
            if options.output:
                write_tables(options.output, {name: figures}, {name: note(options.rounds)})
    if not options.only or SIMULATION in options.only:
        table = make_simulation_table()
        if options.output:
            text = options.output.read_text(encoding="utf-8")
            options.output.write_text(replace_block(text, SIMULATION, table), encoding="utf-8")
    if options.output:
        text = options.output.read_text(encoding="utf-8")
        options.output.write_text(replace_block(text, "machine", describe_machine()), encoding="utf-8")
    return 1 if missed else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=[*BENCHMARKS, SIMULATION], help="this benchmark; can be repeated"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="of the workloads: 0.02 is enough for a try")
    parser.add_argument("--output", type=Path, help="the file to write the tables into")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="make the site, write down where, and hold it")
    parser.add_argument("--site", type=Path, metavar="FILE", help="measure at a site that --keep holds")
    options = parser.parse_args(argv)
    if options.output and not options.output.exists():
        parser.error(f"{options.output} does not exist: the prose around the tables is written by hand")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
