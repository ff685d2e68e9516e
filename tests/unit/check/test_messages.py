"""Everything that `check` can find wrong, and how to fix it: the whole text, as the admin reads it.

{folder} is the test's own, {me} the current user. Failures of Slurm or the dashboard raise the same errors as in a
run, and are listed in test_messages.py.
"""

from __future__ import annotations

import json
import os
import re
from email.utils import formatdate
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

import pytest

from agent.check import checks as check
from agent.check import dashboard as check_dashboard
from agent.check import host as check_host
from agent.check import slurm as check_slurm
from agent.check import spool as check_spool
from agent.check.finding import NotWell
from agent.check.wiring import Call
from agent.config import NAME, PLACEHOLDER, Config, load_config, parse_config
from agent.dashboard.answer import Answer
from agent.errors import ConfigError, SlurmUnreachable
from agent.slurm.slurm import Slurm
from tests.support.memory import slurm_of

HOOK = Path(__file__).parents[3] / "hooks" / "jobcomp.sh"
NOW = 1_700_000_000.0


class Lack(NamedTuple):
    """A problem, and the text that reports it."""

    name: str
    check: Callable[[Path], str]
    text: str
    mend: str


def make_config(**settings: Any) -> Config:
    return parse_config({"api_url": "https://d.example.com", "api_key": "k", **settings}, {})


def write_config(folder: Path, *, mode: int = 0o600, **settings: Any) -> Config:
    path = folder / "config.json"
    path.write_text(json.dumps({"api_url": "https://d.example.com", "api_key": "k", **settings}))
    path.chmod(mode)
    return load_config(path, {})


def config_of_another(folder: Path) -> str:
    """A configuration that was deleted, as root may read any existing one."""
    config = write_config(folder)
    (folder / "config.json").unlink()
    return check_host.check_secrecy(config)


def disk(*, blocks: int = 1 << 20, files: int = 10_000) -> Callable[[Path], os.statvfs_result]:
    return lambda _: os.statvfs_result((4096, 4096, blocks, blocks, blocks, files, files, files, 0, 255))


def on(kind: str) -> Callable[[Path], str]:
    return lambda _: check_spool.check_filesystem(Path("/var/spool/x"), f"a / ext4 rw 0 0\nb /var {kind} rw 0 0")


HOST = [
    Lack(
        "the example's key",
        lambda folder: check_host.check_configuration(write_config(folder, api_key=PLACEHOLDER)),
        "{folder}/config.json still has the example's API key",
        f"enter yours, or run `{NAME} setup`",
    ),
    Lack(
        "a configuration of another's",
        config_of_another,
        "{me} cannot read {folder}/config.json",
        "chown {me} {folder}/config.json",
    ),
    Lack(
        "a key that others can read",
        lambda folder: check_host.check_secrecy(write_config(folder, mode=0o644)),
        "{folder}/config.json holds the API key, but other users can read or write it",
        "chmod 600 {folder}/config.json",
    ),
    Lack(
        "no spool",
        lambda folder: check_spool.check_spool_folder(folder / "none", ""),
        "the folder {folder}/none does not exist",
        "create it, or set spool_dir if it has moved; the next reconcile delivers what was queued in it",
    ),
    Lack(
        "a spool of another's",
        lambda folder: check_spool.check_spool_folder(folder, "nobody-else"),
        "{folder} belongs to {me}, but the hook runs as nobody-else",
        "give it to nobody-else",
    ),
    Lack(
        "no room",
        lambda folder: check_spool.check_space(folder, disk(blocks=100)),
        "only 0.0 GB free in {folder}",
        "free some space: on a full disk the hook cannot queue anything",
    ),
    Lack(
        "no room for files",
        lambda folder: check_spool.check_space(folder, disk(files=3)),
        "only 3 inodes free in {folder}",
        "delete files on that filesystem",
    ),
    Lack(
        "a spool on the network",
        on("nfs4"),
        "/var/spool/x is on nfs4, a shared filesystem: if its server hangs, the hook hangs and slurmctld cannot stop,"
        " and two hosts must not share a spool",
        "move the spool to a local disk, with SLURM_USAGE_HISTORY_SPOOL=DIR ./install.sh",
    ),
    Lack(
        "a spool in memory",
        on("tmpfs"),
        "/var/spool/x is on tmpfs, which is lost at reboot",
        "move the spool to a disk",
    ),
    Lack(
        "a lock that is held",
        lambda folder: check_spool.check_locks(folder, lambda *_: 7, lambda _: None),
        "process 7 has held {folder}/queue.lock for more than 1 s",
        "find out what it is: ps -p 7 -o args; meanwhile the hook writes to files beside the queue",
    ),
    Lack(
        "no folder for the metrics",
        lambda folder: check_host.check_metrics(make_config(metrics_file=f"{folder}/none/x.prom"), ""),
        "{me} cannot write to {folder}/none",
        "make {folder}/none writable by {me}",
    ),
    Lack(
        "metrics outside the sandbox",
        lambda folder: check_host.check_metrics(make_config(metrics_file=f"{folder}/x.prom"), "/var/spool/x"),
        "the services' sandbox does not allow writing to {folder}",
        f"systemctl edit {NAME}.service {NAME}-flush.service: [Service], ReadWritePaths={{folder}}",
    ),
]


class PrivateCommands:
    """A slurmdbd that hides jobs, or does not say whether it does."""

    def __init__(self, level: str, **database: str) -> None:
        self._level, self._database = level, database

    def read_accounting_config(self) -> dict[str, str]:
        return self._database

    def admin_level(self, user: str) -> str:
        return self._level


def private_slurm(level: str, **database: str) -> Slurm:
    return slurm_of(PrivateCommands(level, **database))


