"""install.sh installs everything, can be run again at any time, and uninstalls everything."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import stat
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from tests.install.installation import CHECKOUT, NAME, Installation
from tests.support.dashboard import API_KEY, DEPLOY_KEY, ReceivingDashboard
from tests.support.tools import need_to_run
from tests.support.waiting import wait_for

UNITS = sorted(path.name for path in (CHECKOUT / "etc" / "systemd").iterdir())
#: Below the folder "share", and where each comes from.
MANUAL = {
    f"man/man8/{NAME}.8": f"man/{NAME}.8",
    f"bash-completion/completions/{NAME}.bash": f"completion/{NAME}.bash",
    f"zsh/site-functions/_{NAME}": f"completion/_{NAME}",
}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def installed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Installation, str]:
    """An installation to inspect, and the output of install.sh."""
    installation = Installation(bundle, tmp_path_factory.mktemp("installed"))
    return installation, installation.run()


def test_everything_is_installed_in_its_place(installed: tuple[Installation, str]) -> None:
    """Program, hook, command, configuration, spool, units and manual, and nothing else."""
    installation, _ = installed
    wanted = {f"etc/systemd/system/{unit}" for unit in UNITS} | {f"usr/local/share/{name}" for name in MANUAL}
    wanted |= {f"etc/{NAME}/config.toml", f"usr/local/bin/{NAME}"}
    ours = ("bin/adapt", "bin/jobcomp.sh", "call-both.sh", "config.toml.example", "folders", "install.sh", "venv")
    wanted |= {f"opt/{NAME}/{name}" for name in ours}
    assert wanted == installation.files().keys()
    assert f"/opt/{NAME}/venv/bin/{NAME}" == installation.files()[f"usr/local/bin/{NAME}"]
    assert (0o600, 0o750, 0o755) == (
        mode_of(installation.etc / "config.toml"),
        mode_of(installation.spool),
        mode_of(installation.hook),
    )
    assert installation.call("--version").startswith(NAME)


def test_the_manual_is_where_man_and_the_shells_look(installed: tuple[Installation, str]) -> None:
    """It is identical to the one in etc/."""
    installation, _ = installed
    for name, source in MANUAL.items():
        file = installation.root / "usr/local/share" / name
        assert ((CHECKOUT / "etc" / source).read_text(), 0o644) == (file.read_text(), mode_of(file))


def test_nothing_points_into_destdir(installed: tuple[Installation, str]) -> None:
    """A package built from it must work elsewhere."""
    installation, _ = installed
    script = installation.program / "venv" / "bin" / NAME
    assert script.read_text().startswith(f"#!/opt/{NAME}/venv-")
    scripts = [path for path in script.parent.iterdir() if path.is_file() and not path.is_symlink()]
    texts = [*scripts, script.parents[1] / "pyvenv.cfg"]
    assert [] == [path for path in texts if str(installation.root) in path.read_text(errors="replace")]


def test_the_output_ends_with_the_lines_for_slurm_conf(installed: tuple[Installation, str]) -> None:
    """The printed lines can be copied unchanged; slurm.conf itself is not touched."""
    _, said = installed
    assert f"\n    JobCompType=jobcomp/script\n    JobCompLoc=/opt/{NAME}/bin/jobcomp.sh\n" in said
    assert f"systemctl enable --now {NAME}.timer {NAME}-flush.timer" in said


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ("JobCompType=jobcomp/none\n", "JobCompLoc=/opt"),
        ("JobCompType = jobcomp/elasticsearch # ours\n", f"    EpilogSlurmctld=/opt/{NAME}/bin/jobcomp.sh"),
        (
            "jobcomptype=jobcomp/kafka\nEpilogSlurmctld=/site/epilog\n",
            "EpilogSlurmctld is already /site/epilog. Use a script that calls both",
        ),
        (
            f"JobCompLoc=/opt/{NAME}/bin/jobcomp.sh\n",
            "names the hook already, but slurmctld has not read that line yet",
        ),
    ],
)
def test_the_lines_fit_the_existing_slurm_conf(
    installation: Installation, tmp_path: Path, conf: str, words: str
) -> None:
    """If JobCompType is in use, EpilogSlurmctld is the alternative."""
    (tmp_path / "slurm.conf").write_text(conf)
    assert words in installation.run("--dry-run", SLURM_CONF=str(tmp_path / "slurm.conf"))


def test_a_second_run_is_an_upgrade(installation: Installation) -> None:
    """Configuration, queue and ledger stay unchanged; the new and the previous environment stay."""
    installation.run()
    mine = {installation.etc / "config.toml": "api_url = 'x'\n", installation.spool / "queue": "1\n"}
    mine[installation.spool / "ledger.db"] = "no real one"
    for path, text in mine.items():
        path.write_text(text)
    before = installation.files()
    first = os.readlink(installation.program / "venv")
    (installation.program / "venv-20200101-000000").mkdir()
    wait_for(lambda: time.strftime("venv-%Y%m%d-%H%M%S") > first, "the next second")
    installation.run()
    assert mine == {path: path.read_text() for path in mine}
    second = os.readlink(installation.program / "venv")
    assert [first, second] == installation.environments()
    assert {**before, f"opt/{NAME}/venv": second} == installation.files()


def with_broken_wheel(bundle: Path, folder: Path) -> Path:
    """A copy of the bundle whose exporter does not even start."""
    copy = folder / "broken"
    shutil.copytree(bundle, copy)
    (wheel,) = (copy / "wheelhouse").glob("slurm_usage*.whl")
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, b"raise SystemError" if name == "agent/cli.py" else text)
    return copy


def test_a_failed_upgrade_leaves_the_old_version_running(
    installation: Installation, bundle: Path, tmp_path: Path
) -> None:
    """If the new version can't be installed or does not run, no file changes, and nothing of it is left."""
    installation.run()
    before, environments = installation.files(), installation.environments()
    installation.sources = with_broken_wheel(bundle, tmp_path)
    assert "cannot run the new version" in installation.run(expect=1)
    assert (before, environments) == (installation.files(), installation.environments())
    for wheel in (installation.sources / "wheelhouse").glob("requests-*"):
        wheel.unlink()
    assert "pip failed; the previous installation is unchanged" in installation.run(expect=1)
    assert (before, environments) == (installation.files(), installation.environments())
    assert installation.call("--version").startswith(NAME)


