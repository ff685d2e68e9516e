"""The ledger: all or nothing in every transaction, and no damage to it prevents a fresh start."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import LedgerDamaged, SpoolError
from agent.jobs.queue_entry import QueueEntry
from agent.jobs.record import Record
from agent.spool import schema
from agent.spool.database import put_aside
from agent.spool.delivered import Known
from agent.spool.ledger import Ledger, open_ledger, view_ledger
from agent.spool.run_history import RunReport
from agent.spool.waiting import NO_RECORD, REFUSED
from agent.sync.lookback import KNOWN_TO
from tests.support.disk import fill, small_disk
from tests.support.rows import make_run

NOW = 1_700_000_000.0
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def make_record(job_id: int, *, submit: int = int(NOW) - 100, text: str = "{}") -> Record:
    return Record((job_id, submit), int(NOW) - 10, str(job_id), 90, 0, text)


def queue(ledger: Ledger, *entries: QueueEntry, now: float = NOW) -> None:
    with ledger.transaction():
        ledger.waiting.add(entries, now)


def entries(ledger: Ledger) -> list[QueueEntry]:
    return sorted((item.entry for item in ledger.waiting.newest()), key=lambda entry: entry.key)


def test_a_newer_end_of_a_waiting_job(ledger: Ledger) -> None:
    """The job is due again at once, with the newest times reported, in whatever order they came."""
    for entry in (QueueEntry(7, 100, 200), QueueEntry(7), QueueEntry(7, 300, 400), QueueEntry(7, 100, 200)):
        queue(ledger, entry)
    assert [QueueEntry(7, 300, 400)] == entries(ledger)


def test_a_task_and_its_array_are_two_jobs(ledger: Ledger) -> None:
    """The last task of an array has the array's raw ID."""
    queue(ledger, QueueEntry(203), QueueEntry(203, array_task=3))
    assert 2 == len(entries(ledger))


