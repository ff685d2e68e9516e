"""The architecture: modules import only from layers below, and each library is used in one place."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "agent"
MODULES = sorted(str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py"))

#: For each room, be it a folder or a module beside them, the rooms that it may import from.
GROUND = {"errors", "localtime", "logger", "regular_file", "sanitize", "wording", "privilege"}
EDGE = {"jobs", "config", "config_keys"} | GROUND
USE = {"slurm", "spool", "dashboard", "install_paths"} | EDGE
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {"arguments", "call", "commands", "options", "logger", "errors", "wording"},
    "commands": {"call", "prompt", "options", "sync", "status", "check", "admin"} | USE,
    "call": {"options", "sync", "status", "spool", "privilege"} | EDGE,
    "prompt": {"options", "admin", "config", "logger"},
    "sync": USE,
    "status": {"spool"} | EDGE,
    "check": USE,
    "admin": USE,
    "slurm": EDGE,
    "spool": EDGE,
    "dashboard": EDGE,
    "jobs": {"errors", "localtime"},
    "arguments": {"config", "options"} | GROUND,
    "options": set(),
    "config": {"config_keys", "errors", "sanitize"},
    "config_keys": {"sanitize", "wording"},
    "install_paths": {"config"},
    "privilege": {"errors", "logger"},
    "logger": {"errors", "log_format"},
    "log_format": {"sanitize"},
    "wording": {"localtime"},
    "localtime": set(),
    "errors": {"sanitize"},
    "regular_file": set(),
    "sanitize": set(),
}

DOORS = {
    "subprocess": {"slurm/process"},
    "requests": {"dashboard/transport"},
    "fcntl": {"spool/lock", "spool/controller_turns"},
    "sqlite3": {"spool/database"},
    "argparse": {"arguments"},
    "prometheus_client": {"status/metrics"},
    "tqdm": {"status/progress"},
}


def dotted(node: ast.AST) -> str:
    """A name, or a chain of names and dots, as spelled in the source."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@lru_cache(maxsize=None)
def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


@lru_cache(maxsize=None)
def imports(module: str) -> frozenset[str]:
    """All that a module imports, inside functions too, but not what only its type annotations need."""
    tree = parse(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{name.name}" for name in node.names)
    return frozenset(found)


def room(module: str) -> str:
    return module.split("/", maxsplit=1)[0]


def imported_rooms(module: str) -> set[str]:
    """The rooms that a module imports from; of the package itself comes nothing but the version."""
    return {name.split(".")[1] for name in imports(module) if name.startswith("agent.")} - {"__version__"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_from_layers_below(module: str) -> None:
    """Use cases import edges, and edges import what a job is; no layer imports from above or beside it."""
    assert set() == imported_rooms(module) - MAY_IMPORT[room(module)] - {room(module)}


def test_no_folder_is_left_out_of_the_order() -> None:
    """A new folder needs an entry here before its first module, and cycles are not allowed."""
    assert set(MAY_IMPORT) == {room(module) for module in MODULES}
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [name for name in MAY_IMPORT if name not in order and MAY_IMPORT[name] <= set(order)]
        assert free, f"in a circle: {set(MAY_IMPORT) - set(order)}"
        order += free


@pytest.mark.parametrize("library", sorted(DOORS))
def test_each_library_is_imported_in_one_place(library: str) -> None:
    """One place starts processes, one speaks HTTP, one locks, one keeps the database."""
    assert DOORS[library] == {
        module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))
    }


#: Who may call what ends the process, or writes to standard output.
MAY_CALL = {
    "commands": {"print"},
    "prompt": {"input"},
    "cli": {"os._exit"},
    "admin/config_writer": {"os._exit"},  # the child that writes root's configuration
}


@pytest.mark.parametrize("module", MODULES)
def test_one_module_prints_and_one_exits(module: str) -> None:
    """The commands print, the prompt asks, the command line exits; everything else returns and raises."""
    calls = {dotted(node.func) for node in ast.walk(parse(module)) if isinstance(node, ast.Call)}
    assert set() == calls & {"print", "input", "sys.stdout.write", "sys.exit", "exit", "os._exit"} - MAY_CALL.get(
        module, set()
    )


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    script = (
        "import sys; before = set(sys.modules); from agent.cli import main; main(sys.argv[1:]);"
        " print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, check=True, text=True, cwd=PACKAGE.parent
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The path of a configuration."""
    path = tmp_path / "config.toml"
    path.touch(mode=0o600)
    path.write_text(f'api_url = "http://localhost"\napi_key = "k"\ncluster_name = "lab"\nspool_dir = "{tmp_path}"\n')
    return str(path)


def test_an_idle_flush_loads_little(config: str) -> None:
    """It runs every few minutes, mostly with nothing to do, and must cost little."""
    loaded_by("flush", "--config", config)  # asks Slurm for its controllers, and remembers for an hour
    loaded = loaded_by("flush", "--config", config)
    assert "agent.sync.session" in loaded
    heavy = {"requests", "ssl", "subprocess", "tempfile", "random", "hashlib", "logging"}
    if sys.version_info < (3, 14):  # where argparse needs them for its colours
        heavy.add("dataclasses")
    assert set() == loaded & heavy
    assert set() == loaded & {"agent.sync.flush", "agent.sync.delivery", "agent.dashboard.client", "agent.slurm.sacct"}


def test_status_loads_neither_http_nor_the_sync(config: str) -> None:
    """It is run often, and must be quick."""
    loaded_by("flush", "--config", config)  # creates the ledger
    loaded = loaded_by("status", "--config", config)
    assert "agent.status.output" in loaded
    heavy = {"requests", "subprocess", "selectors", "tempfile", "http.client", "email.utils", "asyncio", "logging"}
    assert set() == loaded & heavy
    assert set() == {name for name in loaded if name.startswith(("agent.sync", "agent.slurm", "agent.dashboard"))}
