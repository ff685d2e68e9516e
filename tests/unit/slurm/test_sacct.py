"""Slurm is asked unambiguously, and an answer is used only if it can be trusted."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ExporterError, SlurmUnreachable
from agent.slurm.complaints import count_lines
from agent.slurm.process import Output, run
from agent.slurm.row import FIELDS
from agent.slurm.sacct_argv import make_ids_selection, make_sacct_argv, make_window_selection
from agent.slurm.slurm import Slurm
from agent.slurm.table import Table
from tests.support.disk import small_disk
from tests.support.rows import FILL_IN, SEPARATOR, make_output, make_run, make_values
from tests.support.snapshots import make_config
from tests.support.waiting import wait_for


def read(stdout: bytes, stderr: str = "", returncode: int = 0) -> tuple[list[Any], list[ExporterError]]:
    """The runs of an answer, and what was complained of."""
    complaints: list[ExporterError] = []
    lines = count_lines(Output(returncode, BytesIO(stdout), stderr), SEPARATOR.join(FIELDS), frozenset())
    return [run._replace(row=b"") for run in make_table(stdout, lines, complaints.append)], complaints


def make_table(stdout: bytes, lines: int, complain: Callable[[ExporterError], None] = lambda error: None) -> Table:
    return Table(BytesIO(stdout), FIELDS, SEPARATOR, lines=lines, check_cluster=lambda name: None, complain=complain)


def test_argv_of_a_window() -> None:
    """The exact command line: all users, all runs, no steps, selected by state and both bounds."""
    assert [
        "sacct",
        "--allusers",
        "--local",
        "--duplicates",
        "--allocations",
        "--parsable2",
        "--delimiter=drawn",
        "--noconvert",
        "--format=JobID,JobIDRaw,Cluster,User,UID,Account,Partition,State,QOS,Submit,Start,End,ElapsedRaw,AllocCPUS,"
        "AllocNodes,AllocTRES,NodeList",
        "--state=BF,CA,CD,DL,F,NF,OOM,PR,TO,RQ,RS",
        "--starttime=uts1700000000",
        "--endtime=uts1700003600",
    ] == make_sacct_argv("sacct", FIELDS, *make_window_selection(1_700_000_000, 1_700_003_600), separator="drawn")


def test_selection_by_id_has_a_bound() -> None:
    """Without a start, a recycled JobID would answer with somebody's old job."""
    selection = make_ids_selection(["7", "203_3"], 1_700_000_000)
    assert ("--starttime=uts1700000000", "--jobs=7,203_3") == selection


@pytest.mark.parametrize("since", [-5, 0, 999_999])
def test_no_time_is_too_early_for_sacct(since: int) -> None:
    """Below a million, "uts" fails the whole call on every version."""
    assert "--starttime=uts1000000" == make_ids_selection(["7"], since)[0]
    assert ("--starttime=uts1000000", "--endtime=uts1000000") == make_window_selection(since, since)[1:]


@pytest.mark.parametrize("asked", [[], ["7", ""], ["7;"], ["7 "], ["-1"], ["7_"], ["²"]])
def test_only_jobids_are_requested(asked: list[str]) -> None:
    """A bad token fails the whole call, an empty list answers with all of today."""
    with pytest.raises(ValueError, match="no valid JobIDs"):
        make_ids_selection(asked, 5)


def test_rows() -> None:
    """A header and rows become runs."""
    assert ([make_run(), make_run(JobID="7")], []) == read(make_output(make_values(), make_values(JobID="7")))


def test_header_alone() -> None:
    """A header without rows means that nothing has ended."""
    assert ([], []) == read(make_output())


@pytest.mark.parametrize(
    ("stdout", "stderr", "returncode"),
    [
        (make_output(make_values()), "", 1),
        (make_output(), "sacct: error: slurmdbd: Connection refused", 0),
        (make_output(), "sacct: fatal: no", 0),
        (b"", "", 0),
        (b"JobID|State\n", "", 0),
        (make_output(make_values())[:-1], "", 0),
    ],
    ids=["exit status", "error on stderr", "fatal on stderr", "nothing", "another header", "cut off"],
)
def test_an_answer_that_cannot_be_trusted(stdout: bytes, stderr: str, returncode: int) -> None:
    """An answer needs exit status 0, the header, whole lines and a silent standard error; else it is a failure."""
    with pytest.raises(SlurmUnreachable):
        read(stdout, stderr, returncode)


