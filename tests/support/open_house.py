"""The exporter where every user can run it: copied from the checkout and its environment, for the system's Python.

The Python that runs the tests is often in root's home, and a process that has switched to another user can no
longer import anything from there.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Sequence

from tests.support.exporter import ROOT

#: What a run imports, directly or indirectly; tomli only before Python 3.11.
PACKAGES = ("requests", "urllib3", "idna", "certifi", "charset_normalizer", "typing_extensions", "tomli")
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3")
PROBE = """
import sys
assert sys.version_info >= (3, 8), "too old"
import agent.cli, agent.sync.session, agent.sync.flush, agent.sync.reconcile, requests, sqlite3, encodings.ascii
print(sys.executable, sys.base_prefix)
"""


def copy_exporter(folder: Path) -> None:
    """Copies the exporter and its pure-Python dependencies into a folder that every user can read."""
    copied = {"agent": ROOT / "agent", **{name: _place_of(name) for name in PACKAGES if find_spec(name)}}
    for name, place in copied.items():
        if place.is_dir():
            shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(place, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def find_python(folder: Path, uid: int) -> str:
    """A Python with which both root and another user can run the copy; empty if there is none."""
    for python in PYTHONS:
        as_root, as_user = (_probe(folder, argv) for argv in ([python], [*_becoming(uid), python]))
        if as_root and as_root == as_user:
            return python
    return ""


def _place_of(name: str) -> Path:
    spec = find_spec(name)
    assert spec
    assert spec.origin
    place = Path(spec.origin)
    return place.parent if spec.submodule_search_locations else place


def _becoming(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def _probe(folder: Path, argv: Sequence[str]) -> str:
    """The version of that Python; empty if it cannot run the copy."""
    try:
        done = subprocess.run([*argv, "-c", PROBE], check=False, cwd=folder, capture_output=True, env={}, text=True)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout
