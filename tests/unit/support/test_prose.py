"""The linter of prose reads what people read, and leaves code alone."""

from __future__ import annotations

import pytest

from tests.support.prose import PHRASES, findings, read_phrases

LIST = read_phrases("# a comment\n\\bmend(s|ed)?\\b | fix\n")


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.md", "It mends.\n", ["a.md:1: 'mends': write fix"]),
        ("a.md", "```\nmend\n```\n`mend` and [x](mend.md)\nMend it.\n", ["a.md:5: 'Mend': write fix"]),
        ("a.py", "mend = 1  # mend\n", ["a.py:1: 'mend': write fix"]),
        ("a.py", '"""One.\n\nTwo mended.\n"""\n', ["a.py:3: 'mended': write fix"]),
        ("a.py", '"""``mend`` is a name."""\nmend(mend=2)\n', []),
        ("a.py", "def test_it_mends_that(): mend()\n", ["a.py:1: 'mends': write fix"]),
        ("a.sh", "say 'mend it'\n", ["a.sh:1: 'mend': write fix"]),
    ],
)
def test_phrases_are_found_only_in_prose(name: str, text: str, found: list[str]) -> None:
    """Each finding names the file, the line, the phrase and the replacement."""
    assert found == list(findings(name, text, LIST))


def test_every_phrase_of_the_list_has_a_replacement() -> None:
    """A finding without one helps nobody."""
    phrases = read_phrases(PHRASES.read_text(encoding="utf-8"))
    assert len(phrases) > 30
    assert [] == [phrase for phrase in phrases if not phrase.instead or not phrase.pattern.pattern]