def test_a_warning_on_stderr_is_harmless() -> None:
    """Only lines with error: or fatal: make an answer invalid."""
    assert 1 == len(read(make_output(make_values()), "sacct: warning: something")[0])


def test_one_odd_line_is_skipped() -> None:
    """It is reported, and the rows beside it are unaffected."""
    runs, complaints = read(make_output(make_values(), ["odd"], make_values(), ["\xff\xfe"]))
    assert (2, 2) == (len(runs), len(complaints))


def test_rows_that_share_an_id() -> None:
    """Runs of one job; an odd line shares nothing."""
    ids = [("7", "7"), ("8", "8"), ("7", "7"), ("9_1", "20"), ("9_2", "22"), ("x", "y"), ("x", "y")]
    output = make_output(*(make_values(JobID=job_id, JobIDRaw=raw_id) for job_id, raw_id in ids), ["odd"])
    assert {7} == make_table(output, 8).repeated_ids


def test_odd_lines_alone_are_not_an_answer() -> None:
    """If no row can be read, the output is another program's, not Slurm's."""
    with pytest.raises(SlurmUnreachable, match="none of the 1 rows"):
        read(make_output(["odd"]))


def test_rows_of_two_clusters_are_not_an_answer() -> None:
    """Another cluster's jobs must not be sent as this one's."""
    with pytest.raises(SlurmUnreachable) as caught:
        read(make_output(make_values(Cluster="lab"), make_values(Cluster="other")))
    assert "sacct answered for several clusters: 'lab' and 'other'" == str(caught.value)
    assert caught.value.hint.startswith(
        "check that `sacct` in the configuration is Slurm's own, or a wrapper that passes"
    )


@given(st.binary(max_size=300))
def test_any_bytes_after_the_header(noise: bytes) -> None:
    """Any bytes give runs or a named failure, never a traceback."""
    try:
        runs, _ = read(SEPARATOR.join(FIELDS).encode() + b"\n" + noise)
    except SlurmUnreachable:
        return
    assert all(run.raw_id >= 0 for run in runs)


class Commands:
    """Small programs in the place of Slurm's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.write("scontrol", "echo 'ClusterName             = lab'")

    def write(self, name: str, script: str) -> str:
        path = self._folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def slurm(self, sacct: str, environ: dict[str, str] | None = None, timeout: float = 20) -> Slurm:
        """A Slurm with a script for its sacct."""
        path = self.write("sacct", sacct)
        environ = {"PATH": "/usr/bin:/bin", **(environ or {})}
        config = make_config(sacct=path, scontrol=str(self._folder / "scontrol"))._replace(sacct_timeout=timeout)
        return Slurm(config, environ, lambda error: None)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def test_the_callers_environment_does_not_change_the_answer(commands: Commands) -> None:
    """Of the caller's variables sacct sees its PATH and where Slurm's configuration is, and nothing that formats."""
    hostile = {"SLURM_TIME_FORMAT": "%c", "SACCT_FORMAT": "JobName", "SACCT_FEDERATION": "1", "TZ": "Asia/Tokyo"}
    slurm = commands.slurm("env >&2; exit 3", {**hostile, "SLURM_CONF": "/etc/slurm.conf"})
    commands.write("scontrol", 'env | sort | sed "s/=/ = /"')
    seen = {
        name: value
        for name, value in slurm.scontrol.read_config().items()
        if name not in {"_", "PWD", "SHLVL", "OLDPWD"}
    }
    assert {
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "SLURM_CONF": "/etc/slurm.conf",
    } == seen


def test_the_optional_field_is_requested_where_it_exists(commands: Commands, tmp_path: Path) -> None:
    """An unknown field would fail the whole call, so the list of known ones is looked at first."""
    (tmp_path / "out").write_bytes(make_output(make_values(Restarts="1")))
    fill_in = FILL_IN % {"recorded": tmp_path / "out", "answer": tmp_path / "answer"}
    slurm = commands.slurm(
        f'[ "$1" != --helpformat ] || {{ echo "JobID Restarts"; exit; }}\n{fill_in}cat {tmp_path}/answer'
    )
    assert [1] == [run.restarts for run in slurm.sacct.ask_window(1, 2).answer()]


def test_a_sacct_that_hangs_is_killed_with_its_children(commands: Commands, tmp_path: Path) -> None:
    """A frozen database neither blocks the agent forever nor leaves processes behind."""
    slurm = commands.slurm(f'[ "$1" = --helpformat ] || {{ sleep 300 & echo $! >{tmp_path}/pid; wait; }}', timeout=0.5)
    with pytest.raises(SlurmUnreachable, match=r"did not answer within 0\.5 s"):
        slurm.sacct.ask_window(1, 2).answer()
    sleeper = Path("/proc", (tmp_path / "pid").read_text().strip(), "cmdline")
    wait_for(lambda: not sleeper.exists() or not sleeper.read_bytes(), "the end of sacct's child")


def test_no_room_for_what_sacct_prints(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer goes through the temporary folder; if that is full, the query fails and says so."""
    slurm = commands.slurm('[ "$1" = --helpformat ] || head -c 1000000 /dev/zero')
    with small_disk(tmp_path / "disk", 64) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(
            SlurmUnreachable, match="cannot store the output of sacct: No space left on device"
        ) as caught:
            slurm.sacct.ask_window(1, 2).answer()
    expected = "free some space in the temporary folder, or set TMPDIR to another one; everything is kept"
    assert expected == caught.value.hint


