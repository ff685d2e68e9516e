"""What exists is documented, and what is documented exists."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

import agent
from agent import errors
from agent.arguments import COMMANDS, EPILOG, build_parser
from agent.check.shell_commands import RESTART_HINT
from agent.config import API_KEY_VARIABLE, NAME, SPOOL_VARIABLE
from agent.config_keys import KEYS
from agent.status.health import Level, Problem
from agent.status.metrics import METRICS
from agent.status.output import as_json
from agent.status.snapshot import UnderWay
from tests.support.snapshots import NOON, REFUSED, make_snapshot
from tests.support.tools import need

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
MONITORING = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXACTNESS = (ROOT / "docs/exactness.md").read_text(encoding="utf-8")
MAN_PAGE = ROOT / f"etc/man/{NAME}.8"
COMPLETIONS = {"bash": ROOT / f"etc/completion/{NAME}.bash", "zsh": ROOT / f"etc/completion/_{NAME}"}
#: Keys whose default is documented with its quotes.
QUOTED = {"requeued_runs", "never_started", "receiver", "ingest_path", "ingest_header"}
RULES = (ROOT / "etc/prometheus/slurm-usage-history.rules.yml").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def first_column(text: str, heading: str) -> set[str]:
    """The words in backquotes that begin the rows of the table below a heading's row of titles."""
    _, _, behind = text.partition(f"| {heading} |")
    assert behind, heading
    table = behind.split("\n\n")[0]
    return set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))


def all_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The words of each command, and its parser; the program's own first."""
    queue = [("", build_parser())]
    while queue:
        words, parser = queue.pop(0)
        yield words, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                queue += [(f"{words} {name}".strip(), its) for name, its in action.choices.items()]


def all_options() -> set[str]:
    """Every long option of every command."""
    actions = [action for _, parser in all_parsers() for action in parser._actions]
    return {option for action in actions for option in action.option_strings if option.startswith("--")}


def exit_codes() -> set[int]:
    """What the command line can exit with, but for status --check."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {kind.exit_code for kind in kinds if issubclass(kind, errors.ExporterError)} | {0, 2, errors.STOPPED}


def key_paths(content: Any, path: str = "") -> Iterator[str]:
    """Every key of a JSON document, as ``one.two[].three``; reasons are any text, and reconcile is as flush."""
    if isinstance(content, dict) and path == "backlog.reasons":
        yield "backlog.reasons.*"
    elif isinstance(content, dict) and path == "reconcile":
        yield "reconcile.*"
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from key_paths(value, f"{path}.{key}".lstrip("."))
    elif isinstance(content, list):
        yield from key_paths(content[0], f"{path}[]")
    else:
        yield path


# README, docs/commands.md and docs/configuration.md


def test_every_command() -> None:
    """With the names of its arguments, as the help has them."""
    commands = {row.split(" ")[0] for row in first_column(README, "command")}
    actions = {" ".join(row.split(" ")[:2]) for row in first_column(README, "command") if row.startswith("queue")}
    there = {words for words, _ in all_parsers() if words.startswith("queue ")}
    assert (set(COMMANDS), there) == (commands, actions)


@pytest.mark.parametrize("command", [*COMMANDS, *(words for words, _ in all_parsers() if words.startswith("queue "))])
def test_every_command_has_an_example(command: str) -> None:
    """In the code blocks of the reference."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", REFERENCE, re.DOTALL))
    assert re.search(rf"^(sudo )?{NAME} {command}\b", blocks, re.MULTILINE)


def test_every_option() -> None:
    """The documented options are those of every command, and no others."""
    assert all_options() == {row.split(" ")[0] for row in first_column(REFERENCE, "option")}


def test_every_exit_code() -> None:
    """In the reference, in the help, and with what to do about it."""
    in_help = {int(code) for code in re.findall(r"^ +(\d+)  ", EPILOG, re.MULTILINE)}
    assert exit_codes() == {int(code) for code in first_column(REFERENCE, "exit code")} == in_help
    with_advice = re.findall(r"^\| (\d+) \|", TROUBLESHOOTING, re.MULTILINE)
    assert exit_codes() - {0} == {int(code) for code in with_advice}


@pytest.mark.parametrize("name", [API_KEY_VARIABLE, SPOOL_VARIABLE])
def test_every_variable_of_the_environment(name: str) -> None:
    """The documentation and the help list them."""
    assert f"| `{name}` |" in CONFIGURATION
    assert name in EPILOG


def test_every_configuration_key() -> None:
    """Each key is documented with its default, if that is a plain value."""
    assert {key.name for key in KEYS} == first_column(CONFIGURATION, "key")
    for key in KEYS:
        if isinstance(key.default, (int, str)) and key.default != "":
            written = f'"{key.default}"' if key.name in QUOTED else key.default
            written = str(written).lower() if isinstance(written, bool) else written
            assert f"| `{key.name}` | `{written}` |" in CONFIGURATION


def test_the_keys_of_the_readme_are_rows_of_the_reference() -> None:
    """With the same default."""
    rows = re.findall(r"^(\| `\w+` \| .*? \|)", README.partition("## Configuration")[2], re.MULTILINE)
    assert len(rows) >= 5
    assert [] == [row for row in rows if row not in CONFIGURATION]


def test_every_message_of_the_troubleshooting_is_one_of_ours() -> None:
    """Admins search the documentation for what they have read in the journal."""
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "agent").rglob("*.py"))
    headings = re.findall(
        r'^\*\*("[^*]+")\.\*\*', TROUBLESHOOTING.replace("\n", " ").replace("  **", "\n**"), re.MULTILINE
    )
    quoted = re.findall(r'"([^"]+)"', " ".join(headings))
    variable = r"^sacct (?=failed|did)|: \w.*|…:?.*|\d+|/\S+ "
    parts = [part for words in quoted for part in re.split(variable, words) if part.strip()]
    assert len(quoted) >= 15
    assert [] == [part for part in parts if part.strip() not in sources]


# docs/monitoring.md


def test_every_key_of_the_json() -> None:
    """With everything in it that there can be."""
    snapshot = make_snapshot(under_way=UnderWay("flush", 1, NOON), rejected=(REFUSED,))
    content = as_json(snapshot, [Problem(Level.WARNING, "text", "hint")])
    assert set(key_paths(content)) == first_column(MONITORING, "key")


def test_every_metric() -> None:
    """By its name behind the common prefix, with its label."""
    documented = first_column(MONITORING, "metric, behind `slurm_usage_history_`")
    assert {metric.name for metric in METRICS} == documented
    for metric in METRICS:
        assert f"| `{metric.name}` | {f'`{metric.label}`' if metric.label else ''}".rstrip() in MONITORING


def test_every_alert() -> None:
    """By its name behind the common prefix, with its severity."""
    there = set(re.findall(r"alert: SlurmUsageHistory(\w+)", RULES))
    assert there == first_column(MONITORING, "alert, behind `SlurmUsageHistory`")
    assert there == first_column(TROUBLESHOOTING, "alert")
    severities = re.findall(r"alert: SlurmUsageHistory(\w+).*?severity: (\w+)", RULES, re.DOTALL)
    assert [] == [name for name, severity in severities if f"| `{name}` | {severity} |" not in MONITORING]


# docs/exactness.md


def test_every_fact_of_slurm_has_its_test() -> None:
    """Each row of the tables names a test, and each named test exists: renamed and deleted ones are found."""
    section = EXACTNESS.partition("## Slurm's behaviour, and the tests")[2].partition("\n## ")[0]
    facts = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| fact ")]
    named = [re.findall(r"`([\w/]+/test_\w+\.py)::(test_\w+)`", line) for line in facts]
    assert len(facts) > 35
    assert [] == [fact for fact, tests in zip(facts, named) if not tests]
    there = {path: (ROOT / "tests" / path).read_text(encoding="utf-8") for tests in named for path, _ in tests}
    assert [] == [(path, test) for tests in named for path, test in tests if f"\ndef {test}(" not in there[path]]


# The man page and the completions


def test_the_man_page_matches_the_help() -> None:
    """`make manual` was not forgotten."""
    script = "import sys; sys.path.insert(0, 'etc'); import manual; sys.stdout.write(manual.make_man_page())"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT, encoding="utf-8")
    assert made.stdout == MAN_PAGE.read_text(encoding="utf-8")


