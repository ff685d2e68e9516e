"""Text from other users reaches root's terminal without control characters, and never as harmful advice."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.check import host as check_host
from agent.config import load_config, parse_config
from agent.errors import ConfigError, ExporterError
from tests.faults.test_root import SLURM, House, house, pytestmark

__all__ = ["house", "pytestmark"]
ESCAPE = "\x1b]0;pwned\x07\x1b[2J"


@pytest.mark.parametrize("key", ["cluster_name", "sacct", "spool_dir", "metrics_file", "api_url"])
@pytest.mark.parametrize("letter", ["\x1b", "\x9b", "\u202e", "\u2066", "\n", "\x00", "\x7f"])
def test_a_setting_that_cannot_be_shown_is_refused(key: str, letter: str) -> None:
    """Escapes, line breaks and direction marks are named, not repeated."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"api_url": "https://d", "api_key": "k", key: f"a{letter}b"}, {})
    assert f"{key}: must be " in str(caught.value)
    assert letter not in str(caught.value).replace("\n  ", "")


def test_an_unknown_key_is_named_without_its_escapes() -> None:
    """The text is repeated so that it can be found."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"api_url": "https://d", "api_key": "k", ESCAPE: 1}, {})
    assert "?]0;pwned??[2J: unknown key" in str(caught.value)


def test_a_password_in_a_url_is_not_repeated() -> None:
    """A password in a URL, which belongs elsewhere, is left out of messages."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"api_url": "https://me:pass@d", "api_key": "k"}, {})
    assert ("pass" in str(caught.value), "https://***@d" in str(caught.value)) == (False, True)


def test_every_error_is_printable() -> None:
    """The text is cleaned regardless of its source: this is the only way into the log, the ledger and onto a screen."""
    error = ExporterError(f"sacct says {ESCAPE}\ud800\u202e", hint=ESCAPE)
    assert ("sacct says ?]0;pwned??[2J??", "?]0;pwned??[2J") == (str(error), error.hint)


@pytest.mark.parametrize("command", [["flush"], ["reconcile"], ["check"], ["status"]])
def test_output_of_slurms_commands_reaches_no_terminal_unescaped(house: House, command: list[str]) -> None:
    """Neither stream carries a control character."""
    house.evil.write_text("#!/bin/sh\nprintf 'error: \\033[2J\\302\\233x\\n' | tee /dev/stderr\nexit 1\n")
    house.configure(cluster_name="c")
    (house.spool / "queue").write_text("7\n")
    for _ in range(2):  # the second one shows what the first stored
        done = house.run(*command)
    shown = (done.stdout + done.stderr).replace("\n", "")
    assert [] == [letter for letter in shown if not letter.isprintable()]


