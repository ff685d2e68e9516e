"""What starts the runs: systemd's timers, a user's own, or cron. Each fault comes with a line that fixes it."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Callable, Mapping, Sequence

import pytest

from agent.check.daemons import parse_units
from agent.check.timers import FLUSH, RECONCILE, Cron, Units, check_timer, read_units
from agent.config import NAME
from agent.errors import ExporterError, SlurmUnreachable
from agent.slurm.process import Output, RunCommand

#: From `systemctl show` on systemd 252; 239 prints the same lines.
UNIT = (
    "Id={}\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nLastTriggerUSec=Mon 2026-11-23 02:11:09 UTC\n"
)
SERVICE = (
    "Id={}\nLoadState=loaded\nActiveState=inactive\nUnitFileState=static\nResult={}\nExecMainStatus={}\n"
    "ExecMainExitTimestamp=Mon 2026-11-23 02:11:12 UTC\n"
)


def make_units(timer: str = UNIT, result: str = "success", status: int = 0, manager: str = "systemctl") -> Units:
    text = f"{timer.format(FLUSH + '.timer')}\n{SERVICE.format(FLUSH + '.service', result, status)}"
    return Units(parse_units(text), manager)


def make_processes(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names, start=1):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "comm").write_text(f"{name}\n")
    return folder


def no_command(_: Sequence[str]) -> Output:
    raise SlurmUnreachable("no such command")


def prints(text: str) -> RunCommand:
    return lambda _: Output(0, BytesIO(text.encode()), "")


def nothing(folder: Path) -> Cron:
    return Cron(folder / "none", folder, no_command)


def complaint(call: Callable[[], str]) -> tuple[str, str, str]:
    """The problem, how to fix it, and the command."""
    with pytest.raises(ExporterError) as caught:
        call()
    return str(caught.value), caught.value.hint, getattr(caught.value, "run", "")


def test_an_active_timer_shows_its_last_run(tmp_path: Path) -> None:
    """It shows systemd's text, or before the first run its own."""
    cron = nothing(tmp_path)
    assert "active, last ran Mon 2026-11-23 02:11:09 UTC" == check_timer(make_units(), FLUSH, cron, "slurm")
    for never in ("", "n/a"):
        timer = UNIT.replace("Mon 2026-11-23 02:11:09 UTC", never)
        assert "active, has not run yet" == check_timer(make_units(timer), FLUSH, cron, "slurm")


@pytest.mark.parametrize(
    ("timer", "text"),
    [
        (UNIT.replace("=active", "=inactive"), f"{FLUSH}.timer is inactive"),
        (UNIT.replace("=enabled", "=disabled"), f"{FLUSH}.timer is not enabled and will not start at boot"),
    ],
)
def test_an_inactive_timer(timer: str, text: str, tmp_path: Path) -> None:
    """It may be off now or after the next reboot: the same command enables it."""
    expected = (text, "enable it", f"systemctl enable --now {FLUSH}.timer")
    assert expected == complaint(lambda: check_timer(make_units(timer), FLUSH, nothing(tmp_path), "slurm"))


def test_no_timer_at_all(tmp_path: Path) -> None:
    """install.sh was never run, or was run without the units."""
    units = make_units(UNIT.replace("=loaded", "=not-found"))
    expected = (f"neither {FLUSH}.timer nor {tmp_path}/none exists", "run install.sh again", "")
    assert expected == complaint(lambda: check_timer(units, FLUSH, nothing(tmp_path), "slurm"))


def exit_moment() -> str:
    """The moment as check shows it, without how long ago that is."""
    return datetime(2026, 11, 23, 2, 11, 12).strftime("at %Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (69, "the dashboard or Slurm was unreachable"),
        (77, "the dashboard refused the API key"),
        (78, "the configuration was wrong"),
    ],
)
def test_a_past_failure_is_not_a_fault(status: int, why: str, tmp_path: Path) -> None:
    """If all other checks pass, the failure is mentioned and the next run is expected to succeed."""
    units = make_units(result="exit-code", status=status)
    text = check_timer(units, FLUSH, nothing(tmp_path), "slurm", rest_is_well=True)
    assert text.startswith(f"active; its last run {exit_moment()}")
    assert text.endswith(
        f"failed because {why}. That is fixed; the next run should succeed: systemctl start {FLUSH}.service"
    )
    fault, hint, run = complaint(lambda: check_timer(units, FLUSH, nothing(tmp_path), "slurm"))
    assert fault.endswith(f" failed: exit-code, exit status {status} ({why})")
    assert (
        f"see why with journalctl -u {FLUSH}.service -n 20; fix that, then start it",
        f"systemctl start {FLUSH}.service",
    ) == (hint, run)


@pytest.mark.parametrize(("result", "status"), [("exit-code", 1), ("signal", 9), ("timeout", 69), ("oom-kill", 9)])
def test_a_failure_that_no_other_check_explains(result: str, status: int, tmp_path: Path) -> None:
    """The failure is reported until a run succeeds, whatever else is well."""
    units = make_units(result=result, status=status)
    call = lambda: check_timer(units, FLUSH, nothing(tmp_path), "slurm", rest_is_well=True)  # noqa: E731
    assert complaint(call)[0].endswith(f" failed: {result}, exit status {status}")


