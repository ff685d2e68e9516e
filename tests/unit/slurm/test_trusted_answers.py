"""Which of sacct's answers can be trusted: a failed query never, a harmless complaint always."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from agent.errors import ConfigError, ExporterError, SlurmUnreachable, TimeRangeTooWide
from agent.slurm.complaints import count_lines, usual_complaints
from agent.slurm.process import Output
from agent.slurm.sacct import Sacct
from agent.slurm.slurm import Slurm
from tests.support.rows import FILL_IN, make_output, make_values
from tests.support.snapshots import make_config

HEADER = make_output().decode().strip()
ROW = make_output(make_values())
EMPTY = make_output()
#: Of 22.05.8, with an extra line in slurm.conf; sacct exits with 0 and prints all its rows.
COMPLAINTS = [
    "sacct: error: Ignoring BackupController since SlurmctldHost is set.",
    "sacct: error: Ignoring ControlMachine since SlurmctldHost is set.",
    "sacct: error: Normalizing debug level from 99 to 9",
    "sacct: error: MaxArraySize value (99999999) is greater than 4000001",
    "sacct: error: TreeWidth=0 is invalid",
    "sacct: error: NodeNames=zz CPUs=7 match no Sockets, Sockets*CoresPerSocket or"
    " Sockets*CoresPerSocket*ThreadsPerCore. Resetting CPUs.",
]
#: Likewise, if the name of the first slurmdbd does not resolve and its backup answers.
UNRESOLVED = "sacct: error: get_addr_info: getaddrinfo() failed: Name or service not known: No error, attempt number {}"
REFUSED = [
    "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host:127.0.0.1:40161:"
    " Connection refused",
    "sacct: error: Sending PersistInit msg: Connection refused",
    "sacct: error: Problem talking to the database: Connection refused",
]
#: Beside all rows: a uid whose look-up fails (24.11.5, 26.05.5), a damaged tres_alloc (20.11.4 to 26.05.5) or
#: array_task_str (22.05.8 to 26.05.5), and a slurmdbd that is stopped after the last row (26.05.5).
ABOUT_ROWS = [
    "sacct: error: slurm_getpwuid_r: getpwuid_r(4000001): Input/output error",
    "sacct: error: slurmdb_find_tres_count_in_string: no value found",
    "sacct: error: slurmdb_make_tres_string_from_simple: no value found",
    "sacct: error: xlate_array_task_str: bit_unfmt_hexmask error on '0xzz'",
    "sacct: error: Getting response to message type: DBD_FINI",
]
#: sacct fetches the names of QOS and TRES after the jobs. If that fails, it exits with 0 and prints every row without
#: QOS, GPUs and memory. Seen on all four versions, with a connection cut in between and with a query killed in MariaDB.
WITHOUT_NAMES = [
    "sacct: error: DBD_GET_QOS failure: No error",
    "sacct: error: DBD_GET_TRES failure: Transport endpoint is not connected",
    "sacct: error: Getting response to message type: DBD_GET_TRES",
    "sacct: error: Unknown error 1317",
    "sacct: error: Immediate execution impossible, insufficient priority",
]


def count(stdout: bytes, stderr: str, *, usual: str = "", returncode: int = 0) -> int:
    return count_lines(Output(returncode, BytesIO(stdout), stderr), HEADER, usual_complaints(usual))


@pytest.mark.parametrize("complaint", COMPLAINTS)
@pytest.mark.parametrize(("stdout", "rows"), [(ROW, 1), (EMPTY, 0)])
def test_an_error_in_every_call_is_not_about_this_one(complaint: str, stdout: bytes, rows: int) -> None:
    """An odd line of slurm.conf stops nothing: sacct complains of it even if it is asked for no jobs."""
    assert rows == count(stdout, complaint, usual=complaint)


def test_an_error_that_sacct_prints_only_sometimes() -> None:
    """It is about the query, and no row of the answer is trusted."""
    for stdout in (ROW, EMPTY):
        with pytest.raises(SlurmUnreachable, match="sacct failed with exit status 0: sacct: error: Odd"):
            count(stdout, "sacct: error: Odd", usual=COMPLAINTS[0])


def test_a_first_slurmdbd_that_cannot_be_reached() -> None:
    """Rows beside a connection error come from the backup; the attempts are numbered again in each call."""
    reported = "\n".join(UNRESOLVED.format(number) for number in range(-4, 5))
    assert 1 == count(ROW, reported, usual=UNRESOLVED.format(-4))
    assert 1 == count(ROW, reported)


@pytest.mark.parametrize("complaint", ABOUT_ROWS)
def test_an_error_about_one_row_affects_no_other(complaint: str) -> None:
    """One damaged row, or one user that a name service can't look up, does not stop everybody's delivery."""
    assert 1 == count(ROW, complaint)
    with pytest.raises(SlurmUnreachable):
        count(EMPTY, complaint)


@pytest.mark.parametrize("complaint", WITHOUT_NAMES)
def test_rows_that_lack_their_gpus_are_not_trusted(complaint: str) -> None:
    """Even beside the connection attempts that go with it: such rows would count no GPU."""
    for usual in ("", "\n".join(REFUSED)):
        with pytest.raises(SlurmUnreachable):
            count(ROW, f"{REFUSED[0]}\n{complaint}", usual=usual)


@pytest.mark.parametrize("returncode", [0, 1])
def test_a_slurmdbd_that_is_down(returncode: int) -> None:
    """Without rows a connection error is a failure, whatever the exit status is."""
    with pytest.raises(SlurmUnreachable, match="failed to open persistent connection"):
        count(EMPTY, "\n".join(REFUSED), returncode=returncode)


def test_exit_status_1_is_never_an_answer() -> None:
    """Not with rows, nor with a complaint that is usual."""
    with pytest.raises(SlurmUnreachable):
        count(ROW, COMPLAINTS[0], usual=COMPLAINTS[0], returncode=1)


def test_a_range_that_is_too_wide() -> None:
    """MaxQueryTimeRange is distinguished from other failures, as a narrower range can be asked for."""
    with pytest.raises(TimeRangeTooWide):
        count(b"", "sacct: error: slurmdbd: Too wide of a date range in query", returncode=1)


class Commands:
    """A sacct and a sacctmgr of shell, in a folder; their arguments are recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.complaints: list[ExporterError] = []
        self.write("sacctmgr", "echo lab; echo beta")

    def write(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "$@" >>"$0.calls"\n{script}\n')
        path.chmod(0o755)

    def answer(self, output: bytes, *, stderr: str = "", before: str = "") -> None:
        """Lets sacct answer, after ``before``, which may fail some calls."""
        (self.folder / "recorded").write_bytes(output)
        fill_in = FILL_IN % {"recorded": self.folder / "recorded", "answer": self.folder / "answer"}
        says = f"echo '{stderr}' >&2" if stderr else ":"
        script = f'{says}\n[ "$1" != --helpformat ] || exit 0\n{before}\n{fill_in}cat {self.folder}/answer'
        self.write("sacct", script)

    def sacct(self, cluster: str | None = None, shown_as: str | None = None) -> Sacct:
        config = make_config(sacct=str(self.folder / "sacct"), slurm_cluster=cluster, cluster_name=shown_as)
        return Slurm(config, {"PATH": "/usr/bin:/bin"}, self.complaints.append).sacct

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def test_a_harmless_error_of_a_whole_call(commands: Commands) -> None:
    """The first call of a run learns what sacct always says."""
    commands.answer(ROW, stderr=COMPLAINTS[0])
    assert ["100"] == [run.job_id for run in commands.sacct().ask_window(1, 2).answer()]


def test_an_empty_answer_is_confirmed_by_slurmdbd(commands: Commands) -> None:
    """Once in a run: an address that speaks another protocol and an unknown cluster look the same to sacct."""
    commands.answer(EMPTY)
    sacct = commands.sacct()
    for _ in range(3):
        assert 0 == sacct.ask_window(1, 2).answer().rows
    assert 1 == len(commands.calls("sacctmgr"))


def test_an_empty_answer_beside_attempts_that_failed(commands: Commands) -> None:
    """An empty answer counts only if sacctmgr gets through with the same attempts: else slurmdbd may be down."""
    reported = UNRESOLVED.format(3)
    commands.answer(EMPTY, before=f"echo '{reported}' >&2")
    sacct = commands.sacct()
    with pytest.raises(SlurmUnreachable, match="getaddrinfo"):
        sacct.ask_window(1, 2).answer()
    commands.write("sacctmgr", f"echo '{reported}' | sed s/sacct/sacctmgr/ >&2; echo lab")
    sacct = commands.sacct()
    assert 0 == sacct.ask_window(1, 2).answer().rows
    assert 0 == sacct.ask_ids(["7"], 1).answer().rows
    assert 1 + 2 == len(commands.calls("sacctmgr"))  # to hear what is usual, and to confirm
    commands.write("sacctmgr", "exit 1")
    with pytest.raises(SlurmUnreachable):
        commands.sacct().ask_ids(["7"], 1).answer()


def test_a_cluster_that_slurmdbd_does_not_know(commands: Commands) -> None:
    """No jobs of an unknown cluster does not mean that all is well."""
    commands.answer(EMPTY)
    with pytest.raises(ConfigError, match="slurmdbd does not know cluster gamma; it knows beta, lab"):
        commands.sacct("gamma").ask_window(1, 2).answer()


def test_only_the_named_cluster_is_requested_and_accepted(commands: Commands) -> None:
    """Slurm's name of a cluster is one thing, its name on the dashboard another."""
    commands.answer(ROW)
    assert 1 == len(list(commands.sacct("lab", "beta").ask_window(1, 2).answer()))
    assert "--clusters=lab" in commands.calls("sacct")[-1]
    with pytest.raises(SlurmUnreachable, match="asked for cluster 'beta' and answered for 'lab'"):
        list(commands.sacct("beta").ask_window(1, 2).answer())


def test_one_clusters_jobs_are_not_sent_as_anothers(commands: Commands) -> None:
    """--cluster-name beta on a host of lab: refused if beta is a cluster, too; a free name is accepted."""
    commands.answer(ROW)
    with pytest.raises(ConfigError) as caught:
        list(commands.sacct(None, "beta").ask_window(1, 2).answer())
    assert 'for the jobs of beta set slurm_cluster = "beta"' in caught.value.hint
    assert 1 == len(list(commands.sacct(None, "lab at home").ask_window(1, 2).answer()))


@pytest.mark.parametrize("reported", ["MaxQueryTimeRange = 1-00:00:00", "MaxQueryTimeRange = UNLIMITED"])
def test_a_range_is_narrowed_until_slurmdbd_answers(commands: Commands, reported: str) -> None:
    """The range is narrowed to what slurmdbd allows, or else halved; the next calls keep to it."""
    day = 86_400
    commands.write("sacctmgr", f"echo 'SlurmDBD configuration:'; echo '{reported}'")
    narrow = f"""
        for word; do case $word in
            --starttime=uts*) start=${{word#*uts}} ;;
            --endtime=uts*) end=${{word#*uts}} ;;
        esac; done
        if [ $((end - start)) -ge {day} ]; then echo 'sacct: error: Too wide of a date range in query' >&2; exit 1; fi
    """
    commands.answer(ROW, before=narrow)
    sacct = commands.sacct()
    query = sacct.ask_window(100 * day, 107 * day)
    assert 1 == query.answer().rows
    assert day // 2 < query.end - query.start + 1 <= day
    before = len(commands.calls("sacct"))
    sacct.ask_window(200 * day, 207 * day).answer()
    assert 1 == len(commands.calls("sacct")) - before


def test_an_empty_range_is_reported(commands: Commands) -> None:
    """The error says what to do."""
    commands.answer(ROW, before="echo 'sacct: error: Too wide of a date range in query' >&2; exit 1")
    with pytest.raises(SlurmUnreachable, match="does not allow this user even the shortest time range") as caught:
        commands.sacct().ask_window(1, 7 * 86_400).answer()
    assert "AdminLevel=Operator" in caught.value.hint


def test_an_odd_row_is_requested_again_with_another_separator(commands: Commands) -> None:
    """A user who saw the first one in the list of processes has forged a row with it; what stays odd is set aside."""
    forged = make_output(make_values(Account="SEEN"), make_values(JobID="101", JobIDRaw="101"))
    commands.answer(forged)
    peek = f"""
        between=$(tail -n 1 {commands.folder}/sacct.calls | sed 's/.*--delimiter=\\([^ ]*\\).*/\\1/')
        test -e {commands.folder}/seen || echo "$between" >{commands.folder}/seen
        sed -i "s/SEEN/a$(cat {commands.folder}/seen)b/" {commands.folder}/recorded
    """
    commands.answer(forged, before=peek)
    sacct = commands.sacct()
    runs = list(sacct.ask_window(1, 2).answer())
    assert (["100", "101"], 0) == ([run.job_id for run in runs], sacct.odd_rows)
    commands.answer(make_output(make_values()) + b"no row\n")
    assert ["100"] == [run.job_id for run in sacct.ask_window(1, 2).answer()]
    assert (1, 1) == (sacct.odd_rows, len(commands.complaints))
