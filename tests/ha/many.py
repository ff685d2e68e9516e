"""``make test-many``: the long form of these tests, and the tables for docs/controllers.md.

``python -m tests.ha.many [PART...]``: pair, race, flushes, federation, frozen, state, burst; all of them by default.
nfs must be named, and needs a kernel with NFS (``make test-many-nfs``).
``ROUNDS`` (10) fail-overs, ``SECONDS`` (15) between them, ``BURST`` (10000) jobs at once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from typing import Any, Callable

from tests.ha import nfs, nfs_troubles, troubles
from tests.ha.failovers import KINDS
from tests.ha.federated import federate
from tests.ha.hosts import why_not_here
from tests.ha.races import add_old_jobs, flush_race, race
from tests.ha.sites import Federation, Pair, columns
from tests.ha.tables import HEAD, LOOK_SECONDS, describe, failovers
from tests.ha.truth import compare

ROUNDS = int(os.environ.get("ROUNDS", "10"))
SECONDS = float(os.environ.get("SECONDS", "15"))
BURST = int(os.environ.get("BURST", "10000"))


def pair() -> bool:
    """Five kinds of fail-over: what flush alone delivers, what reconcile adds, and what status reports meanwhile."""
    site = Pair()
    with site:
        said: Counter[tuple[str, str]] = Counter()
        stop = threading.Event()
        looking = threading.Thread(target=_look, args=(site, said, stop))
        looking.start()
        try:
            by_flush = failovers(site, ROUNDS, seconds=SECONDS)
        finally:
            stop.set()
            looking.join()
        codes = {name: dict(Counter(exporter.codes)) for name, exporter in site.exporters.items()}
        for exporter in site.exporters.values():
            exporter.run_later(1200, "reconcile")
        after = compare(site, site.cluster)
        _show(
            f"{ROUNDS} fail-overs ({', '.join(KINDS)} in turn), a flush every 5 s on both hosts",
            [HEAD, ["flush alone", *describe(by_flush)], ["and reconcile", *describe(after)]],
        )
        for job in (*by_flush.lost, *by_flush.wrong, *by_flush.foreign):
            print("  of flush alone:", job)
        _show("exit codes of flush", [["host", "codes"], *([name, found] for name, found in codes.items())])
        rows: list[list[Any]] = [["host", "status said", "times"]]
        rows += [[name, text, number] for (name, text), number in sorted(said.items())]
        for name, exporter in site.exporters.items():
            status = exporter.status()
            days = status["coverage"]["days"]
            caught = f"{sum(day['hooked'] for day in days)} of {sum(day['jobs'] for day in days)} caught"
            problems = [problem["text"] for problem in status["problems"]]
            rows.append([name, f"finally {status['level']}, {caught} {'; '.join(problems)}", 1])
        _show("status", rows)
    return not (after.lost or after.wrong or after.foreign)


def _look(site: Pair, said: Counter[tuple[str, str]], stop: threading.Event) -> None:
    while not stop.wait(LOOK_SECONDS):
        for name, exporter in site.exporters.items():
            try:
                status = exporter.status()
            except (AssertionError, FileNotFoundError, ValueError):  # the host is off
                said[name, "(off)"] += 1
                continue
            texts = [problem["text"].partition(",")[0] for problem in status["problems"]] or ["ok"]
            said.update((name, f"{status['level']}: {text}" if text != "ok" else text) for text in texts)


def races() -> bool:
    """A dashboard that takes two seconds for a file, without a lock; one host reconciles, the other flushes."""
    site = Pair(batch_size=100)
    with site:
        add_old_jobs(site, 2000)
        found = race(site, seconds=50, rewrite_seconds=2, flush_seconds=5, pause_seconds=0.25)
        old = compare(site, site.cluster)
        fresh = found.jobs - 2000
        rows = [["jobs by flush on ctl1", "lost", "jobs by reconcile on ctl2", "lost"]]
        rows.append([str(fresh), str(len(found.lost)), "2000", str(len(old.lost) - len(found.lost))])
        _show("a reconcile on one controller, flushes on the other, 2 s for each POST", rows)
        site.board.rewrite_seconds = 2
        both = failovers(site, 2, seconds=SECONDS, kinds=("kill", "hand"))
        _show("two fail-overs, flush against flush, 2 s for each POST", [HEAD, ["flush alone", *describe(both)]])
    return not (found.lost or old.lost or both.lost)


def flushes() -> bool:
    """Both controllers flush continuously, with jobs on each, with turns and without."""
    site = Pair(batch_size=100)
    with site:
        rows: list[list[Any]] = [["", "s for a POST", "jobs", "of ctl1 erased", "of ctl2 erased"]]
        found = {}
        for what, turns in (("without turns", False), ("with turns", True)):
            found[what] = flush_race(site, 2000, seconds=60, rewrite_seconds=1, turns=turns)
            rows.append([what, 1, 2000, *found[what].values()])
        _show("flush against flush", rows)
    return not any(found["with turns"].values())


def on_nfs() -> bool:
    """StateSaveLocation on NFS: flush against flush, a server that stops, a host that dies in its turn, fail-overs."""
    reason = nfs.why_not_here()
    if reason:
        print(reason, file=sys.stderr)
        return False
    site = Pair(on_nfs=True, batch_size=100)
    with site:
        by_flush = failovers(site, len(KINDS), seconds=SECONDS)
        _show("fail-overs with StateSaveLocation on NFS", [HEAD, ["flush alone", *describe(by_flush)]])
        rows: list[list[Any]] = [["", "flush on ctl2 took", "exit code", "it said"]]
        rows.append(["the file server answers", *nfs_troubles.flush_one(site)])
        with nfs_troubles.server_stopped(site):
            rows.append(["it does not answer", *nfs_troubles.flush_one(site)])
        rows.append(["it answers again", *nfs_troubles.flush_one(site)])
        nfs_troubles.die_in_turn(site)
        rows.append([f"ctl1 died in its turn (lease {nfs.LEASE_SECONDS} s)", *nfs_troubles.flush_one(site)])
        nfs_troubles.come_back(site)
        _show("turns on NFS", rows)
        rows = [["", "s for a POST", "jobs", "of ctl1 erased", "of ctl2 erased"]]
        for what, turns in (("without turns", False), ("with turns", True)):
            erased = flush_race(site, 1000, seconds=30, rewrite_seconds=1, turns=turns)
            rows.append([what, 1, 1000, *erased.values()])
        _show("flush against flush, StateSaveLocation on NFS", rows)
    return not (any(erased.values()) or by_flush.lost or by_flush.wrong or by_flush.foreign)


def federation() -> bool:
    """Two clusters of one slurmdbd, jobs for one, for both, and for either."""
    site = Federation()
    with site:
        results = federate(site, float(os.environ.get("FEDERATION", "60")))
        rows = [[*HEAD, "revoked", "CPU-hours shown", "CPU-hours run"]]
        for name, found in results.items():
            hours = [f"{found.hours_told:.3f}", f"{found.hours_run:.3f}"]
            rows.append([name, *map(str, describe(found.comparison)), str(found.revoked), *hours])
        _show("a federation, flush alone", rows)
    return not any(found.comparison.lost or found.comparison.sent_wrong for found in results.values())


def frozen() -> bool:
    """A spool that hangs."""
    site = Pair(backup=False)
    with site:
        found = troubles.freeze(site, 40, patience_seconds=95)
        troubles.deliver_all(site)
        site.exporters["ctl1"].run("reconcile")
        _, lost = troubles.count_lost(site)
        rows: list[list[Any]] = [
            ["jobs", "ended within", "slurmctld stopped while it hung", "and when it answered again", "queued", "lost"]
        ]
        stopped = "no, not in 95 s" if found.stopping is None else f"in {found.stopping:.0f} s"
        thawed = "no" if found.thawed is None else f"in {found.thawed:.1f} s"
        rows.append([found.jobs, f"{found.seconds:.1f} s", stopped, thawed, found.queued, lost])
        _show(f"a spool that hangs; sdiag meanwhile: {found.sdiag}", rows)
    return lost == 0


def state() -> bool:
    """A slurmctld without its state, and an older database of slurmdbd."""
    site = Pair(backup=False)
    with site:
        rows: list[list[Any]] = [["", "JobIDs in the accounting", "lost", "wrong", "on the dashboard"]]

        def add(what: str) -> None:
            troubles.deliver_all(site)
            site.exporters["ctl1"].run("reconcile")
            ids, lost = troubles.count_lost(site)
            wrong = compare(site, site.cluster).sent_wrong
            rows.append([what, ids, lost, wrong, len(site.board.stored)])

        troubles.run_jobs(site, 30)
        add("before")
        saved = troubles.dump(site)
        troubles.run_jobs(site, 30)
        add("and 30 jobs more")
        troubles.restore(site, saved)
        add("the database of before these restored")
        troubles.run_jobs(site, 30)
        add("and 30 jobs more")
        troubles.wipe_state(site)
        time.sleep(1)
        troubles.run_jobs(site, 30)
        add("StateSaveLocation wiped, the first JobIDs again")
        troubles.wipe_state(site, first_job_id=1000)
        troubles.run_jobs(site, 30)
        add("StateSaveLocation wiped, FirstJobId=1000")
        _show("wiped state, and an older database", rows)
    return not any(row[2] for row in rows[1:])


def burst() -> bool:
    """An array whose tasks all end at once."""
    site = Pair(backup=False)
    with site:
        rows: list[list[Any]] = [["s", "in slurmdbd", "hook called", "on the dashboard", "sdiag"]]
        last = None
        for last in troubles.burst(site, BURST, every_seconds=10, limit_seconds=1500):
            sdiag = troubles.agent_queues(site.ctl1)
            rows.append([f"{last.seconds:.0f}", last.ended, last.called, last.delivered, sdiag])
        _show(f"an array of {BURST} jobs", rows)
    return last is not None and last.delivered >= BURST


def _show(title: str, rows: list[Any]) -> None:
    print(f"\n{title}:\n\n{columns(rows)}\n", flush=True)


PARTS: dict[str, Callable[[], bool]] = {
    "pair": pair,
    "race": races,
    "flushes": flushes,
    "federation": federation,
    "frozen": frozen,
    "state": state,
    "burst": burst,
    "nfs": on_nfs,
}
DEFAULT = [name for name in PARTS if name != "nfs"]


def main(names: list[str]) -> int:
    """Runs the given parts, and prints which of them lost or corrupted records."""
    reason = why_not_here()
    if reason:
        print(reason, file=sys.stderr)
        return int(os.environ.get("CI") == "true")
    bad = []
    for name in names or DEFAULT:
        began = time.monotonic()
        if not PARTS[name]():
            bad.append(name)
        print(f"({name}: {time.monotonic() - began:.0f} s)", flush=True)
    print(f"not well: {', '.join(bad)}" if bad else "all is well")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
