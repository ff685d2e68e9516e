"""The house: arrows run downwards, and each edge has one door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "agent"
#: From the top down; a module imports from lower floors, or sideways where the floor allows it.
FLOORS = [
    {"__main__"},
    {"cli"},
    {
        "runs",
        "status",
        "health",
        "display",
        "check",
        "check_host",
        "check_slurm",
        "check_timers",
        "check_dashboard",
        "finding",
        "setup",
        "repair",
        "metrics",
        "progress",
        "assembly",
        "arguments",
    },
    {"reconcile"},
    {"flush"},
    {"walk"},
    {"delivery", "earlier"},
    {"config", "queue", "ledger", "sacct", "dashboard"},
    {"waiting", "journal"},
    {"process", "database", "transport"},
    {"verdict", "rows"},
    {"jobs", "wording"},
    {"entries", "records", "localtime", "slices", "retry"},
    {"errors", "facts", "logs"},
    {"__init__"},
]
SIDEWAYS = FLOORS[2]
DOORS = {
    "subprocess": {"process"},
    "requests": {"transport"},
    "filelock": {"queue"},
    "sqlite3": {"database"},
    "argparse": {"arguments", "cli"},
    "prometheus_client": {"metrics"},
    "tqdm": {"progress"},
}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def dotted(node: ast.AST) -> str:
    """A name, or a chain of names and dots, as it is written."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imports(module: str) -> set[str]:
    """All that a module imports, inside functions too, but not what only its type annotations need."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "agent":
            found.update(f"agent.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def floor(module: str) -> int:
    return next(number for number, modules in enumerate(FLOORS) if module in modules)


@pytest.mark.parametrize("module", MODULES)
def test_arrows_run_downwards(module: str) -> None:
    """A module imports from below only: use cases import edges and core, the core imports nothing but errors."""
    ours = {name[6:] for name in imports(module) if name.startswith("agent.")} & set(MODULES)
    wrong = {name for name in ours if not (floor(name) > floor(module) or (module in SIDEWAYS and name in SIDEWAYS))}
    assert set() == wrong


@pytest.mark.parametrize("library", sorted(DOORS))
def test_each_edge_has_one_door(library: str) -> None:
    """One place starts processes, one speaks HTTP, one locks, one keeps the database."""
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}
    assert users <= DOORS[library]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "cli"])
def test_only_the_command_line_prints_and_exits(module: str) -> None:
    """Everything else returns and raises."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    calls = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    allowed = {"sys.exit"} if module == "__main__" else set()
    assert set() == calls & {"print", "sys.exit", "exit", "os._exit"} - allowed