def test_the_seeds_configuration_keeps_working(installation: Installation) -> None:
    """A config.toml beside it would take precedence; its units have our names, and are replaced."""
    installation.etc.mkdir(parents=True)
    installation.units.mkdir(parents=True)
    config = installation.etc / "config.json"
    config.write_text('{"api_url": "https://d.example.com", "api_key": "k"}')
    config.chmod(0o644)
    for kind in ("service", "timer"):
        (installation.units / f"{NAME}.{kind}").write_text("[Unit]\nDescription=the one before\n")
    installation.run()
    assert [config] == list(installation.etc.iterdir())
    assert ('{"api_url": "https://d.example.com", "api_key": "k"}', 0o600) == (config.read_text(), mode_of(config))
    assert UNITS == sorted(path.name for path in installation.units.iterdir())
    assert "the one before" not in (installation.units / f"{NAME}.timer").read_text()


def test_another_spool_prefix_and_user_are_named_everywhere(installation: Installation) -> None:
    """The hook, the units and the configuration agree, and an upgrade remembers the places."""
    spool, services = str(installation.root / "jobs"), (f"{NAME}.service", f"{NAME}-flush.service")
    installation.run("--prefix", "/apps", SLURM_USAGE_HISTORY_SPOOL=spool, SLURM_USER="hpcadm")
    installation.run(SLURM_USER="hpcadm")
    program = installation.root / "apps" / NAME
    assert f"/apps/{NAME}/venv/bin/{NAME}" == os.readlink(installation.root / "usr/local/bin" / NAME)
    assert f'spool_dir = "{spool}"' in (installation.etc / "config.toml").read_text().splitlines()
    assert f"PathExists={spool}/queue\n" in (installation.units / f"{NAME}-flush.path").read_text()
    for service in services:
        lines = (installation.units / service).read_text().splitlines()
        assert {"User=hpcadm", f"ReadWritePaths={spool}"} <= set(lines)
        assert any(line.startswith(f"ExecStart=/apps/{NAME}/venv/bin/{NAME} ") for line in lines)
    assert [False, False] == [installation.spool.exists(), installation.program.exists()]
    # The hook runs with the environment of jobcomp/script, which passes on almost nothing.
    Path(spool).mkdir()
    subprocess.run([program / "bin" / "jobcomp.sh"], check=True, env={"JOBID": "4711", "SUBMIT": "5", "END": "9"})
    assert "4711 5 9 -" == Path(spool, "queue").read_text().strip()


def test_paths_of_slurms_commands_are_written_to_the_configuration(installed: tuple[Installation, str]) -> None:
    """The services' PATH is not the admin's."""
    installation, _ = installed
    tool = installation.root.with_name(f"{installation.root.name}-tools") / "scontrol"
    assert f'scontrol = "{tool}"' == (installation.etc / "config.toml").read_text().splitlines()[-1]