def test_rejected_records_do_not_fail_the_run(tmp_path: Path) -> None:
    """The hint is `queue list`, not the journal."""
    units = make_units(result="exit-code", status=65)
    text, _, run = complaint(lambda: check_timer(units, FLUSH, nothing(tmp_path), "slurm", rest_is_well=True))
    assert text.startswith(f"the dashboard refused records in the last run of {FLUSH}.service {exit_moment()}")
    assert f"{NAME} queue retry && systemctl start {FLUSH}.service" == run


def test_a_users_failed_run_is_in_the_users_journal(tmp_path: Path) -> None:
    """The command uses the user's own systemd."""
    units = make_units(result="exit-code", status=1, manager="systemctl --user")
    (tmp_path / "bob").touch()
    _, hint, run = complaint(lambda: check_timer(units, FLUSH, nothing(tmp_path), "bob", linger=tmp_path))
    assert (
        f"see why with journalctl --user -u {FLUSH}.service -n 20; fix that, then start it",
        f"systemctl --user start {FLUSH}.service",
    ) == (hint, run)


# --- a user's own


def test_a_users_own_units_are_found(tmp_path: Path) -> None:
    """A user's own timers are found if the system has none, and the command is for them."""
    calls = []

    def run(argv: Sequence[str]) -> Output:
        calls.append(argv[1])
        state = "loaded" if argv[1] == "--user" else "not-found"
        timer = UNIT.format(f"{FLUSH}.timer").replace("loaded", state).replace("=active", "=inactive")
        return Output(0, BytesIO(timer.encode()), "")

    units = read_units(run, {})
    line = complaint(lambda: check_timer(units, FLUSH, nothing(tmp_path), "bob"))[2]
    assert (["show", "--user"], f"systemctl --user enable --now {FLUSH}.timer") == (calls, line)


def test_timers_that_end_with_the_session(tmp_path: Path) -> None:
    """Without lingering, systemd stops a user's timers when he logs out."""
    units = make_units(manager="systemctl --user")
    expected = (
        f"{FLUSH}.timer stops when bob logs out",
        "enable lingering; if you are not allowed to, root can",
        "loginctl enable-linger bob",
    )
    assert expected == complaint(lambda: check_timer(units, FLUSH, nothing(tmp_path), "bob", linger=tmp_path))
    (tmp_path / "bob").touch()
    assert check_timer(units, FLUSH, nothing(tmp_path), "bob", linger=tmp_path).startswith("active")


def test_a_user_without_a_systemd_session(tmp_path: Path) -> None:
    """After su or sudo there is no bus, so the state of the installed units is unknown."""
    folder = tmp_path / "systemd" / "user"
    folder.mkdir(parents=True)
    (folder / f"{RECONCILE}.timer").touch()
    units = read_units(prints(""), {"XDG_CONFIG_HOME": str(tmp_path)})
    text, hint, run = complaint(lambda: check_timer(units, FLUSH, nothing(tmp_path), "bob"))
    assert f"{FLUSH}.timer is installed, but bob's own systemd is unreachable" in text
    assert "export XDG_RUNTIME_DIR=/run/user/" in hint
    assert "loginctl enable-linger bob" == run


def test_the_systems_units_are_not_a_users_own(tmp_path: Path) -> None:
    """If both are installed, the user's timers are tested, and not the host's."""
    asked = []

    def run(argv: Sequence[str]) -> Output:
        asked.append(argv[1])
        return Output(0, BytesIO(b""), "")

    read_units(run, {}, own_folder=tmp_path)
    assert ["--user"] == asked


@pytest.mark.parametrize("environ", [{}, {"HOME": "/nonexistent"}])
def test_no_units_on_the_disk(environ: Mapping[str, str]) -> None:
    """Units that are not installed do not count as unreachable."""
    assert not read_units(prints(""), environ).silent
    assert not read_units(no_command, environ).silent


# --- cron


def test_cron_works_too(tmp_path: Path) -> None:
    """Without units, the file that install.sh --no-systemd leaves counts, if cron runs."""
    (tmp_path / "cron").touch()
    for name in ("cron", "crond"):
        cron = Cron(tmp_path / "cron", make_processes(tmp_path / f"{name}-alone", "sh", name), no_command)
        assert f"cron, from {tmp_path}/cron" == check_timer(Units({}), FLUSH, cron, "slurm")


def test_a_cron_file_without_cron(tmp_path: Path) -> None:
    """Minimal images have none: the file alone starts nothing."""
    (tmp_path / "cron").touch()
    cron = Cron(tmp_path / "cron", make_processes(tmp_path / "proc", "systemd", "sshd"), no_command)
    expected = (
        f"{tmp_path}/cron lists the runs, but no cron daemon is running",
        "install and start one (Debian: cron, EL: cronie), or run install.sh without --no-systemd",
        "systemctl enable --now cron || systemctl enable --now crond",
    )
    assert expected == complaint(lambda: check_timer(Units({}), FLUSH, cron, "slurm"))


def test_a_users_own_crontab(tmp_path: Path) -> None:
    """install.sh --user --no-systemd prints the lines; a commented one does not count."""
    line = f"*/5 * * * * sleep 3; /home/bob/.local/share/{NAME}/venv/bin/{NAME} flush\n"
    processes = make_processes(tmp_path / "proc", "cron")
    cron = Cron(tmp_path / "none", processes, prints(line))
    assert "cron, from crontab -l" == check_timer(Units({}), FLUSH, cron, "bob")
    commented = Cron(tmp_path / "none", processes, prints(f"# {line}"))
    assert "run install.sh again" == complaint(lambda: check_timer(Units({}), FLUSH, commented, "bob"))[1]