def test_a_transaction_is_all_or_nothing(ledger: Ledger) -> None:
    """An interruption in the middle leaves no trace, and the ledger stays usable."""

    def interrupted() -> Iterator[QueueEntry]:
        yield QueueEntry(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ledger.transaction():
        ledger.waiting.add(interrupted(), NOW)
    queue(ledger, QueueEntry(2))
    assert [QueueEntry(2)] == entries(ledger)


def test_an_interruption_as_a_transaction_begins(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGTERM at that very moment leaves no transaction open: the run still records how it ended."""
    execute = ledger.database.execute

    def interrupted(statement: str, values: Sequence[Any] = ()) -> list[Any]:
        execute(statement, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger.database, "execute", interrupted)
        with pytest.raises(KeyboardInterrupt), ledger.transaction():
            pytest.fail("it began")
    queue(ledger, QueueEntry(2))
    assert [QueueEntry(2)] == entries(ledger)


def test_a_dry_run_leaves_no_trace(path: Path, ledger: Ledger) -> None:
    """Everything that a dry run writes is rolled back."""
    with ledger.rehearsal():
        queue(ledger, QueueEntry(1))
        assert [QueueEntry(1)] == entries(ledger)
    ledger.close()
    assert [] == entries(view_ledger(path))


def test_committed_data_is_visible_to_others(path: Path, ledger: Ledger) -> None:
    """Another process sees committed data at once."""
    queue(ledger, QueueEntry(1))
    assert [QueueEntry(1)] == entries(view_ledger(path))


@pytest.mark.parametrize("name", ["a b", "50%", "%3F", "what?", "#1", os.fsdecode(b"\xff")])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """The ledger is opened for reading by a URI, in which some characters are special."""
    path = tmp_path / name / "ledger.db"
    path.parent.mkdir()
    ledger, _ = open_ledger(path)
    queue(ledger, QueueEntry(1))
    ledger.close()
    assert [QueueEntry(1)] == entries(view_ledger(path))


@pytest.mark.parametrize("ahead", [1.0, 3600.0])
def test_deferred_jobs_are_not_due(ledger: Ledger, ahead: float) -> None:
    """A deferred job becomes due at its time and not before."""
    queue(ledger, QueueEntry(1), now=NOW + ahead)
    assert ([], NOW + ahead) == (ledger.waiting.due(NOW, after=(0, 0), limit=9), ledger.waiting.next_due(NOW))
    assert 1 == len(ledger.waiting.due(NOW + ahead, after=(0, 0), limit=9))


def test_jobs_deferred_before_the_clock_was_set_back_are_due(ledger: Ledger) -> None:
    """A job that would wait for more than an hour after the clock was set back is due."""
    queue(ledger, QueueEntry(1), now=NOW + 3601)
    assert NOW == ledger.waiting.next_due(NOW)
    assert 1 == len(ledger.waiting.due(NOW, after=(0, 0), limit=9))


def test_due_continues_after_a_key(ledger: Ledger) -> None:
    """Page by page, each job once, tasks behind their array."""
    queue(ledger, QueueEntry(1), QueueEntry(2), QueueEntry(2, array_task=0), QueueEntry(2, array_task=5), QueueEntry(3))
    pages = []
    after = (0, 0)
    while True:
        page = ledger.waiting.due(NOW, after=after, limit=2)
        if not page:
            break
        pages.append([item.key for item in page])
        after = page[-1].key
    assert [[(1, -1), (2, -1)], [(2, 0), (2, 5)], [(3, -1)]] == pages


def test_what_is_known_of_a_delivered_job(ledger: Ledger) -> None:
    """Its digest, whether the hook brought it, and whether a newer run of the year has overtaken it."""
    old, new = make_record(7), make_record(7, submit=int(NOW) - 50)
    with ledger.transaction():
        ledger.delivered.add("lab", [new], "flush", NOW, hooked=True)
    assert (
        Known(new.digest, hooked=True, superseded=False, delivered_at=NOW)
        == ledger.delivered.known("lab", [new])[new.key]
    )
    assert Known(b"", hooked=False, superseded=True) == ledger.delivered.known("lab", [old])[old.key]
    assert {} == ledger.delivered.known("other", [new])


def test_known_rows_are_looked_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """By raw ID and by JobID the index leads to the few rows in question: none of the others is read."""
    execute = ledger.database.execute
    plans: list[str] = []

    def explain_and_execute(statement: str, values: Sequence[Any] = ()) -> list[Any]:
        plans.extend(row[-1] for row in execute(f"EXPLAIN QUERY PLAN {statement}", values))
        return execute(statement, values)

    monkeypatch.setattr(ledger.database, "execute", explain_and_execute)
    ledger.delivered.known("lab", [make_record(7)._replace(job_id="7_1")])
    assert ["cluster=? AND job_id=?", "cluster=? AND shown_id=?"] == [plan[plan.index("(") + 1 : -1] for plan in plans]


def test_a_delivery_ends_a_rejection(ledger: Ledger) -> None:
    """A record that was accepted after all is no longer rejected; a dropped one stays hidden, but remembered."""
    with ledger.transaction():
        ledger.rejected.add("lab", make_record(1), "no", NOW, hooked=True)
        ledger.rejected.add("lab", make_record(2), "no", NOW, hooked=True)
        ledger.delivered.add("lab", [make_record(1)], "flush", NOW, hooked=True)
        ledger.rejected.drop(2, "2")
    assert ([], 0) == (list(ledger.rejected.newest()), ledger.rejected.count())
    assert [(2, int(NOW) - 100)] == list(ledger.rejected.digests("lab"))


def test_idle_runs_leave_one_line(ledger: Ledger) -> None:
    """Idle runs every five minutes do not fill the disk; runs with work and failures are kept."""
    with ledger.transaction():
        for started, (exit_code, delivered) in enumerate([(0, 0), (0, 5), (69, 0), (0, 0), (0, 0)]):
            ledger.history.add_run(RunReport("flush", started, 0.1, exit_code, "", delivered))
    assert [4.0, 4.0, 1.0] == [
        run.started_at
        for run in (
            ledger.history.last_run("flush"),
            ledger.history.last_run("flush", successful=True),
            ledger.history.last_run("flush", with_work=True),
        )
        if run
    ]
    assert 3 == len(ledger.database.execute("SELECT * FROM runs"))


def test_prune_forgets_what_is_old(ledger: Ledger) -> None:
    """What no window reaches any more is removed; what waits or was rejected is kept forever."""
    with ledger.transaction():
        ledger.delivered.add("lab", [make_record(1)], "flush", NOW, hooked=True)
        ledger.rejected.add("lab", make_record(2), "no", NOW, hooked=True)
        ledger.earlier_runs.add([make_run(JobIDRaw="3", End=str(int(NOW) - 10))])
    queue(ledger, QueueEntry(4))
    with ledger.transaction():
        ledger.prune(ended_before=NOW, requeued_before=NOW, runs_before=NOW)
    assert {} == ledger.delivered.known("lab", [make_record(1)])
    assert {} == ledger.earlier_runs.of([3])
    assert ([2], [QueueEntry(4)]) == ([record.job_id for record in ledger.rejected.newest()], entries(ledger))


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + bytes(100)])
def test_a_file_that_is_not_a_ledger_is_set_aside(path: Path, content: bytes) -> None:
    """The damaged file is kept beside the new one, and reported."""
    path.write_bytes(content)
    ledger, put_aside = open_ledger(path)
    queue(ledger, QueueEntry(1))
    ledger.close()
    (aside,) = path.parent.glob("ledger.db.aside.*")
    assert content == aside.read_bytes()
    assert f"it was set aside as {aside}" in put_aside


def test_a_ledger_of_a_newer_version_is_set_aside(path: Path) -> None:
    """Its content is unknown, so a new ledger is started and reconcile replays the window."""
    with sqlite3.connect(str(path)) as database:
        database.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    database.close()
    ledger, put_aside = open_ledger(path)
    ledger.close()
    (aside,) = path.parent.glob("ledger.db.aside.*")
    fact = f"{path} has version {schema.VERSION + 1}, newer than this program's {schema.VERSION}"
    assert f"{fact}; it was set aside as {aside}. The next reconcile replays the whole window" == put_aside


def test_a_ledger_that_cannot_be_set_aside(path: Path) -> None:
    """The error says what prevents it, and what to check."""
    with pytest.raises(SpoolError) as caught:
        put_aside(path)
    assert f"cannot set the damaged {path} aside: No such file or directory" == str(caught.value)
    mend = "check that the spool's disk is writable and not full, and that the file belongs to the Slurm user"
    assert mend == caught.value.hint


def test_a_value_that_only_a_bad_disk_can_leave(ledger: Ledger) -> None:
    """sacct would refuse all other jobs for this one."""
    queue(ledger, QueueEntry(7))
    ledger.database.execute("UPDATE waiting SET attempts = 'x'")
    with pytest.raises(LedgerDamaged, match=r"^the ledger contains an impossible job: \(7, .*'x'"):
        entries(ledger)


wounds = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=600)), max_size=4)


@settings(max_examples=60)
@given(wounds=wounds, rest=st.floats(0.2, 1))
def test_any_damage_is_survived(tmp_path: Path, wounds: list[tuple[float, bytes]], rest: float) -> None:
    """Whatever a bad disk makes of the file, a ledger works again after at most one failed run."""
    path = Path(tempfile.mkdtemp(dir=tmp_path)) / "ledger.db"
    ledger, _ = open_ledger(path)
    with ledger.transaction():
        ledger.waiting.add(map(QueueEntry, range(1, 2000)), NOW)
        ledger.delivered.add("lab", [make_record(job_id) for job_id in range(500)], "flush", NOW, hooked=True)
    ledger.close()
    content = bytearray(path.read_bytes())
    for place, wound in wounds:
        start = int(place * len(content))
        content[start : start + len(wound)] = wound
    path.write_bytes(content[: int(rest * len(content))])
    try:
        use(path)
    except LedgerDamaged:
        put_aside(path)
        use(path)


def use(path: Path) -> None:
    """Does what a run does with the ledger."""
    ledger, _ = open_ledger(path)
    try:
        queue(ledger, QueueEntry(5000))
        ledger.waiting.next_due(NOW)
        assert QueueEntry(5000) in [item.entry for item in ledger.waiting.due(NOW, after=(0, 0), limit=9999)]
        with ledger.transaction():
            ledger.waiting.forget([(5000, -1)])
            ledger.delivered.add("lab", [make_record(5000)], "flush", NOW, hooked=True)
            ledger.prune(ended_before=NOW, requeued_before=NOW, runs_before=NOW)
    finally:
        ledger.close()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_ledger_is_upgraded(path: Path, version: int) -> None:
    """An upgrade keeps all that can't be read again; tests/data/ledger has files written by older versions."""
    path.write_bytes((ROOT / f"tests/data/ledger/version-{version}.db").read_bytes())
    ledger, put_aside = open_ledger(path)
    assert "" == put_aside
    assert [
        (QueueEntry(203, array_task=3), 0, "no_record", "not sent yet"),
        (QueueEntry(100, int(NOW) - 100, int(NOW) - 10), 0, "no_record", "not sent yet"),
        (QueueEntry(77, int(NOW) - 100, int(NOW) - 10), 1, "refused", "500 'Internal: a; b'"),
        (QueueEntry(5), 3, "no_record", "no record yet"),
    ] == [(item.entry, item.attempts, item.state, item.reason) for item in ledger.waiting.newest()]
    assert make_record(7).digest == ledger.delivered.known("lab", [make_record(7)])[make_record(7).key].digest
    assert ([10.0, 10.0], 1) == (ledger.delivered.latencies(0, 9), ledger.rejected.count())
    history, facts = ledger.history, ledger.facts
    assert ({}, 0.0) == (ledger.earlier_runs.of([6]), facts.get(KNOWN_TO))  # they are read again
    assert ({"2023-11-14": (10, 9)}, 2.0) == (history.coverage("2023-01-01"), facts.get("given_up"))
    assert [(4, NOW)] == list(history.calls().values())
    ledger.close()
    use(path)


def test_refused_jobs_differ_from_jobs_without_a_record(ledger: Ledger) -> None:
    """Once another job was taken a refused one is due at once; counts leave its message out, as each may differ."""
    queue(ledger, QueueEntry(1), QueueEntry(2))
    with ledger.transaction():
        for job_id in (1, 3):
            ledger.waiting.add_refused((job_id, -1), make_record(job_id), f"500 of {job_id}", NOW, due_at=NOW + 1800)
        ledger.waiting.postpone(
            [item._replace(due_at=NOW + 60) for item in ledger.waiting.newest() if item.key[0] == 2]
        )
    assert {"refused by the dashboard": 2, "not sent yet": 1} == ledger.waiting.reasons()
    expected = [(REFUSED, "500 of 3"), (NO_RECORD, "not sent yet"), (REFUSED, "500 of 1")]
    assert expected == [(item.state, item.reason) for item in ledger.waiting.newest()]
    with ledger.transaction():
        ledger.waiting.retry_refused(NOW)
    assert [1, 3] == [item.entry.job_id for item in ledger.waiting.due(NOW, after=(0, 0), limit=9)]


def test_a_record_that_is_retried_is_no_longer_rejected(ledger: Ledger) -> None:
    """Its record may have changed since."""
    with ledger.transaction():
        ledger.waiting.add_refused((1, -1), make_record(1), "500", NOW, due_at=NOW + 1800)
        ledger.waiting.postpone(
            [item._replace(reason="no record yet", state=NO_RECORD) for item in ledger.waiting.newest()]
        )
    assert {"no record yet": 1} == ledger.waiting.reasons()


def test_many_processes_open_it_at_once(path: Path) -> None:
    """Whichever process creates the tables, all of them use the same ones."""
    code = (
        "import sys; from pathlib import Path; from agent.jobs.queue_entry import QueueEntry\n"
        "from agent.spool.ledger import open_ledger; ledger, aside = open_ledger(Path(sys.argv[1])); assert not aside\n"
        "with ledger.transaction(): ledger.waiting.add([QueueEntry(int(sys.argv[2]))], 0)\n"
    )
    argv = [sys.executable, "-c", code, str(path)]
    with ThreadPoolExecutor(8) as pool:
        done = pool.map(lambda job_id: subprocess.run([*argv, str(job_id)], check=False, cwd=ROOT), range(1, 9))
    assert [0] * 8 == [process.returncode for process in done]
    assert [QueueEntry(job_id) for job_id in range(1, 9)] == entries(view_ledger(path))


def test_a_full_disk_is_not_treated_as_damage(tmp_path: Path) -> None:
    """A failed write is reported and undone, what is written stays, and work continues once there is room."""
    with small_disk(tmp_path / "spool", 400) as spool:
        ledger, _ = open_ledger(spool / "ledger.db")
        queue(ledger, QueueEntry(1))
        filler = fill(spool)
        with pytest.raises(SpoolError, match="full"):
            queue(ledger, *map(QueueEntry, range(2, 5000)))
        assert [QueueEntry(1)] == entries(ledger)
        filler.unlink()
        queue(ledger, QueueEntry(2))
        assert [QueueEntry(1), QueueEntry(2)] == entries(ledger)
        ledger.close()
    assert not list(tmp_path.glob("*.aside.*"))