def test_text_of_the_ledger_reaches_no_terminal_unescaped(house: House) -> None:
    """The ledger is the Slurm user's: root's `status` and `queue list` show what that user wrote there."""
    house.configure(cluster_name="c")
    (house.spool / "queue").write_text("7\n8\n")
    house.run("flush")
    with closing(sqlite3.connect(house.spool / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET message = ?", (f"{ESCAPE}\u202e\x9b",))
        ledger.execute("UPDATE waiting SET reason = ?, state = 'refused' WHERE job_id = 7", (ESCAPE,))
        ledger.execute("INSERT INTO rejected VALUES ('c', 9, 0, 0, ?, '', '', ?, 0, 1, 0)", (ESCAPE, ESCAPE))
    for command in (["status"], ["status", "--check"], ["status", "--json"], ["queue", "list"], ["check"]):
        done = house.run(*command)
        shown = (done.stdout + done.stderr).replace("\n", "")
        assert "pwned" in shown or command == ["check"], command
        assert [] == [letter for letter in shown if not letter.isprintable()], command


def test_text_of_slurmctld_reaches_no_terminal_unescaped(house: House) -> None:
    """The value of a correct setting is shown, too."""
    house.evil.write_text(
        "#!/bin/sh\nprintf 'ClusterName = c\\033[2J\\nSLURM_VERSION = 24.05\\302\\233\\nJobCompType = jobcomp/script\\n"
        "JobCompLoc = /\\033]0;x\\007/jobcomp.sh\\nSlurmUser = \\342\\200\\256nobody(65534)\\n'\n"
    )
    house.configure()
    done = house.run("check")
    shown = (done.stdout + done.stderr).replace("\n", "")
    assert "jobcomp.sh" in shown
    assert [] == [letter for letter in shown if not letter.isprintable()]


@pytest.mark.parametrize(
    "settings", [{"spool_dir": "/etc"}, {"spool_dir": "/etc/cron.x"}, {"api_key_file": "/etc/shadow"}]
)
def test_check_prints_no_chown_of_a_path_that_the_slurm_user_chose(house: House, settings: dict[str, str]) -> None:
    """Remedies are run as printed, and slurm owns the configuration: none may say chown slurm /etc/shadow."""
    house.configure(api_key="" if "api_key_file" in settings else "k", **settings)
    found = json.loads(house.run("check", "--json").stdout)["checks"]
    lines = [finding.get("run", "") + finding.get("mend", "") for finding in found]
    assert [] == [line for line in lines if "/etc" in line and ("chown" in line or "install -d" in line)]
    folder = Path(settings.get("spool_dir", "/etc/shadow"))
    assert not check_host.is_roots_choice(folder, house.config)


def commands_of_check(house: House) -> str:
    """The remedies that `check` prints, in words and as commands."""
    found = json.loads(house.run("check", "--json").stdout)["checks"]
    return "\n".join(finding["mend"] + "\n" + finding["run"] for finding in found)


def test_check_prints_no_command_for_a_file_in_a_folder_of_the_slurm_user(house: House) -> None:
    """Before root runs the command, the Slurm user could replace the file by a link to /etc/shadow."""
    theirs = house.folder / "theirs"
    theirs.mkdir()
    key = theirs / "key"
    key.write_text("k\n")
    for path in (theirs, key):
        os.chown(path, SLURM, SLURM)
    house.configure(api_key="", api_key_file=str(key))
    assert str(key) not in commands_of_check(house)


def test_check_prints_no_command_for_a_file_of_root_that_the_slurm_user_chose(house: House) -> None:
    """Any single word counts as a key: with mode 600, other users could no longer read /etc/machine-id."""
    word = house.folder / "machine-id"
    word.write_text("0123\n")
    house.configure(api_key="", api_key_file=str(word))
    assert str(word) not in commands_of_check(house)


@pytest.mark.parametrize("place", ["link", "folder"])
def test_check_prints_no_command_for_a_hook_that_only_slurmctld_names(house: House, place: str) -> None:
    """The Slurm user runs slurmctld, which may report a link to /etc/shadow, or a folder of root."""
    folder = house.folder / "place"
    folder.mkdir(mode=0o755 if place == "link" else 0o700)
    (folder / "jobcomp.sh").symlink_to("/etc/shadow")
    conf = house.folder / "slurm.conf"
    conf.write_text("JobCompType=jobcomp/script\nJobCompLoc=/usr/libexec/x/jobcomp.sh\n")
    house.evil.write_text(
        "#!/bin/sh\nprintf 'SLURM_VERSION = 22.05.8\\nSlurmUser = nobody(65534)\\nClusterName = c\\n'\n"
        f"printf 'SLURM_CONF = {conf}\\nJobCompType = jobcomp/script\\nJobCompLoc = {folder}/jobcomp.sh\\n'\n"
    )
    house.configure()
    printed = commands_of_check(house)
    verb = "enter" if place == "folder" else "read"
    assert (True, False) == (f"let that user {verb}" in printed, str(folder) in printed)


def test_a_plain_http_address_of_another_host_causes_a_warning(house: House) -> None:
    """Each run, status and check warn until the configuration confirms it."""
    house.configure(api_url="http://192.0.2.1", timeout="")
    os.chown(house.config, SLURM, SLURM)
    words = "http://192.0.2.1 is not encrypted"
    assert (words in house.run("flush").stderr, words in house.run("status").stdout) == (True, True)
    assert words in house.run("check").stdout
    house.config.write_text(house.config.read_text() + "allow_http = true\n")
    assert words not in house.run("flush").stderr + house.run("status").stdout
    assert load_config(house.config, {}).allow_http