def test_the_man_page_is_sound() -> None:
    """man(1) prints no warning."""
    need("man")
    done = subprocess.run(
        ["man", "--warnings", "--local-file", str(MAN_PAGE)], capture_output=True, check=False, encoding="utf-8"
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert agent.__version__ in done.stdout


@pytest.mark.parametrize("shell", sorted(COMPLETIONS))
def test_completions_know_every_command_and_option(shell: str) -> None:
    """Exactly the existing commands and options are completed."""
    text = COMPLETIONS[shell].read_text(encoding="utf-8")
    known = set(re.findall(r"--[a-z][a-z-]+", text))
    assert all_options() == known
    assert [] == [words for words, _ in all_parsers() if not re.search(rf"\b{words.split(' ')[-1]}\b", text)]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("f", ["flush"]),
        ("queue r", ["retry"]),
        (
            "status --",
            ["--check", "--cluster-name", "--config", "--dry-run", "--help", "--instance", "--json", "--verbose"],
        ),
        ("--start", ["--start-date"]),
    ],
)
def test_bash_completes(typed: str, completed: list[str]) -> None:
    """Commands, actions and options, those of reconcile without its name as well."""
    words = f"{NAME} {typed}".split()
    script = f"""
        source {COMPLETIONS["bash"]}
        COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
        $(complete -p {NAME} | sed 's/.*-F \\([^ ]*\\).*/\\1/') {NAME} "${{COMP_WORDS[COMP_CWORD]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, encoding="utf-8")
    assert completed == sorted(done.stdout.split())


def test_zsh_can_read_its_completion() -> None:
    """It has no syntax error."""
    need("zsh")
    done = subprocess.run(["zsh", "-n", str(COMPLETIONS["zsh"])], capture_output=True, check=False, encoding="utf-8")
    assert (0, "") == (done.returncode, done.stderr)


# CONTRIBUTING


def test_the_map_names_every_module_and_every_folder_of_tests() -> None:
    """A module or folder is found by its purpose, and everything named exists."""
    section = CONTRIBUTING.partition("## Find your way")[2].partition("\n## ")[0]
    modules = {str(path.relative_to(ROOT / "agent")) for path in (ROOT / "agent").rglob("[!_]*.py")}
    named = set()
    for row in re.findall(r"^\| (`agent/.*?) \|", section, re.MULTILINE):
        folder = re.match(r"`agent/((?:\w+/)?)", row)
        assert folder
        named |= {folder[1] + name for name in re.findall(r"(\w+\.py)`", row)}
    assert modules == named
    folders = {path.parent.name for path in ROOT.glob("tests/*/__init__.py")}
    assert folders == set(re.findall(r"`tests/(\w+)/`", section))


# All documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link leads to an existing file, and to a heading in it."""
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]*(?:#[^)]*)?)\)", text):
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_test_that_is_named_exists() -> None:
    """A fault whose test was deleted is no longer tested."""
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    files = sorted(ROOT.glob("tests/**/test_*.py"))
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    there = set(re.findall(r"^def (test_\w+)", source, re.MULTILINE))
    assert set(re.findall(r"\b(test_\w+)\.py", text)) <= {path.stem for path in files}
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", text))
    assert len(named) > 40
    assert named <= there


def test_every_advice_to_restart_slurmctld_mentions_pending_calls() -> None:
    """Stopping slurmctld takes as long as they do, and killing it loses them: stated close by, or linked."""
    others = [path for path in (ROOT / "etc").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    silent = []
    for path in [ROOT / "install.sh", *others, *DOCUMENTS]:
        if path.name in {"check.md", "exactness.md", "reliability.md"}:  # what check printed, and what tests do
            continue
        text = re.sub(r"(?m)^(- name|  notify): Restart slurmctld$", "", path.read_text(encoding="utf-8"))
        text = re.sub(r"\[restarts?\s+slurmctld\]\([\w.]*#restarting-slurmctld\)", "", text, flags=re.IGNORECASE)
        paragraphs = text.split("\n\n")
        for number, paragraph in enumerate(paragraphs):
            reported = " ".join(paragraphs[max(number - 2, 0) : number + 2])
            if re.search(r"restarts?\s+slurmctld", paragraph, re.IGNORECASE) and "pending" not in reported:
                silent.append(f"{path.relative_to(ROOT)}: {paragraph}")
    assert [] == [line for line in silent if "$RESTART_MEANS" not in line]


def test_check_and_installer_describe_a_restart_in_the_same_words() -> None:
    """Both have the text in one place only."""
    saying = [path.name for path in ROOT.glob("agent/**/*.py") if "restart slurmctld" in path.read_text("utf-8")]
    assert ["shell_commands.py"] == saying
    script = (ROOT / "install.sh").read_text(encoding="utf-8")
    assigned = "".join(line + "\n" for line in script.splitlines() if line.startswith("RESTART_MEANS="))
    done = subprocess.run(["sh", "-c", f'{assigned}printf %s "$RESTART_MEANS"'], capture_output=True, check=True)
    assert f"restart slurmctld: {done.stdout.decode()}" == RESTART_HINT
