"""Makes text from outside safe to log, store and print: no control characters, no API key. Pure."""

from __future__ import annotations

from urllib.parse import quote


def clean(text: str, limit: int = 500) -> str:
    """A text from outside as one short line that is safe to store, log and print.

    Runs of white space become one blank. Unprintable characters (controls, escapes, lone surrogates, bidirectional
    marks) become question marks.

    >>> clean("no\\n  such\\x1b[31m user\\ud800")
    'no such?[31m user?'
    """
    line = " ".join(text[: 4 * limit].split())[:limit].rstrip()
    return "".join(letter if letter.isprintable() else "?" for letter in line)


#: Longer than any of our messages; a list of configuration problems may be long.
_LONGEST_MESSAGE = 20_000


def printable(text: str) -> str:
    """A message that is safe to log and print, wherever it comes from: like :func:`clean`, but keeps its lines.

    >>> printable("two\\n  lines\\x1b[2J")
    'two\\n  lines?[2J'
    """
    text = text[:_LONGEST_MESSAGE]
    if text.isprintable():
        return text
    return "".join(letter if letter == "\n" or letter.isprintable() else _without(letter) for letter in text)


def _without(letter: str) -> str:
    return " " if letter in "\t\r" else "?"


def hide(text: str, secret: str) -> str:
    """A text with a secret masked, both plain and URL-encoded.

    >>> hide("?key=s%2Fcret or s/cret", "s/cret")
    '?key=*** or ***'
    """
    for spelling in {secret, quote(secret, safe="")} if secret else ():
        text = text.replace(spelling, "***")
    return text
