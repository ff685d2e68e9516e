"""Finds phrases that read as translated (phrases.txt) in documents, messages, docstrings, comments and tests' names."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

ROOT = Path(__file__).parents[2]
PHRASES = Path(__file__).with_name("phrases.txt")
#: What is read: documents, and files whose text people see.
SUFFIXES = {
    ".md",
    ".py",
    ".sh",
    ".toml",
    ".example",
    ".service",
    ".timer",
    ".path",
    ".target",
    ".yml",
    ".yaml",
    ".spec",
}
NAMES = {"Makefile", "run", "slurm-usage-history-exporter"}
#: Not our own prose: the list itself, its test, and the output of Slurm and others.
NEVER = (
    "tests/support/phrases.txt",
    "tests/unit/support/test_prose.py",
    "tests/data/",
    "tests/faults/recorded/",
    "docs/check.md",
)


class Phrase(NamedTuple):
    """A phrase to avoid, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


def read_phrases(text: str) -> list[Phrase]:
    """The phrases of a list with one ``PATTERN | INSTEAD`` a line, and comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [
        Phrase(re.compile(pattern.strip(), re.IGNORECASE), instead.strip())
        for pattern, _, instead in (line.rpartition(" | ") for line in lines)
    ]


def prose_of(name: str, text: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that people read, with their numbers, without code and quoted messages."""
    if name.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}:
                for number, line in enumerate(token.string.splitlines(), token.start[0]):
                    yield number, re.sub(r"`+[^`]*`+", "", line)
            elif token.type == tokenize.NAME and token.string.startswith("test_"):
                yield token.start[0], token.string.replace("_", " ")
    elif name.endswith(".md"):
        fenced = False
        for number, line in enumerate(text.splitlines(), 1):
            fence = line.lstrip().startswith("```")
            fenced ^= fence
            if not fence and not fenced:
                yield number, re.sub(r"`[^`]*`|\]\([^)]*\)|\"[^\"]*\"", "", line)
    else:
        yield from enumerate(text.splitlines(), 1)


def findings(name: str, text: str, phrases: Sequence[Phrase]) -> Iterator[str]:
    """One line for each phrase found in a file: where it is, the phrase, and what to write instead."""
    for number, line in prose_of(name, text):
        for phrase in phrases:
            for match in phrase.pattern.finditer(line):
                yield f"{name}:{number}: {match.group()!r}: write {phrase.instead}"


def main(argv: Sequence[str]) -> int:
    """Prints what is found in all files of the repository, or in those below the paths given.

    :param argv: paths below the root.
    """
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout
    readable = [name for name in listed.splitlines() if Path(name).suffix in SUFFIXES or Path(name).name in NAMES]
    chosen = [name for name in readable if name.startswith(tuple(argv) if argv else "") and not name.startswith(NEVER)]
    phrases = read_phrases(PHRASES.read_text(encoding="utf-8"))
    found = [
        finding for name in chosen for finding in findings(name, (ROOT / name).read_text(encoding="utf-8"), phrases)
    ]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