def test_from_systemd_to_cron_and_back(installation: Installation) -> None:
    """Only one of both is active, so that nothing runs twice; each machine has its own random delay."""
    installation.units.mkdir(parents=True)
    (installation.units / f"{NAME}.timer").write_text("[Timer]\n")
    installation.run("--no-systemd", SLURM_USER="hpcadm")
    assert [] == list(installation.units.iterdir())
    jobs = (installation.root / "etc/cron.d" / NAME).read_text().splitlines()[-2:]
    waits = [int(job.split(" hpcadm sleep ")[1].split(";")[0]) for job in jobs]
    assert [True, waits[0] * 6] == [0 <= waits[0] < 290, waits[1]]
    assert ["*/5 * * * *", "0 2 * * *"] == [job.split(" hpcadm")[0] for job in jobs]
    installation.run()
    assert not (installation.root / "etc/cron.d" / NAME).exists()


def test_a_dry_run_prints_every_action_and_does_nothing(installation: Installation) -> None:
    """A dry run of an installation or a removal changes nothing."""
    installation.spool.mkdir(parents=True)
    (installation.spool / "queue").write_text("1\n")
    before = installation.files()
    options = ["--dry-run", "--enable", "--api-url", "https://d", "--deploy-key", "-"]
    said = installation.run(*options, stdin="one-time-secret")
    for action in (
        "-I -m venv ",
        "jobcomp.sh (mode 755)",
        *(f"+ write {installation.root}/usr/local/share/{name} (mode 644)" for name in MANUAL),
        f"+ systemctl --quiet --root {installation.root} enable {NAME}.timer",
        "setup --api-url https://d ",
    ):
        assert action in said
    assert "one-time-secret" not in said
    said = installation.run("--purge", "--dry-run")
    assert f"+ rm -rf {installation.spool}\n" in said
    assert "left" not in said
    assert before == installation.files()


def test_uninstall_keeps_configuration_and_spool_and_purge_nothing(installation: Installation) -> None:
    """--uninstall keeps configuration and spool, --purge nothing. An admin's drop-ins are configuration, too."""
    installation.run("--enable")
    assert (installation.units / "timers.target.wants" / f"{NAME}-flush.timer").is_symlink()
    (installation.spool / "queue").write_text("1\n")
    (installation.units / f"{NAME}.service.d").mkdir()
    (installation.units / f"{NAME}.service.d" / "proxy.conf").write_text("[Service]\n")
    said = installation.run("--uninstall")
    left = {f"etc/{NAME}/config.toml", f"var/spool/{NAME}/queue", f"etc/systemd/system/{NAME}.service.d/proxy.conf"}
    assert left == installation.files().keys()
    assert f"Kept: /etc/{NAME} and /var/spool/{NAME}; " in said
    assert "Restart slurmctld" not in said  # which does not call the hook
    installation.run("--purge")
    assert {} == installation.files()


def test_purge_leaves_only_the_folders_that_existed_before(installation: Installation) -> None:
    """An upgrade remembers the folders that the first installation created."""
    (installation.root / "usr/local/share/zsh/site-functions").mkdir(parents=True)
    folders = installation.folders()
    installation.run()
    installation.run()
    assert folders < installation.folders()
    installation.run("--purge")
    assert folders == installation.folders()


def test_the_installed_copy_removes_and_does_not_install(installation: Installation) -> None:
    """The installed copy cannot install: the sources are not beside it."""
    installation.run()
    before = installation.files()
    installation.sources = installation.program
    assert "this copy can only remove the program" in installation.run(expect=1)
    assert before == installation.files()
    installation.run("--purge")
    assert {} == installation.files()


def test_purge_removes_only_its_own_files_from_a_shared_spool(installation: Installation) -> None:
    """A spool in a shared folder is purged without the folder and its other files."""
    folder = installation.root / "data"
    folder.mkdir()
    for name in ("queue", "queue.lock", "queue.claimed.1.2", "agent.lock", "host", "ledger.db", "theirs"):
        (folder / name).write_text("1")
    assert "Kept: /data, which contains other files." in installation.run("--purge", SLURM_USAGE_HISTORY_SPOOL="/data")
    assert {"data/theirs": b"1"} == installation.files()


