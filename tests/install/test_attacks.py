"""What users other than root could do to install.sh, tried for real in a root folder with the users of a Debian."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Iterator

import pytest

from tests.install.installation import NAME
from tests.packaging.root import Root

ALICE = "alice"
OPT = f"/opt/{NAME}"
#: Python that records which user runs it.
TRACE = "open('/tmp/pwned', 'a').write(str(__import__('os').geteuid()))\n"

pytestmark = pytest.mark.timeout(300)


class Host:
    """A controller with a Slurm user and a user alice, on which root has unpacked the bundle into /root/bundle."""

    def __init__(self, root: Root, bundle: Path) -> None:
        self.root, self.path = root, root.path
        shutil.copytree(bundle, self.path / "root/bundle")
        root.run("useradd", "--create-home", ALICE)

    def put(self, path: str, text: str, owner: str = ALICE, mode: int = 0o755) -> None:
        """Writes a file as a user would, who then owns its folder."""
        file = self.path / path.lstrip("/")
        if not file.parent.exists():
            file.parent.mkdir(parents=True)
            self.root.run("chown", f"{owner}:", os.path.dirname(path))  # noqa: PTH120  # a place inside
        file.write_text(text)
        file.chmod(mode)
        self.root.run("chown", "-h", f"{owner}:", path)

    def install(self, *options: str, expect: int | None = 0, folder: str = "/root/bundle", **environ: str) -> str:
        """Root calls install.sh from a folder."""
        command = 'cd "$0" && exec /root/bundle/install.sh "$@"'
        return self.root.run("sh", "-c", command, folder, "--no-systemd", *options, expect=expect, **environ)

    def owner(self, path: str) -> str:
        return self.root.run("stat", "-c", "%U %a", path).strip()

    @property
    def trace(self) -> str:
        """The uids that planted code ran as."""
        file = self.path / "tmp/pwned"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def host(bundle: Path) -> Iterator[Host]:
    with Root() as root:
        yield Host(root, bundle)


def test_nothing_is_run_from_the_current_folder(host: Host) -> None:
    """Modules, tools and a Python planted in /tmp, where everybody may write: none of them ever runs."""
    for name in ("venv", "pip", "ensurepip", "runpy", "site", "sitecustomize", "usercustomize", "requests", "agent"):
        host.put(f"/tmp/{name}.py", TRACE)
    for name in ("sed", "stat", "scontrol", "python3", "dirname", "readlink", "setsid"):
        host.put(f"/tmp/{name}", "#!/bin/sh\nid -u >>/tmp/pwned\n")
    path = ".::/usr/sbin:/usr/bin:/sbin:/bin"
    host.install(
        folder="/tmp", PATH=path, PYTHONPATH="/tmp", PYTHONSTARTUP="/tmp/venv.py", TMPDIR="/tmp", CDPATH="/tmp"
    )
    assert ("", "slurm 600\n".strip()) == (host.trace, host.owner(f"/etc/{NAME}/config.toml"))


def test_the_command_imports_nothing_from_roots_environment(host: Host) -> None:
    """PYTHONPATH, which sudo can be configured to keep, is ignored."""
    host.install()
    host.put("/tmp/requests.py", TRACE)
    host.put("/tmp/sitecustomize.py", TRACE)
    said = host.root.run(
        "sh", "-c", f"cd /tmp && exec {NAME} --version", PATH="/usr/local/bin:/usr/bin:/bin", PYTHONPATH="/tmp"
    )
    assert (True, "") == (said.startswith(NAME), host.trace)


def test_a_relative_python_and_wheelhouse_are_those_of_the_caller(host: Host) -> None:
    """install.sh leaves the folder, and still finds them."""
    host.root.run("cp", "-r", "/root/bundle/wheelhouse", "/root/wheels")
    host.root.run("ln", "-s", "/usr/bin/python3", "/usr/local/own-python")
    said = host.install("--wheelhouse", "wheels", folder="/root", PYTHON="../usr/local/own-python")
    assert f"installing into {OPT} with /usr/local/own-python\n" in said


@pytest.mark.parametrize("owner", ["slurm", ALICE])
def test_a_python_that_another_user_can_change_is_not_run(host: Host, owner: str) -> None:
    """This holds if root names it, and if it comes first in PATH."""
    host.put("/srv/tools/python3.40", '#!/bin/sh\nid -u >>/tmp/pwned\nexec /usr/bin/python3 "$@"\n', owner)
    assert "users other than root can change" in host.install(expect=1, PYTHON="/srv/tools/python3.40")
    host.install(PATH="/srv/tools:/usr/sbin:/usr/bin:/sbin:/bin")
    assert "" == host.trace


def test_a_wheelhouse_that_another_user_can_change_is_refused(host: Host) -> None:
    """Its wheels would run as root."""
    host.root.run("cp", "-r", "/root/bundle/wheelhouse", "/srv/wheels")
    host.root.run("chmod", "777", "/srv/wheels")
    assert "users other than root can change /srv/wheels" in host.install("--wheelhouse", "/srv/wheels", expect=1)


def test_a_planted_source_distribution_does_not_run_its_setup(host: Host) -> None:
    """A newer tqdm in the wheelhouse: only wheels are installed, and of the bundle only those that are pinned."""
    plant = """
        import io, tarfile
        texts = {"setup.py": "open('/tmp/pwned', 'a').write('0')", "PKG-INFO": "Name: tqdm\\nVersion: 99.0\\n"}
        with tarfile.open("/root/bundle/wheelhouse/tqdm-99.0.tar.gz", "w:gz") as archive:
            for name, text in texts.items():
                info = tarfile.TarInfo(f"tqdm-99.0/{name}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
    """
    host.root.run("python3", "-c", textwrap.dedent(plant))
    host.install()
    host.root.run("cp", "-r", "/root/bundle/wheelhouse", "/root/wheels")
    host.install("--wheelhouse", "/root/wheels")
    assert "" == host.trace
    assert "99.0" not in host.root.run("ls", f"{OPT}/venv/lib/python3.11/site-packages")


def test_a_changed_wheel_of_the_bundle_is_refused(host: Host) -> None:
    """A wheel from PyPI is verified by its hash."""
    host.root.run("sh", "-c", "echo x >>$(ls /root/bundle/wheelhouse/tqdm-*.whl)")
    assert "pip failed" in host.install(expect=1)


@pytest.mark.parametrize("option", ["--uninstall", "--purge", "--enable"])
def test_a_spool_below_a_folder_of_the_slurm_user_is_refused(host: Host, option: str) -> None:
    """It can be replaced by a link there: /usr/local/bin was given away, and a link's target was deleted."""
    spool = f"/var/lib/slurm/{NAME}"
    host.root.run("mkdir", "-p", "/srv/theirs", "/var/lib/slurm")
    host.root.run("touch", "/srv/theirs/queue")
    host.root.run("chown", "slurm", "/var/lib/slurm")
    for place in ("/usr/local/bin", "/srv/theirs"):
        host.root.run("ln", "-sfn", place, spool)
        before = host.owner(place), host.root.run("ls", place)
        said = host.install(option, expect=1, SLURM_USAGE_HISTORY_SPOOL=spool)
        assert "users other than root can change /var/lib/slurm, and with it what root installs" in said
        assert before == (host.owner(place), host.root.run("ls", place))


def test_a_spool_that_is_a_link_is_refused(host: Host) -> None:
    """Even in a folder of root's, the named path itself is removed or given away."""
    host.root.run("ln", "-s", "/usr/local/bin", f"/var/spool/{NAME}")
    assert "is a link" in host.install(expect=1)
    assert "root 755" == host.owner("/usr/local/bin")


@pytest.mark.parametrize("place", [f"/srv/{ALICE}/prefix", "/srv/open/prefix", "/srv/group/prefix", "/srv/link/prefix"])
def test_a_prefix_that_another_user_can_change_is_refused(host: Host, place: str) -> None:
    """By owner, by mode, by group, and behind a link of root's that leads into another's folder."""
    host.root.run("mkdir", f"/srv/{ALICE}", "/srv/open", "/srv/group")
    host.root.run("chown", ALICE, f"/srv/{ALICE}")
    host.root.run("chgrp", "games", "/srv/group")
    host.root.run("chmod", "777", "/srv/open")
    host.root.run("chmod", "775", "/srv/group")
    host.root.run("ln", "-s", ALICE, "/srv/link")
    assert "users other than root can change" in host.install("--prefix", place, expect=1)
    assert "" == host.root.run("find", "/srv", "-name", "prefix")


def test_a_prefix_with_an_acl_for_another_user_is_refused(host: Host) -> None:
    """Its mode shows the mask of the ACL as the rights of the group, which is root's."""
    acl = b"\x02\x00\x00\x00" + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + user.to_bytes(4, "little")
        for tag, rights, user in (
            (1, 7, 2**32 - 1),
            (2, 7, 1000),
            (4, 5, 2**32 - 1),
            (16, 7, 2**32 - 1),
            (32, 5, 2**32 - 1),
        )
    )
    folder = host.path / "srv/acl"
    folder.mkdir()
    try:
        os.setxattr(folder, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this filesystem knows no ACLs")
    assert "users other than root can change /srv/acl" in host.install("--prefix", "/srv/acl", expect=1)


def test_root_takes_back_a_configuration_folder_of_the_slurm_user(host: Host) -> None:
    """The owner could replace the configuration by a link to /etc/shadow, for root to give away."""
    before = host.owner("/etc/shadow")
    host.put(f"/etc/{NAME}/note", "", "slurm")
    host.root.run("ln", "-s", "/etc/shadow", f"/etc/{NAME}/config.toml")
    said = host.install()
    assert f"keeping /etc/{NAME}/config.toml, which is a link" in said
    assert (before, "root 755") == (host.owner("/etc/shadow"), host.owner(f"/etc/{NAME}"))


def adapt(host: Host, slurm_conf: str = "", expect: int = 0) -> str:
    """Root creates the instance x, or adapts it again; returns what was printed."""
    example = f"/usr/share/{NAME}/config.toml.example"
    if not (host.path / example[1:]).exists():
        host.put(example, "", "root")
    path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    script = "/root/bundle/etc/packaging/adapt.sh"
    return host.root.run("sh", script, "x", expect=expect, PATH=path, SLURM_CONF=slurm_conf)


@pytest.mark.parametrize("command", ["install.sh", "adapt"])
def test_root_follows_no_link_in_a_folder_of_the_slurm_user(host: Host, command: str) -> None:
    """The link has the name of a file that root writes, or that systemd reads as root and passes to the Slurm user."""
    host.put("/root/victim", "PASSWORD=root's\n", "root", 0o600)
    etc = f"/etc/{NAME}" if command == "install.sh" else f"/etc/{NAME}/x"
    host.put(f"{etc}/note", "", "slurm")
    for name in ("config.toml.new", "environment", "jobcomp.sh"):
        target = "/root/new" if name == "jobcomp.sh" else "/root/victim"
        host.root.run("ln", "-s", target, f"{etc}/{name}")
        host.root.run("chown", "-h", "slurm", f"{etc}/{name}")
    if command == "install.sh":
        host.install()
    else:
        adapt(host, "/srv/slurm.conf")
    assert ("PASSWORD=root's\n", "root 600") == (
        (host.path / "root/victim").read_text(),
        host.owner("/root/victim"),
    )
    assert ("root 755", False) == (host.owner(etc), (host.path / "root/new").exists())
    assert not (host.path / etc[1:] / "environment").is_symlink()


def test_adapt_uses_no_slurm_conf_from_a_folder_of_the_slurm_user(host: Host) -> None:
    """root's scontrol would load the plugins that this slurm.conf names. One of root is used, with what it includes."""
    host.put("/usr/local/bin/scontrol", '#!/bin/sh\necho "${SLURM_CONF:-}" >>/tmp/pwned\n', "root")
    host.put(f"/etc/{NAME}/x/environment", "SLURM_CONF=/srv/theirs/slurm.conf\n", "slurm")
    assert f"users other than root can change /etc/{NAME}/x/environment" in adapt(host, expect=1)
    assert "theirs" not in host.trace
    host.put(f"/etc/{NAME}/x/environment", "SLURM_CONF=/srv/ours/slurm.conf\n", "root", 0o644)
    adapt(host)
    assert "/srv/ours/slurm.conf\n" in host.trace
    host.put("/srv/ours/slurm.conf", "ClusterName=ours\n include users.conf", "root")
    host.put("/srv/ours/users.conf", f"SlurmUser={ALICE}", "root")
    adapt(host)
    assert f"{ALICE} 600" == host.owner(f"/etc/{NAME}/x/config.toml")


def test_root_installs_for_no_other_user(host: Host) -> None:
    """sudo may keep HOME: --user would put root's files behind alice's links."""
    host.root.run("ln", "-s", "/usr/local/bin", f"/home/{ALICE}/.local")
    assert "users other than root can change" in host.install("--user", expect=1, HOME=f"/home/{ALICE}")


@pytest.mark.parametrize("user", ["slurm|e", "-u", "sl urm", "a\nb"])
def test_a_slurm_user_that_is_not_a_name_is_refused(host: Host, user: str) -> None:
    """The name becomes part of a unit and of sed commands."""
    assert "which is not a name" in host.install(expect=1, SLURM_USER=user)


def test_text_of_slurmctld_reaches_the_terminal_without_escapes(host: Host) -> None:
    """slurmctld runs as the Slurm user, who may have it say anything."""
    config = "SlurmUser = slurm(64030)\\nJobCompType = jobcomp/x\\033[2Jy\\nEpilogSlurmctld = /a;id|sh\\n"
    host.put("/usr/local/bin/scontrol", f"#!/bin/sh\nprintf '{config}'\n", "root")
    said = host.install("--dry-run", PATH="/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert "\033" not in said
    assert "site_script=/a;id" not in said


def tell(host: Host, text: str) -> str:
    """Fakes slurmctld's answer, as the Slurm user can; returns the PATH to use."""
    host.put("/usr/local/bin/scontrol", f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\n", "root")
    return "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_a_script_named_by_slurmctld_is_not_taken_as_an_option(host: Host) -> None:
    """No sed command, whose w would empty a file of root's, and no FIFO, on which root would hang."""
    host.put("/root/victim", "root's\n", "root")
    host.root.run("mkfifo", "/tmp/fifo")
    host.install(PATH=tell(host, "JobCompLoc = -ew/root/victim\nEpilogSlurmctld = /tmp/fifo,-fw/root/victim\n"))
    assert "root's\n" == (host.path / "root/victim").read_text()


def test_a_slurm_conf_named_by_slurmctld_must_be_roots_and_plain(host: Host) -> None:
    """Its name becomes part of commands for root, and its answer is trusted."""
    for folder in ("/srv/a;id|sh;", "/srv/theirs"):
        host.put(f"{folder}/slurm.conf", "EpilogSlurmctld=/srv/theirs/x\nJobCompType=jobcomp/theirs\n", "slurm")
        said = host.install("--dry-run", PATH=tell(host, f"SLURM_CONF = {folder}/slurm.conf"))
        assert (False, False) == (folder in said, "jobcomp/theirs" in said)


def test_c1_and_bidirectional_controls_are_not_shown(host: Host) -> None:
    """Terminals take U+009B for an escape."""
    said = host.install("--dry-run", PATH=tell(host, "JobCompType = jobcomp/x\x9b2J\u202ey"))
    assert "jobcomp/x2Jy" in said


@pytest.mark.parametrize("user", ["root(0)", f"{ALICE}(1000)"])
@pytest.mark.parametrize("command", ["install.sh", "adapt"])
def test_slurmctld_alone_cannot_change_the_configurations_owner(host: Host, user: str, command: str) -> None:
    """With the Slurm user's own `sacct = "/tmp/evil"` in it, which would run as root, or as alice."""
    host.install()
    path = tell(host, f"SlurmUser = {user}")
    name = user.partition("(")[0]
    before = host.owner(f"/etc/{NAME}/config.toml"), host.owner(f"/var/spool/{NAME}")
    words = f"belongs to slurm, but slurmctld reports SlurmUser={name}"
    if command == "install.sh":
        assert words in host.install(expect=1, PATH=path)
    else:
        assert words in host.root.run("sh", "/root/bundle/etc/packaging/adapt.sh", expect=1, PATH=path)
    assert before == (host.owner(f"/etc/{NAME}/config.toml"), host.owner(f"/var/spool/{NAME}"))
    host.install(SLURM_USER=ALICE, PATH=path)
    assert f"{ALICE} 600" == host.owner(f"/etc/{NAME}/config.toml")


def test_adapt_takes_back_a_configuration_folder_of_the_slurm_user(host: Host) -> None:
    """Like install.sh, it keeps the owner of a file with several names, such as a hard link to /etc/shadow."""
    before = host.owner("/etc/shadow")
    host.put(f"/etc/{NAME}/note", "", "slurm")
    host.root.run("cp", "-a", "/etc/shadow", f"/etc/{NAME}/shadow")
    host.root.run("ln", f"/etc/{NAME}/shadow", f"/etc/{NAME}/config.toml")
    host.root.run("sh", "/root/bundle/etc/packaging/adapt.sh")
    assert (before, "root 755") == (host.owner(f"/etc/{NAME}/shadow"), host.owner(f"/etc/{NAME}"))
    host.install()
    assert before == host.owner(f"/etc/{NAME}/shadow")


def test_text_of_slurmctld_reaches_the_terminal_of_adapt_without_escapes(host: Host) -> None:
    """The message repeats an invalid SlurmUser."""
    said = host.root.run(
        "sh", "/root/bundle/etc/packaging/adapt.sh", expect=1, PATH=tell(host, "SlurmUser = \x1b[2J\x9bx y")
    )
    assert said == "adapt: SlurmUser [2Jx y: not a name\n"


@pytest.mark.parametrize(
    ("place", "mode"),
    [(".", "777"), ("wheelhouse", "775"), ("hooks/jobcomp.sh", "666"), ("etc/requirements/3.11.txt", "664")],
)
def test_a_copy_that_another_user_can_change_is_not_installed(host: Host, place: str, mode: str) -> None:
    """As after unpacking with umask 0: anybody could change its code, units and hashes."""
    host.root.run("chgrp", "games", f"/root/bundle/{place}")
    host.root.run("chmod", mode, f"/root/bundle/{place}")
    said = host.install(expect=1)
    assert f"users other than root can change {(Path('/root/bundle') / place)}" in said
    assert not (host.path / OPT.lstrip("/")).exists()


def test_a_copy_in_a_hidden_folder_is_checked_as_well(host: Host) -> None:
    """Only what is hidden below it, such as .git, is left out."""
    host.root.run("mv", "/root/bundle", "/root/.bundle")
    host.root.run("ln", "-s", ".bundle", "/root/bundle")
    host.root.run("chmod", "666", "/root/.bundle/hooks/jobcomp.sh")
    assert "users other than root can change /root/.bundle/hooks/jobcomp.sh" in host.install(expect=1)


def test_a_copy_of_the_callers_own_group_is_installed(host: Host) -> None:
    """On EL and Ubuntu a user's files are writable by a private group, of which only that user is a member."""
    host.root.run("cp", "-r", "/root/bundle", f"/home/{ALICE}/bundle")
    host.root.run("chown", "-R", f"{ALICE}:{ALICE}", f"/home/{ALICE}/bundle")
    host.root.run("chmod", "-R", "g+w", f"/home/{ALICE}/bundle")
    host.root.run(f"/home/{ALICE}/bundle/install.sh", "--no-systemd")
    host.root.run("chgrp", "-R", "games", f"/home/{ALICE}/bundle/hooks")
    assert "can change" in host.root.run(f"/home/{ALICE}/bundle/install.sh", "--no-systemd", expect=1)


def test_settings_for_pip_name_no_other_python_and_no_other_place(host: Host) -> None:
    """Settings of the caller's environment, of another user's home that sudo kept, and of the folder are ignored."""
    host.put("/srv/evil", '#!/bin/sh\nid -u >>/tmp/pwned\nexec /usr/bin/python3 "$@"\n')
    lines = "[global]\npython = /srv/evil\ntarget = /srv/target\nno-binary = :all:\n"
    for file in (
        f"/home/{ALICE}/.config/pip/pip.conf",
        f"/home/{ALICE}/.pip/pip.conf",
        "/tmp/pip/pip.conf",
        "/pip.conf",
    ):
        host.put(file, lines)
    host.install(
        HOME=f"/home/{ALICE}",
        XDG_CONFIG_HOME="/tmp",
        XDG_CONFIG_DIRS="/tmp",
        PIP_CONFIG_FILE="/pip.conf",
        PIP_PYTHON="/srv/evil",
        PIP_target="/srv/target",
        PIP_PREFIX="/srv/target",
        PIP_NO_BINARY=":all:",
        PYTHONHOME="/tmp",
    )
    assert ("", False) == (host.trace, (host.path / "srv/target").exists())


#: As the Slurm user: types a line into every terminal within reach, and prints which ones.
TYPE = """
import fcntl, os, sys, termios
got = []
for name in ("/dev/tty", *map(int, os.listdir("/proc/self/fd"))):
    try:
        number = os.open(name, os.O_RDWR) if isinstance(name, str) else name
        if os.isatty(number):
            got.append(str(name))
        fcntl.ioctl(number, termios.TIOCSTI, b"#")
        got.append(f"typed into {name}")
    except OSError:
        pass
with open("/tmp/report", "a") as report:
    report.write(f"{os.geteuid()} {got}\\n")
"""


@pytest.fixture
def typing_host(host: Host) -> Host:
    """A host on which children of the Slurm user report in /tmp/report which terminals they can write to."""
    host.put("/usr/local/bin/type.py", TYPE, "root")
    host.put("/tmp/report", "", "root", 0o666)
    host.root.run("chmod", "1777", "/tmp")
    return host


def plant_typing(host: Host, tool: str, program: str) -> None:
    """A tool that types if it does not run as root, and then does what *program* does."""
    attack = '[ "$(id -u)" = 0 ] || /usr/bin/python3 /usr/local/bin/type.py'
    host.put(f"/usr/local/bin/{tool}", f'#!/bin/sh\n{attack}\nexec {program} "$@"\n', "root")


def typed(host: Host, *command: str, **environ: str) -> set[str]:
    """Root calls it at a terminal; every user who ran the tool, and what that user could type."""
    ours, theirs = pty.openpty()
    settings = [f"{name}={value}" for name, value in {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environ}.items()]
    done = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "chroot", str(host.path), "env", "-i", *settings, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        while True:
            block = os.read(ours, 65536)
            if not block:
                break
            said += block
    except OSError:  # the terminal's end
        pass
    assert 0 == done.wait(240), said
    return set((host.path / "tmp/report").read_text().splitlines())


def test_the_slurm_users_child_gets_no_terminal(typing_host: Host) -> None:
    """With root's terminal it could type commands for root (TIOCSTI): it has its own session without a terminal."""
    plant_typing(typing_host, "pythonx", "/usr/bin/python3")
    slurm = typing_host.root.run("id", "-u", "slurm").strip()
    assert {f"{slurm} []"} == typed(
        typing_host, "/root/bundle/install.sh", "--no-systemd", PYTHON="/usr/local/bin/pythonx"
    )


def test_the_slurm_users_child_of_adapt_gets_no_terminal(typing_host: Host) -> None:
    """The child creates the folder in StateSaveLocation through which two controllers take turns."""
    plant_typing(typing_host, "mkdir", "/usr/bin/mkdir")
    typing_host.put(f"/etc/{NAME}/config.toml", "", "root", 0o600)
    hosts = "SlurmctldHost=ctl1\nSlurmctldHost=ctl2\nStateSaveLocation=/srv/state\n"
    typing_host.put("/etc/slurm/slurm.conf", hosts, "root")
    typing_host.put("/srv/state/clustername", "c", "slurm")
    slurm = typing_host.root.run("id", "-u", "slurm").strip()
    assert {f"{slurm} []"} == typed(
        typing_host, "sh", "/root/bundle/etc/packaging/adapt.sh", PATH="/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )
    assert "slurm 700" == typing_host.owner(f"/srv/state/{NAME}")


def test_a_deploy_key_on_the_command_line_is_refused_and_not_repeated(host: Host) -> None:
    """On the command line, ps would show it to everyone."""
    said = host.install("--api-url", "https://d", "--deploy-key", "very-secret", expect=1)
    assert "takes - (standard input) or a file" in said
    assert "very-secret" not in said
