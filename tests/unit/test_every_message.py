"""Whatever the program can tell an admin stands in a test, in full.

The source is walked for the texts of errors, hints, warnings, findings and problems. Of each, all words have to stand
in one text of the tests, in their order; what is filled in between them may be anything.
"""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Iterator

import pytest

from agent.errors import ExporterError

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "agent").glob("*.py"))
TESTS = sorted({*ROOT.glob("tests/unit/*.py"), *ROOT.glob("tests/faults/*.py")} - {Path(__file__)})
#: Takes the place of what is filled in.
HOLE = "\0"
#: Calls that tell something, beside the errors' own.
TELLERS = {"Finding", "Problem", "_no_cluster_name", "argparse.ArgumentTypeError", "problems.append", "warnings.append"}
TELLERS |= {f"logger.{level}" for level in ("log", "info", "warning", "error", "exception")}


def error_names() -> set[str]:
    """The names of all errors that an admin is told in a sentence."""
    for path in SOURCES:
        if path.stem != "__main__":
            importlib.import_module(f"agent.{path.stem}")
    kinds: list[type] = [ExporterError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.__name__ for kind in kinds if kind.__module__.startswith("agent.")}


def text_of(node: ast.AST) -> str | None:
    """A literal's text, with holes where something is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    return None


def texts_in(node: ast.AST) -> Iterator[str]:
    """The literals in a piece of source; those that are filled into another are left out."""
    text = text_of(node)
    if text is not None:
        yield text
        return
    for child in ast.iter_child_nodes(node):
        yield from texts_in(child)


def name_of(function: ast.expr) -> str:
    """How a function is called: ``name``, or ``object.name``."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return f"{function.value.id}.{function.attr}"
    return getattr(function, "id", "")


def messages(path: Path, errors: set[str]) -> set[str]:
    """What a module can tell: the literals in such places, and those that a name stands for there."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    telling: list[ast.AST] = [
        node for node in nodes if isinstance(node, ast.Call) and name_of(node.func) in errors | TELLERS
    ]
    names = {part.id for node in telling for part in ast.walk(node) if isinstance(part, ast.Name)} | {"hint"}
    for node in nodes:
        if isinstance(node, ast.Assign):
            targets = {getattr(target, "id", getattr(target, "attr", "")) for target in node.targets}
            telling += [node.value] if targets & names and not isinstance(node.value, ast.Dict) else []
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.List):  # the configuration's problems
            telling.append(node.value)
    return {text for node in telling for text in texts_in(node) if any(" " in part.strip() for part in words_of(text))}


def words_of(text: str) -> list[str]:
    """What stands between the holes of a text, be they an f-string's or the logger's."""
    parts = re.split(rf"{HOLE}|%[\d.]*[a-z]", text)
    return [part.replace("%%", "%") for part in parts if re.search(r"\w", part)]


def is_tested(text: str, tested: list[str]) -> bool:
    pattern = re.compile(".*".join(re.escape(part.replace("\\", "")) for part in words_of(text)), re.DOTALL)
    return any(pattern.search(candidate) for candidate in tested)


@pytest.fixture(scope="module")
def tested() -> list[str]:
    """All texts of the tests; a regular expression counts as what it is for, without its backslashes."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in TESTS)
    return [text.replace("\\", "") for tree in trees for text in texts_in(tree)]


def test_every_message_stands_in_a_test(tested: list[str]) -> None:
    """A new or a changed one is written into a test first, to be read there as the admin will read it."""
    errors = error_names()
    told = {f"{path.name}: {text}" for path in SOURCES for text in messages(path, errors)}
    untested = {message for message in told if not is_tested(message.partition(": ")[2], tested)}
    assert len(told) > 150
    assert set() == untested