@pytest.mark.parametrize("how", ["--uninstall", "--purge"])
def test_a_hook_that_slurm_conf_names_is_not_removed(installation: Installation, tmp_path: Path, how: str) -> None:
    """slurmctld 24.11 would not start again without it. Once the line is removed, so is everything else."""
    installation.run()
    before = installation.files()
    conf = tmp_path / "slurm.conf"
    (tmp_path / "hooks.conf").write_text(f"JobCompType=jobcomp/script\nJobCompLoc=/opt/{NAME}/bin/jobcomp.sh")
    (tmp_path / "more.conf").write_text(
        "Include hooks.conf # in slurm.conf's folder, like this file\nInclude more.conf\n"
    )
    for lines in (
        f"JobCompLoc=/opt/{NAME}/bin/jobcomp.sh",
        f"EpilogSlurmctld=/opt/{NAME}/bin/jobcomp.sh\nEpilogSlurmctld=/site/epilog.sh",
        f"ClusterName=lab\n include {tmp_path}/more.conf",
        "Include m*.conf",
    ):
        conf.write_text(f"{lines}\n")
        assert f"{conf} still names /opt/{NAME}/bin/jobcomp.sh" in installation.run(how, expect=1, SLURM_CONF=str(conf))
        assert before == installation.files()
    conf.write_text(f"#JobCompLoc=/opt/{NAME}/bin/jobcomp.sh\n")
    installation.run(how, SLURM_CONF=str(conf))
    assert not installation.hook.exists()


def test_purge_removes_no_instances_hook_that_slurm_conf_names(installation: Installation, tmp_path: Path) -> None:
    """Each instance may have a slurm.conf of its own. --uninstall keeps such a hook, which then does nothing."""
    installation.run()
    conf, hook = tmp_path / "physics.conf", f"/etc/{NAME}/physics/jobcomp.sh"
    conf.write_text(f"JobCompType=jobcomp/script\nJobCompLoc={hook}\n")
    (installation.etc / "physics").mkdir()
    (installation.etc / "physics/jobcomp.sh").touch()
    (installation.etc / "physics/environment").write_text(f"SLURM_CONF={conf}\n")
    assert f"{conf} still names {hook}" in installation.run("--purge", expect=1)
    installation.run("--uninstall")
    assert (installation.etc / "physics/jobcomp.sh").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--what"], "unknown option --what"),
        (["--prefix"], "--prefix needs a value"),
        (["--api-url", "https://d"], "--api-url needs either"),
        (["--deploy-key", "-"], "--api-url needs either"),
        (["--api-url", "u", "--deploy-key", "-", "--api-key-file", "f"], "--api-url needs either"),
        (["--api-url", "u", "--deploy-key", "secret"], "--deploy-key takes - (standard input) or a file."),
        (["--deploy-key=secret"], "unknown option --deploy-key;"),
        (["--prefix", "/a b"], "must be an absolute path of letters"),
    ],
)
def test_a_wrong_option_is_reported_before_anything_is_done(
    installation: Installation, options: list[str], words: str
) -> None:
    """A wrong option is reported in one sentence without the key, and exits 1."""
    said = installation.run(*options, expect=1)
    assert words in said
    assert "secret" not in said
    assert {} == installation.files()