def make_hook(folder: Path, *, mode: int = 0o755, change: Mapping[str, str] | None = None) -> Path:
    hook = folder / "jobcomp.sh"
    script = HOOK.read_text()
    for pattern, line in (change or {}).items():
        script = re.sub(pattern, line, script, flags=re.MULTILINE)
    hook.write_text(script)
    hook.chmod(mode)
    return hook


def check_hook(script: Path, spool: Path) -> str:
    """For the installed hook."""
    return check_slurm.check_hook(Call("JobCompLoc", script, script), spool, str(script))


def hook_without_flock(folder: Path) -> str:
    hook = make_hook(folder, change={"^export PATH=.*$": f"export PATH={folder}"})
    return check_hook(hook, folder)


RESTART = (
    "restart slurmctld: running jobs continue, and it first finishes all pending hook calls"
    " (this can take minutes after a burst; sdiag does not show them)"
)
SLURM = [
    Lack(
        "commands that the services do not find",
        lambda folder: check_slurm.check_commands(
            write_config(folder, sacct="no-such-sacct"), lambda _: "/opt/slurm/bin/sacct"
        ),
        "the services do not find no-such-sacct: /opt/slurm/bin is not in their PATH",
        'set sacct = "/opt/slurm/bin/sacct" in {folder}/config.json',
    ),
    Lack(
        "no slurmdbd",
        lambda _: check_slurm.check_slurmdbd(private_slurm(""), {"ClusterName": "c"}),
        "AccountingStorageType is not set: Slurm does not store finished jobs",
        "set up slurmdbd, and set AccountingStorageType=accounting_storage/slurmdbd in slurm.conf",
    ),
    Lack(
        "GPUs that are not in the accounting",
        lambda _: check_slurm.check_gpus({"GresTypes": "gpu", "AccountingStorageTRES": "cpu,mem,gres/gpumem"}),
        "GresTypes has gpu, but AccountingStorageTRES lacks gres/gpu: the accounting tracks no GPU-hours",
        f"add gres/gpu to AccountingStorageTRES in slurm.conf, and {RESTART}; it tracks GPUs from then on",
    ),
    Lack(
        "a user without the right",
        lambda _: check_slurm.check_privileges(private_slurm("None", PrivateData="jobs"), "bob", {}),
        "PrivateData in slurmdbd.conf hides other users' jobs from bob",
        "sacctmgr modify user bob set AdminLevel=Operator",
    ),
    Lack(
        "a user whom slurmdbd does not know",
        lambda _: check_slurm.check_privileges(
            private_slurm("", PrivateData="none", SLURMDBD_VERSION="26.05.5"), "bob", {}
        ),
        "PrivateData in slurmdbd.conf may hide (slurmdbd 26.05.5 does not report it) other users' jobs from bob",
        "sacctmgr add user bob DefaultAccount=root AdminLevel=Operator",
    ),
    Lack(
        "a missing hook",
        lambda folder: check_hook(folder / "missing", folder),
        "{folder}/missing does not exist",
        f"run install.sh again, and {RESTART}",
    ),
    Lack(
        "a hook that can't be run",
        lambda folder: check_hook(make_hook(folder, mode=0o644), folder),
        "the Slurm user cannot read and execute {folder}/jobcomp.sh",
        f"chmod a+rx {{folder}}/jobcomp.sh, and {RESTART}",
    ),
    Lack("no flock", hook_without_flock, "flock, which the hook needs, is not installed", "install util-linux"),
    Lack(
        "two spools",
        lambda folder: check_hook(make_hook(folder), folder),
        f"the hook writes to /var/spool/{NAME}, but the configured spool is {{folder}}",
        "run SLURM_USAGE_HISTORY_SPOOL={folder} ./install.sh again",
    ),
]


def clock(seconds_ahead: float) -> Callable[[Path], str]:
    answer = Answer(200, {"Date": formatdate(NOW, usegmt=True)}, "")
    return lambda _: check_dashboard.check_clock(answer, lambda: NOW + seconds_ahead)


NETWORK_TIME = "check that both synchronise with NTP: chronyc tracking, or timedatectl"
DASHBOARD = [
    Lack(
        "no encryption",
        lambda _: check_dashboard.check_encryption(make_config(api_url="http://d.example.com"), {}),
        "http://d.example.com is not encrypted: anyone on the network path can read the jobs,"
        " and read and use the API key",
        "use https://, or set allow_http = true if you trust that network",
    ),
    Lack("a clock that is fast", clock(7200), "this host is 2 h ahead of the dashboard", NETWORK_TIME),
    Lack("a clock that is slow", clock(-3600), "this host is 1 h behind the dashboard", NETWORK_TIME),
]


@pytest.mark.parametrize("lack", [*HOST, *SLURM, *DASHBOARD], ids=lambda lack: lack.name.replace(" ", "-"))
def test_what_check_finds(lack: Lack, tmp_path: Path) -> None:
    """The finding names the thing itself, and its fix can be carried out unchanged."""
    with pytest.raises(NotWell) as caught:
        lack.check(tmp_path)
    me = check_host.own_name()
    expected = [words.replace("{folder}", str(tmp_path)).replace("{me}", me) for words in (lack.text, lack.mend)]
    assert expected == [str(caught.value), caught.value.hint]


def test_a_configuration_that_is_wrong() -> None:
    """Each problem names its key; the example shows the permitted values."""

    def no_systemd(_: object) -> Any:
        raise SlurmUnreachable("no systemctl")

    findings = list(check.run_checks(ConfigError("the configuration is wrong:\n  a: unknown key"), no_systemd, {}))
    assert "fix these keys; the program's config.toml.example lists them all" == findings[1].mend
    assert "not tested: requires the configuration" == findings[2].text
