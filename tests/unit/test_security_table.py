"""Every test that SECURITY.md names exists: a promise without its test is worthless."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
FILES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}


def test_every_named_test_exists() -> None:
    """A test named without its file belongs to the file named before it."""
    file = ""
    missing = []
    for name, test in re.findall(r"`(?:tests/[\w/]*?)?(\w+\.py)?(?:::)?(test_\w+)?`", TEXT):
        file = name or file
        if (name and name not in FILES) or (test and f"def {test}(" not in FILES.get(file, "")):
            missing.append(f"{file}::{test}")
    assert [] == missing


def test_every_attack_has_a_test() -> None:
    """The last column of the table is never empty."""
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and line.count("|") == 5]
    assert len(rows) > 20
    assert [] == [row for row in rows[2:] if ".py" not in row.split("|")[4]]
