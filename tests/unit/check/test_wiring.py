"""The suggested lines make slurmctld call the hook, whatever slurm.conf says already, and break no site.

Each remedy is carried out by a shell on a slurm.conf of the test's own; then all has to be well.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Mapping, NamedTuple

import pytest

from agent.check import wiring
from agent.check.finding import NotWell
from agent.check.shell_commands import RESTART, RESTART_HINT, START
from agent.check.wiring import (
    check_wiring,
    find_conf,
    find_hook_in,
    why_not_started,
    wiring_of_slurmctld,
)
from agent.slurm.slurm_conf import read_slurm_conf

ROOT = Path(__file__).parents[3]
HOOK = (ROOT / "hooks" / "jobcomp.sh").read_text()
OLD, NEW = "22.05.8", "24.05.1"


class Site:
    """A controller: slurm.conf, the hook, scripts of the site's, and what slurmctld has read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        (folder / "bin").mkdir()
        self.hook = self.script("bin/jobcomp.sh", HOOK)
        self.own = self.script("own.sh", 'echo own "$1" >>"$0.log"; exit 3')
        self.template = str(ROOT / "etc" / "hooks" / "call-both.sh")
        self.version = OLD

    def script(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def write(self, text: str) -> None:
        self.conf.write_text(self.fill(text))

    def fill(self, text: str) -> str:
        return text.replace("{hook}", self.hook).replace("{own}", self.own).replace("{dir}", str(self.folder))

    def read(self) -> dict[str, str]:
        """What slurmctld reports after a restart."""
        conf = read_slurm_conf(self.conf)
        spelling = {key.lower(): key for key in ("JobCompType", "JobCompLoc")}
        settings = {spelling.get(one.key.lower(), one.key): one.value for one in conf.settings}
        settings.pop("EpilogSlurmctld", None)
        epilogs = [setting.value for setting in conf.get_all("EpilogSlurmctld")]
        if self.version == OLD:
            numbered = {"EpilogSlurmctld": epilogs[-1]} if epilogs else {}
        else:
            numbered = {f"EpilogSlurmctld[{number}]": value for number, value in enumerate(epilogs)}
        return {**settings, **numbered, "SLURM_CONF": str(self.conf), "SLURM_VERSION": self.version}

    def check(self, settings: Mapping[str, str] | None = None) -> str:
        settings = self.read() if settings is None else settings
        return check_wiring(settings, read_slurm_conf(self.conf), self.hook, self.template).line

    def fault(self, settings: Mapping[str, str] | None = None) -> NotWell:
        with pytest.raises(NotWell) as caught:
            self.check(settings)
        return caught.value


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(wiring, "USUAL_PLACES", ())
    return Site(tmp_path)


def carry_out(line: str, restarts: bool = True) -> None:
    """Runs a remedy as root would, but for the restart."""
    assert line
    assert (f" && {RESTART}" in line) == restarts
    subprocess.run(["/bin/sh", "-ec", line.replace(f" && {RESTART}", "")], check=True)


class Case(NamedTuple):
    """A slurm.conf without the hook, what check reports, and what slurmctld calls after the fix."""

    name: str
    conf: str
    text: str
    hint: str
    after: str
    version: str = OLD


CASES = [
    Case(
        "nothing",
        "ClusterName=lab",  # and no newline at its end
        "slurmctld does not call the hook: JobCompType is not set",
        f"add JobCompType=jobcomp/script and JobCompLoc={{hook}} to {{dir}}/slurm.conf; then {RESTART_HINT}",
        "JobCompLoc={hook}",
    ),
    Case(
        "the plugin none, by name",
        "JobCompType=jobcomp/none\nEpilogSlurmctld={own}\n",
        "slurmctld does not call the hook: JobCompType is jobcomp/none",
        f"add JobCompType=jobcomp/script and JobCompLoc={{hook}} to {{dir}}/slurm.conf; then {RESTART_HINT}",
        "JobCompLoc={hook}",
    ),
    Case(
        "a script of the site's as JobCompLoc",
        "JobCompType=jobcomp/script\nJobCompLoc={own}\n",
        "slurmctld does not call the hook: JobCompLoc is {own}",
        f"to keep {{own}}, enter it in a copy of {ROOT}/etc/hooks/call-both.sh, which calls both; set JobCompLoc to"
        f" that copy in {{dir}}/slurm.conf:2, and {RESTART_HINT}",
        "JobCompLoc={dir}/call-both.sh",
    ),
    Case(
        "a script without its line",
        "JobCompType=jobcomp/script\n",
        "slurmctld does not call the hook: JobCompLoc is not set",
        f"set JobCompLoc={{hook}} in {{dir}}/slurm.conf, and {RESTART_HINT}",
        "JobCompLoc={hook}",
    ),
    Case(
        "a script that is nowhere",
        'JobCompType=jobcomp/script\nJobCompLoc="{dir}/bin/hook.sh"\n',
        "slurmctld does not call the hook: JobCompLoc is {dir}/bin/hook.sh, which does not exist",
        f"set JobCompLoc={{hook}} in {{dir}}/slurm.conf:2, and {RESTART_HINT}",
        "JobCompLoc={hook}",
    ),
    Case(
        "the hook one folder off",
        "JobCompType=jobcomp/script\n# as installed\njobcomploc={dir}/jobcomp.sh\n",
        "{dir}/slurm.conf:3 says JobCompLoc={dir}/jobcomp.sh, which does not exist: the hook is {hook}",
        f"put {{hook}} there, and {RESTART_HINT}",
        "JobCompLoc={hook}",
    ),
    Case(
        "another plugin",
        "JobCompType=jobcomp/elasticsearch\nJobCompLoc=http://es:9200\n",
        "slurmctld does not call the hook: JobCompType is jobcomp/elasticsearch",
        f"add EpilogSlurmctld={{hook}} to {{dir}}/slurm.conf; then {RESTART_HINT}",
        "EpilogSlurmctld={hook}",
    ),
    Case(
        "another plugin, and an epilog before 24.05",
        "JobCompType=jobcomp/kafka\nEpilogSlurmctld={own}\n",
        "slurmctld does not call the hook: JobCompType is jobcomp/kafka, and EpilogSlurmctld is {own}",
        f"to keep {{own}}, enter it in a copy of {ROOT}/etc/hooks/call-both.sh, which calls both; set EpilogSlurmctld"
        f" to that copy in {{dir}}/slurm.conf:2, and {RESTART_HINT}",
        "EpilogSlurmctld={dir}/call-both.sh",
    ),
    Case(
        "another plugin, and an epilog from 24.05 on",
        "JobCompType=jobcomp/kafka\nEpilogSlurmctld={own}\n",
        "slurmctld does not call the hook: JobCompType is jobcomp/kafka",
        "add EpilogSlurmctld={hook} to {dir}/slurm.conf; keep the line with {own}: Slurm accepts several since 24.05;"
        f" then {RESTART_HINT}",
        "EpilogSlurmctld={hook}",
        NEW,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_remedy_wires_the_hook_and_keeps_the_sites_settings(site: Site, case: Case) -> None:
    """Carried out unchanged, the remedy adds the hook to every script and plugin that was called before."""
    site.version = case.version
    site.write(case.conf)
    before = site.read()
    fault = site.fault()
    assert [site.fill(case.text), site.fill(case.hint)] == [str(fault), fault.hint]
    carry_out(fault.run)
    assert site.fill(case.after) == site.check()
    after = site.read()
    if site.own in case.conf.replace("{own}", site.own):
        kept = "\n".join(after.values()) + "".join(path.read_text() for path in site.folder.glob("call-both.sh"))
        assert site.own in kept
    if "/none" not in case.conf and before.get("JobCompType"):
        assert before["JobCompType"] == after["JobCompType"]


def test_the_wrapper_keeps_the_sites_script_as_it_was(site: Site, tmp_path: Path) -> None:
    """The site's script keeps its arguments, environment and exit status, also once the hook is removed."""
    site.write("JobCompType=jobcomp/script\nJobCompLoc={own}\n")
    carry_out(site.fault().run)
    both = tmp_path / "call-both.sh"
    spool = tmp_path / "spool"
    spool.mkdir()
    environ = {"JOBID": "7", "SLURM_USAGE_HISTORY_SPOOL": str(spool), "PATH": "/bin:/usr/bin"}
    assert 3 == subprocess.run([str(both), "a b"], env=environ, check=False).returncode
    assert ["\n7 - - -\n", "own a b\n"] == [(spool / "queue").read_text(), Path(f"{site.own}.log").read_text()]
    Path(site.hook).unlink()
    assert 3 == subprocess.run([str(both), "c"], env=environ, check=False).returncode
    assert "own a b\nown c\n" == Path(f"{site.own}.log").read_text()


def test_an_existing_wrapper_is_not_overwritten(site: Site) -> None:
    """It may call something else by now, so the fix is described without a command."""
    site.write("JobCompType=jobcomp/script\nJobCompLoc={own}\n")
    site.script("call-both.sh", "exec /something/else")
    assert "" == site.fault().run


@pytest.mark.parametrize("name", ["own script.sh", "own|script.sh", "own'script.sh", "own$(id).sh"])
def test_no_command_is_printed_for_odd_paths(site: Site, name: str) -> None:
    """A shell or sed would misinterpret them."""
    site.own = site.script(name, "true")
    settings = {"JobCompType": "jobcomp/script", "JobCompLoc": site.own, "SLURM_CONF": str(site.conf)}
    site.write('JobCompType=jobcomp/script\nJobCompLoc="{own}"\n')
    assert "" == site.fault(settings).run


# --- slurm.conf and what slurmctld has read of it


def test_lines_that_slurmctld_has_not_read(site: Site) -> None:
    """The lines are already in slurm.conf, so the fix is only a restart."""
    site.write("ClusterName=lab\n")
    before = site.read()
    site.write("ClusterName=lab\nJobCompType=jobcomp/script\nJobCompLoc={hook}\n")
    fault = site.fault(before)
    assert site.fill("{dir}/slurm.conf:3 names {hook}, but slurmctld has not read that line yet") == str(fault)
    assert (RESTART_HINT, RESTART) == (fault.hint, fault.run)


def test_lines_in_an_included_file(site: Site) -> None:
    """The finding names the included file."""
    site.write("ClusterName=lab\n")
    before = site.read()
    site.write("ClusterName=lab\nInclude jobcomp.conf\n")
    (site.folder / "jobcomp.conf").write_text(site.fill("JobCompType=jobcomp/script\nJobCompLoc={hook}\n"))
    assert str(site.fault(before)).startswith(f"{site.folder}/jobcomp.conf:2 names ")


def test_lines_in_a_file_that_slurmctld_does_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site may have a second slurm.conf, of a package or of another version."""
    other = site.folder / "other.conf"
    other.write_text(site.fill("JobCompType=jobcomp/script\nJobCompLoc={hook}\n"))
    monkeypatch.setattr(wiring, "USUAL_PLACES", (str(other), str(site.conf)))
    site.write("ClusterName=lab\n")
    fault = site.fault()
    assert site.fill("{dir}/other.conf names {hook}, but slurmctld reads {dir}/slurm.conf") == str(fault)
    carry_out(fault.run)
    assert site.fill("JobCompLoc={hook}") == site.check()


def test_lines_that_were_removed_from_slurm_conf(site: Site) -> None:
    """slurmctld keeps calling the hook until its next start; nobody would look for the reason there."""
    site.write("JobCompType=jobcomp/script\nJobCompLoc={hook}\n")
    before = site.read()
    assert site.fill("JobCompLoc={hook}") == site.check(before)
    site.write("ClusterName=lab\n")
    fault = site.fault(before)
    assert str(fault).endswith("slurm.conf no longer names it: the calls will stop at its next restart")
    carry_out(fault.run, restarts=False)
    assert site.fill("JobCompLoc={hook}") == site.check()


def test_an_unreadable_slurm_conf_proves_nothing(site: Site) -> None:
    """Only what slurmctld reports counts in that case."""
    settings = {"JobCompType": "jobcomp/script", "JobCompLoc": site.hook, "SLURM_CONF": "/none/slurm.conf"}
    assert f"JobCompLoc={site.hook}" == site.check(settings)


# --- lines that mean something else


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("Epilog", "slurmd runs on each node, where there is no queue"),
        ("Epilog[0]", "slurmd runs on each node, where there is no queue"),
        ("PrologSlurmctld", "slurmctld runs before a job"),
        ("TaskEpilog", "slurmstepd runs on each node, as the job's user"),
    ],
)
def test_the_hook_under_a_key_that_sounds_alike(site: Site, key: str, meaning: str) -> None:
    """EpilogSlurmctld is not Epilog."""
    site.write("ClusterName=lab\n")
    fault = site.fault({**site.read(), key: site.hook})
    assert f"slurm.conf says {key.partition('[')[0]}={site.hook}, which {meaning}" == str(fault)
    assert fault.hint.startswith("remove that line; add JobCompType=jobcomp/script and JobCompLoc=")


def test_the_hook_as_another_plugins_file(site: Site) -> None:
    """jobcomp/filetxt would write its records into the script."""
    site.write("JobCompType=jobcomp/filetxt\nJobCompLoc={hook}\n")
    fault = site.fault()
    expected = "JobCompType is jobcomp/filetxt, which does not treat JobCompLoc={hook}, the hook, as a script"
    assert site.fill(expected) == str(fault)
    assert site.fill(f"set JobCompType=jobcomp/script in {{dir}}/slurm.conf, and {RESTART_HINT}") == fault.hint


# --- what is a hook


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/opt/x/bin/jobcomp.sh", "/opt/x/bin/jobcomp.sh"),
        ('hook=/opt/x/jobcomp.sh\n"$hook"', "/opt/x/jobcomp.sh"),
        ("exec /opt/x/jobcomp.sh;", "/opt/x/jobcomp.sh"),
        ("# exec /opt/x/jobcomp.sh", ""),
        ("  # SLURM_USAGE_HISTORY_SPOOL", ""),
        ("export SLURM_USAGE_HISTORY_SPOOL=/s", "{itself}"),
        ("$HERE/jobcomp.sh", "{itself}"),
        ("echo done", ""),
    ],
)
def test_what_a_script_calls(site: Site, text: str, found: str) -> None:
    """Its content decides; a comment does not count."""
    script = site.script("any", text)
    hook = find_hook_in(Path(script))
    assert found.replace("{itself}", script) == (str(hook) if hook else "")


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    """A deleted hook is not mistaken for a site's own script."""
    assert tmp_path / "jobcomp.sh" == find_hook_in(tmp_path / "jobcomp.sh")
    assert None is find_hook_in(tmp_path / "notify.sh")


@pytest.mark.parametrize(
    "settings",
    [
        {"JobCompType": "jobcomp/script", "JobCompLoc": "{hook}"},
        {"JobCompType": "script", "JobCompLoc": "{hook}"},
        {"JobCompType": "jobcomp/elasticsearch", "EpilogSlurmctld": "{hook}"},
        {"EpilogSlurmctld": "/bin/true,{hook}"},
        {"EpilogSlurmctld[0]": "/bin/true", "EpilogSlurmctld[1]": "{hook}"},
    ],
)
def test_the_hook_is_wired_in_either_way(site: Site, settings: Mapping[str, str]) -> None:
    """As JobCompLoc, or as one of the EpilogSlurmctld."""
    call = wiring_of_slurmctld({key: site.fill(value) for key, value in settings.items()}).find_call()
    assert call
    assert site.hook == str(call.hook)


# --- a slurmctld that does not start


@pytest.mark.parametrize("key", ["JobCompType=jobcomp/script\nJobCompLoc", "EpilogSlurmctld"])
def test_a_slurmctld_that_a_missing_script_keeps_from_starting(site: Site, key: str) -> None:
    """From 24.11 on, its log says no more than "fatal: Failed to initialize jobcomp plugin"."""
    site.write(f"{key}={{dir}}/jobcomp.sh\n")
    fault = why_not_started(read_slurm_conf(site.conf), site.hook)
    assert fault
    line = len(key.splitlines())
    assert site.fill(
        f"slurmctld is down, and {{dir}}/slurm.conf:{line} names {{dir}}/jobcomp.sh, which does not exist:"
    ) in str(fault)
    subprocess.run(["/bin/sh", "-ec", fault.run.replace(START, "true")], check=True)
    assert None is why_not_started(read_slurm_conf(site.conf), site.hook)


def test_a_slurmctld_that_a_script_without_its_x_keeps_from_starting(site: Site) -> None:
    """The script may be the site's own, too."""
    site.write("JobCompType=jobcomp/kafka\nEpilogSlurmctld={own}\n")
    Path(site.own).chmod(0o644)
    fault = why_not_started(read_slurm_conf(site.conf), site.hook)
    assert fault
    assert f"chmod a+rx {site.own} && {START}" == fault.run
    Path(site.own).chmod(0o755)
    assert None is why_not_started(read_slurm_conf(site.conf), site.hook)


def test_a_missing_hook_must_be_restored(site: Site) -> None:
    """No command can restore it, so the fix is described."""
    site.write("JobCompType=jobcomp/script\nJobCompLoc={hook}\n")
    Path(site.hook).unlink()
    fault = why_not_started(read_slurm_conf(site.conf), site.hook)
    assert fault
    assert (f"restore it, then run {START}", "") == (fault.hint, fault.run)


def test_where_slurm_conf_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM_CONF names it, or it is in a usual place."""
    site.write("ClusterName=lab\n")
    assert () == find_conf({}).settings
    assert 1 == len(find_conf({"SLURM_CONF": str(site.conf)}).settings)
    monkeypatch.setattr(wiring, "USUAL_PLACES", ("/none", str(site.conf)))
    assert 1 == len(find_conf({}).settings)


@pytest.mark.parametrize("name", ["theirs/slurm.conf", "profile", "a;id/slurm.conf", "$(id)/slurm.conf"])
def test_no_fix_writes_as_root_to_a_file_that_the_slurm_user_chose(site: Site, name: str) -> None:
    """slurmctld, run by that user, reports the path: another user's file, a shell's, or a name with commands."""
    conf = site.folder / name
    conf.parent.mkdir(exist_ok=True)
    site.conf = conf
    site.write("JobCompType=jobcomp/script\nJobCompLoc={own}")
    if name.startswith("theirs"):
        if os.geteuid() != 0:
            pytest.skip("only root can make a folder of another user's")
        os.chown(conf.parent, 65534, 65534)
    assert "" == site.fault().run
    site.write("ClusterName=lab")
    assert "" == site.fault().run
    reported = {**site.read(), "JobCompType": "jobcomp/script", "JobCompLoc": site.hook}
    assert "" == site.fault(reported).run


def test_a_script_with_commands_in_its_name_is_written_nowhere(site: Site) -> None:
    """The line would be run by anyone who reads the file."""
    site.write("ClusterName=lab")
    reported = {**site.read(), "JobCompType": "jobcomp/script", "JobCompLoc": "/$(id)/jobcomp.sh"}
    assert "" == site.fault(reported).run


def test_a_link_that_leads_nowhere_is_not_written_through(site: Site) -> None:
    """It could lead to a file that root would run."""
    site.write("JobCompType=jobcomp/script\nJobCompLoc={own}")
    assert site.fault().run
    (site.folder / "call-both.sh").symlink_to(site.folder / "cron.daily")
    assert "" == site.fault().run