def test_without_a_python_it_says_how_to_get_one(installation: Installation, tmp_path: Path) -> None:
    """The message names the package manager's command; nothing is changed."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in (
        "sh",
        "dirname",
        "readlink",
        "seq",
        "tr",
        "uname",
        "cksum",
        "cut",
        "sed",
        "id",
        "ls",
        "flock",
        "timeout",
        "systemctl",
    ):
        (tools / tool).symlink_to(shutil.which(tool) or "/bin/true")
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    said = installation.run(expect=1, PATH=str(tools), PYTHON="")
    assert "needs Python 3.8 or later" in said
    assert any(word in said for word in ("apt install", "dnf install", "zypper install", "your distribution's"))
    assert {} == installation.files()


def test_a_dead_proxy(installation: Installation) -> None:
    """pip's failure is followed by the index, without its password, and by the ways to install without PyPI."""
    installation.sources = CHECKOUT  # it has no wheels
    dead = {"HTTPS_PROXY": "http://bob:secret@127.0.0.1:9", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    dead.update(dict.fromkeys(("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"), "https://pypi.org/simple"), PIP_FIND_LINKS="")
    said = installation.run(expect=1, no_proxy="", NO_PROXY="", **dead)
    assert "HTTPS_PROXY is 127.0.0.1:9. If PyPI cannot be reached, install from the bundle (make bundle)" in said
    assert "or use --wheelhouse" in said
    assert "secret" not in said
    assert [] == installation.environments()


def read_only(folder: Path) -> list[str]:
    """A command that runs another one with a folder mounted read-only."""
    need_to_run(["unshare", "--mount", "true"], "a read-only file system needs a mount namespace")
    folder.mkdir(exist_ok=True)
    mount = f'mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec "$0" "$@"'
    return ["unshare", "--mount", "sh", "-c", mount]


@pytest.mark.parametrize("place", ["usr", "etc", "var"])
def test_what_is_read_only_is_reported_before_anything_is_done(installation: Installation, place: str) -> None:
    """No half of an installation is left in /opt."""
    said = installation.run(expect=1, within=read_only(installation.root / place))
    assert f"cannot write to /{place}, and has changed nothing." in said
    assert {} == installation.files()


@pytest.mark.parametrize("installed_before", [False, True])
def test_a_read_only_opt(installation: Installation, installed_before: bool) -> None:
    """The message names it, and the option for another place, which works."""
    if installed_before:
        installation.run()
    within = read_only(installation.root / "opt")
    before = installation.files()
    said = installation.run(expect=1, within=within)
    assert "Read-only file system" in said
    assert "If /opt is read-only, choose another folder: --prefix DIR" in said
    assert before == installation.files()
    installation.run("--prefix", "/srv", within=within)
    assert (installation.root / "srv" / NAME / "venv").is_dir()


# --- for a user


def test_a_user_needs_no_root(installation: Installation, tmp_path: Path) -> None:
    """Everything is below the home, the units use only what a user's systemd can do, and the exporter runs."""
    home = installation.home
    spool = home / ".local/state" / NAME
    with ReceivingDashboard() as dashboard:
        (tmp_path / "key").write_text(API_KEY)
        file = os.path.relpath(tmp_path / "key")
        said = installation.run("--user", "--api-url", dashboard.url, "--api-key-file", file)
        command = [str(home / ".local/bin" / NAME), "check", "--json"]
        environ = {**os.environ, "HOME": str(home)}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
    found = {finding["name"]: finding["text"] for finding in json.loads(done.stdout)["checks"]}
    assert found["API key"].startswith("accepted")
    assert str(home / ".config" / NAME / "config.toml") == found["configuration"]
    assert found["spool"].startswith(f"{spool}, owned by ")
    assert {"home"} == {Path(name).parts[0] for name in installation.files()}
    service = (home / ".config/systemd/user" / f"{NAME}-flush.service").read_text()
    assert f"ExecStart={home}/.local/share/{NAME}/venv/bin/{NAME} flush\n" in service
    assert not {"User", "ProtectSystem"} & {line.partition("=")[0] for line in service.splitlines()}
    assert "WantedBy=default.target" in (home / ".config/systemd/user" / f"{NAME}-flush.path").read_text()
    assert "systemctl --user enable --now" in said
    installation.run("--user", "--purge")
    assert {} == installation.files()


def test_a_users_installation_has_no_hook(installation: Installation, tmp_path: Path) -> None:
    """The hook runs as SlurmUser, who may not write to the user's spool, unless both are the same."""
    conf = tmp_path / "slurm.conf"
    for slurm_user, hooked in (("somebody", False), (getpass.getuser(), True)):
        conf.write_text(f"SlurmUser={slurm_user}\n")
        said = installation.run("--user", "--dry-run", SLURM_CONF=str(conf))
        assert (hooked, not hooked) == ("JobCompLoc=" in said, "status_coverage_percent = [0, 0]" in said)


def test_a_user_without_systemd_gets_crontab_lines(installation: Installation) -> None:
    """The lines suit crontab -e: they have no user field."""
    said = installation.run("--user", "--no-systemd", "--dry-run")
    (line,) = (line.strip() for line in said.splitlines() if line.startswith("  */5 * * * * sleep "))
    assert f"{installation.home}/.local/share/{NAME}/venv/bin/{NAME} flush" in line


def test_a_deploy_key_sets_it_up(installation: Installation) -> None:
    """After a wrong one, another run works; once there is a key, no second one is used up. The example stays."""
    with ReceivingDashboard() as dashboard:
        options = ["--user", "--api-url", dashboard.url, "--deploy-key"]
        assert "does not accept the deploy key" in installation.run(*options, "-", stdin="wrong", expect=1)
        installation.run(*options, "-", stdin=DEPLOY_KEY)
        config = installation.home / ".config" / NAME / "config.toml"
        text, requests = config.read_text(), len(dashboard.requests)
        (key,) = dashboard.api_keys - {API_KEY}
        assert {f'api_key = "{key}"', "#timeout = 30"} <= set(text.splitlines())
        assert "is set up already" in installation.run(*options, "-", stdin="never used")
        assert (text, requests) == (config.read_text(), len(dashboard.requests))
