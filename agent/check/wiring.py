"""Whether slurmctld is configured to call the hook, and if not, which lines of slurm.conf would change that.

The shell commands for these lines are in :mod:`agent.check.shell_commands`.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple

from agent.check.finding import NotWell
from agent.check.shell_commands import RESTART, RESTART_HINT, START, append, chmod, replace, then_restart
from agent.config import SPOOL_VARIABLE
from agent.install_paths import is_missing
from agent.regular_file import read_regular
from agent.slurm.environment import USUAL_PLACES
from agent.slurm.slurm_conf import Conf, Setting, read_slurm_conf

#: The first version that accepts several EpilogSlurmctld lines.
SEVERAL_EPILOGS = (24, 5)
#: Keys of slurm.conf whose script runs elsewhere, or at another time.
_OTHER_TIMES = {
    "Epilog": "slurmd runs on each node, where there is no queue",
    "Prolog": "slurmd runs on each node before a job",
    "PrologSlurmctld": "slurmctld runs before a job",
    "TaskEpilog": "slurmstepd runs on each node, as the job's user",
}
_NO_JOBCOMP = {"", "none", "(null)"}
_MENTIONED = re.compile(r"[^\s\"';|&()=]*/jobcomp\.sh\b")
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)


class Call(NamedTuple):
    """A script that slurmctld calls when a job ends, and the hook: that script, or one that it calls."""

    key: str
    script: Path
    hook: Path

    @property
    def line(self) -> str:
        """The setting in slurm.conf."""
        return f"{self.key}={self.script}"


class Wiring(NamedTuple):
    """What slurmctld is configured to call when a job ends."""

    jobcomp: str  # the plugin's name, without jobcomp/
    location: str  # JobCompLoc; a script's path only if the plugin is "script"
    epilogs: tuple[str, ...]

    def find_call(self) -> Call | None:
        """The first call that reaches the hook."""
        for key, script in self.scripts():
            hook = find_hook_in(script)
            if hook:
                return Call(key, script, hook)
        return None

    def scripts(self) -> Iterator[tuple[str, Path]]:
        """Each script that slurmctld calls, with its key in slurm.conf."""
        if self.jobcomp == "script" and self.location:
            yield "JobCompLoc", Path(self.location)
        yield from (("EpilogSlurmctld", Path(epilog)) for epilog in self.epilogs)


def wiring_of_slurmctld(settings: Mapping[str, str]) -> Wiring:
    """From ``scontrol show config``, which numbers the EpilogSlurmctld lines since 24.05."""
    epilogs = [value for name, value in settings.items() if name.partition("[")[0] == "EpilogSlurmctld"]
    return _make_wiring(settings.get("JobCompType", ""), settings.get("JobCompLoc", ""), epilogs)


def wiring_of_file(conf: Conf) -> Wiring:
    """From slurm.conf."""
    jobcomp, location = conf.get("JobCompType"), conf.get("JobCompLoc")
    epilogs = [setting.value for setting in conf.get_all("EpilogSlurmctld")]
    return _make_wiring(jobcomp.value if jobcomp else "", location.value if location else "", epilogs)


def _make_wiring(jobcomp: str, location: str, epilogs: list[str]) -> Wiring:
    plugin = jobcomp.rpartition("/")[2]
    scripts = [script for value in epilogs for script in value.split(",") if script.startswith("/")]
    return Wiring("" if plugin in _NO_JOBCOMP else plugin, "" if location == "(null)" else location, tuple(scripts))


def find_hook_in(script: Path) -> Path | None:
    """The hook that a script is, or calls. A script that cannot be read is judged by its name."""
    try:
        text = _COMMENT.sub("", read_regular(script))
    except OSError:
        return script if script.name == "jobcomp.sh" else None
    if SPOOL_VARIABLE in text:  # every hook contains it, and nothing else does
        return script
    mentioned = _MENTIONED.search(text)
    if not mentioned:
        return None
    return Path(mentioned[0]) if mentioned[0].startswith("/") else script  # $DIR/jobcomp.sh


def read_conf(settings: Mapping[str, str]) -> Conf:
    """slurm.conf on this host, at the path that slurmctld reports."""
    return read_slurm_conf(_conf_path(settings), settings.get("ClusterName", ""))


def find_conf(environ: Mapping[str, str]) -> Conf:
    """slurm.conf if slurmctld does not answer: from SLURM_CONF, or in a usual place."""
    for place in (environ.get("SLURM_CONF", ""), *USUAL_PLACES):
        if place and not is_missing(Path(place)):
            return read_slurm_conf(Path(place))
    return Conf((), complete=False)


def check_wiring(settings: Mapping[str, str], conf: Conf, installed: str, template: str) -> Call:
    """The call of the hook in slurmctld's running configuration, if slurm.conf still has it.

    :param installed: the path of the hook that should be called.
    :param template: the path of the wrapper that calls the hook and one of the site's scripts.
    """
    wiring = wiring_of_slurmctld(settings)
    call = wiring.find_call()
    if call is None:
        raise Diagnosis(settings, conf, installed, template).trouble()
    _check_place(call, conf, installed)
    if conf.settings and conf.complete and not wiring_of_file(conf).find_call():
        lines = _assignments(call, installed)
        raise NotWell(
            f"slurmctld calls {call.script}, but {_conf_path(settings)} no longer names it: the calls will stop at its"
            " next restart",
            hint=f"put {' and '.join(lines)} back",
            run=append(_conf_path(settings), lines),
        )
    return call


def _check_place(call: Call, conf: Conf, installed: str) -> None:
    """Raises if the configured path does not exist, but the hook is installed elsewhere."""
    if not is_missing(call.hook) or call.hook == Path(installed) or is_missing(Path(installed)):
        return
    found: Setting | Path | None = call.script
    where = f"{call.script} calls {call.hook}"
    if call.script == call.hook:
        found = setting = _setting_of(conf, call.key, str(call.script))
        where = f"{setting.place if setting else 'slurm.conf'} says {call.line}"
    command = replace(found, str(call.hook), installed) if found else ""
    raise _and_restart(f"{where}, which does not exist: the hook is {installed}", f"put {installed} there", command)


def why_not_started(conf: Conf, installed: str) -> NotWell | None:
    """Why slurmctld 24.11 or later does not start: slurm.conf names a script that cannot be run. None if all can."""
    for key, script in wiring_of_file(conf).scripts():
        if os.access(script, os.X_OK):
            continue
        setting = _setting_of(conf, key, str(script))
        text = f"slurmctld is down, and {setting.place if setting else 'slurm.conf'} names {script}"
        if not is_missing(script):
            line = chmod("a+rx", script)
            return NotWell(
                f"{text}, which is not executable: slurmctld 24.11 does not start without it",
                hint="make it executable",
                run=f"{line} && {START}" if line else "",
            )
        change = replace(setting, str(script), installed) if setting and not is_missing(Path(installed)) else ""
        return NotWell(
            f"{text}, which does not exist: slurmctld 24.11 does not start without it",
            hint=f"put {installed} there, and start slurmctld" if change else f"restore it, then run {START}",
            run=f"{change} && {START}" if change else "",
        )
    return None


class Diagnosis:
    """Why slurmctld does not call the hook, and which lines would make it while keeping the site's own scripts."""

    def __init__(self, settings: Mapping[str, str], conf: Conf, installed: str, template: str) -> None:
        self._settings, self._conf = settings, conf
        self._installed, self._template = installed, template
        self._path = _conf_path(settings)
        self._wiring = wiring_of_slurmctld(settings)

    def trouble(self) -> NotWell:
        """The problem and its remedy."""
        return self._not_read_yet() or self._in_another_file() or self._at_another_time() or self._not_called()

    def _not_read_yet(self) -> NotWell | None:
        call = wiring_of_file(self._conf).find_call()
        if not call:
            return None
        setting = next(one for one in reversed(self._conf.settings) if one.value == str(call.script))
        return NotWell(
            f"{setting.place} names {call.script}, but slurmctld has not read that line yet",
            hint=RESTART_HINT,
            run=RESTART,
        )

    def _in_another_file(self) -> NotWell | None:
        others = [place for place in map(Path, USUAL_PLACES) if not _is_same(place, self._path)]
        calls = ((other, wiring_of_file(read_slurm_conf(other)).find_call()) for other in others)
        other, call = next(((other, call) for other, call in calls if call), (None, None))
        if not call:
            return None
        lines = _assignments(call, str(call.script))
        text = f"{other} names {call.script}, but slurmctld reads {self._path}"
        return _and_restart(text, f"put {' and '.join(lines)} there", append(self._path, lines))

    def _at_another_time(self) -> NotWell | None:
        for key, meaning in _OTHER_TIMES.items():
            value = self._settings.get(key, self._settings.get(f"{key}[0]", ""))
            if value.startswith("/") and find_hook_in(Path(value)):
                return NotWell(
                    f"slurm.conf says {key}={value}, which {meaning}",
                    hint=f"remove that line; {self._not_called().hint}",
                )
        return None

    def _not_called(self) -> NotWell:
        """No line calls the hook: which ones fit the present slurm.conf."""
        if self._wiring.jobcomp == "script":
            return self._other_script()
        plugin = self._settings.get("JobCompType", "") or "not set"
        text = f"slurmctld does not call the hook: JobCompType is {plugin}"
        if not self._wiring.jobcomp:
            return self._add(text, "JobCompType=jobcomp/script", f"JobCompLoc={self._installed}")
        return self._other_plugin(text, plugin)

    def _other_script(self) -> NotWell:
        location = self._wiring.location
        text = f"slurmctld does not call the hook: JobCompLoc is {location or 'not set'}"
        if location and not is_missing(Path(location)):
            return self._call_both(text, "JobCompLoc", location)
        return self._point_to_hook(text, location)

    def _other_plugin(self, text: str, plugin: str) -> NotWell:
        """The site stores finished jobs with another plugin, so that EpilogSlurmctld has to call the hook."""
        _, location, epilogs = self._wiring
        if location and find_hook_in(Path(location)) and location == self._installed:
            problem = f"JobCompType is {plugin}, which does not treat JobCompLoc={location}, the hook, as a script"
            return _and_restart(problem, f"set JobCompType=jobcomp/script in {self._path}")
        if epilogs and version_of(self._settings.get("SLURM_VERSION", "")) < SEVERAL_EPILOGS:
            return self._call_both(f"{text}, and EpilogSlurmctld is {epilogs[0]}", "EpilogSlurmctld", epilogs[0])
        return self._add(text, f"EpilogSlurmctld={self._installed}", beside=epilogs)

    def _add(self, text: str, *lines: str, beside: tuple[str, ...] = ()) -> NotWell:
        keep = f"; keep the line with {beside[0]}: Slurm accepts several since 24.05" if beside else ""
        return NotWell(
            text,
            hint=f"add {' and '.join(lines)} to {self._path}{keep}; then {RESTART_HINT}",
            run=then_restart(append(self._path, lines)),
        )

    def _point_to_hook(self, text: str, location: str) -> NotWell:
        here = _setting_of(self._conf, "JobCompLoc", location)
        line = f"JobCompLoc={self._installed}"
        change = replace(here, location, self._installed) if here else append(self._path, [line])
        problem = f"{text}, which does not exist" if location else text
        return _and_restart(problem, f"set {line} in {here.place if here else self._path}", change)

    def _call_both(self, text: str, key: str, script: str) -> NotWell:
        """A wrapper keeps calling the site's script with the same environment, and returns its exit status."""
        setting = _setting_of(self._conf, key, script)
        both = self._path.parent / "call-both.sh"
        fill_in = f"s|^site_script=.*|site_script={script}|; s|^hook=.*|hook={self._installed}|"
        steps = [
            f"sed {shlex.quote(fill_in)} {shlex.quote(self._template)} >{both}",
            f"chmod 755 {both}",
            replace(setting, script, str(both)) if setting else "",
            RESTART,
        ]
        return NotWell(
            text,
            hint=f"to keep {script}, enter it in a copy of {self._template}, which calls both; set {key} to that copy"
            f" in {setting.place if setting else self._path}, and {RESTART_HINT}",
            run=" && ".join(steps)
            if all(steps) and not os.path.lexists(both)
            else "",  # a link that leads nowhere, too
        )


def _and_restart(text: str, change: str, command: str = "") -> NotWell:
    """A problem that a change of slurm.conf and a restart solve.

    :param command: makes the change; empty if that is unsafe.
    """
    return NotWell(text, hint=f"{change}, and {RESTART_HINT}", run=then_restart(command))


def version_of(text: str) -> tuple[int, int]:
    """A daemon's version, such as (22, 5); (0, 0) if unknown."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _conf_path(settings: Mapping[str, str]) -> Path:
    return Path(settings.get("SLURM_CONF") or USUAL_PLACES[0])


def _setting_of(conf: Conf, key: str, value: str) -> Setting | None:
    """The last line that sets a key to a value, or to a list that contains it."""
    found = [setting for setting in conf.get_all(key) if value and value in setting.value.split(",")]
    return found[-1] if found else None


def _assignments(call: Call, script: str) -> list[str]:
    lines = [f"{call.key}={script}"]
    return ["JobCompType=jobcomp/script", *lines] if call.key == "JobCompLoc" else lines