def test_no_room_for_the_last_bytes_that_sacct_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's buffer is flushed last: a disk that is full by then is reported in the same way."""
    full = Path("/dev/full").open("w+b")  # noqa: SIM115  # the child's own
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda held: full)
    with pytest.raises(SlurmUnreachable, match="cannot store the output of echo: No space left on device"):
        run(["echo", "JobID"], environment={"PATH": "/usr/bin:/bin"}, timeout=5)
    with suppress(OSError):
        full.close()


def test_a_missing_command_is_named(tmp_path: Path) -> None:
    """If sacct is missing, the error names it and says what to do."""
    sacct = Slurm(make_config(sacct="/nowhere/sacct"), {}, lambda error: None).sacct
    with pytest.raises(SlurmUnreachable, match="/nowhere/sacct cannot be started") as caught:
        sacct.ask_window(1, 2)
    assert "client tools" in caught.value.hint


@pytest.mark.parametrize("is_in_path", [True, False])
def test_a_sacct_that_is_a_wrapper_in_a_folder_of_its_own(commands: Commands, tmp_path: Path, is_in_path: bool) -> None:
    """squeue and sacctmgr are then those beside scontrol; otherwise no preempted job would be sent for a day."""
    commands.write("squeue", "echo '7|COMPLETING'")
    commands.write("sacctmgr", "echo lab")
    scontrol = "scontrol" if is_in_path else str(tmp_path / "scontrol")
    config = make_config(sacct=str(tmp_path / "site" / "sacct"), scontrol=scontrol)
    slurm = Slurm(config, {"PATH": f"{tmp_path}:/usr/bin:/bin"}, lambda error: None)
    assert {7: "COMPLETING"} == slurm.scontrol.job_states([7])
    assert {"lab"} == slurm.sacctmgr.clusters()


def test_controllers(commands: Commands) -> None:
    """The cluster's name is the one that slurmctld reports."""
    assert "lab" == commands.slurm("").scontrol.controllers().cluster


def test_a_slurmctld_that_does_not_answer(commands: Commands, tmp_path: Path) -> None:
    """The error has the command's own message, and what it needs to respond."""
    slurm = commands.slurm("")
    commands.write("scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmUnreachable) as caught:
        slurm.scontrol.read_config()
    said = "slurm_load_ctl_conf error: Unable to contact slurm controller"
    assert f"{tmp_path}/scontrol show config failed: {said}" == str(caught.value)
    mend = "check that slurm.conf exists, and that munge, slurmctld and slurmdbd are running: scontrol ping"
    assert mend == caught.value.hint


@pytest.mark.parametrize("script", ["echo Nothing", "echo 'ClusterName = (null)'"])
def test_a_cluster_without_a_name(commands: Commands, script: str) -> None:
    """It is never guessed."""
    slurm = commands.slurm("")
    commands.write("scontrol", script)
    assert "" == slurm.scontrol.controllers().cluster
