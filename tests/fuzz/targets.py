"""Parsers of foreign input: each takes bytes, and raises only the project's own errors."""

from __future__ import annotations

import json
from typing import Callable, Mapping

from agent.admin.setup import change_json, change_toml
from agent.config import parse_config, parse_text
from agent.dashboard.answer import Answer, describe, judge, read_name, shown_clusters
from agent.dashboard.request_retry import parse_retry_after
from agent.errors import BatchRefused, ExporterError
from agent.jobs.queue_entry import parse_line
from agent.sanitize import clean, printable
from agent.slurm.row import parse_row

#: The number of columns that sacct is asked for.
COLUMNS = 22


def check_words(text: str) -> None:
    """The text contains nothing that moves a cursor, ends a line, or cannot be stored."""
    text.encode("utf-8")
    assert text.replace("\n", "").isprintable(), repr(text)


def read_answer(data: bytes) -> None:
    """The dashboard's answer: a status from the first two bytes, a header from the next ones, and a body."""
    status = 100 + int.from_bytes(data[:2], "big") % 500
    header = data[2:34].decode("latin-1")
    answer = Answer(status, {"Retry-After": header, "Location": header}, data[34:].decode("utf-8", "replace"), "key")
    assert parse_retry_after(header, 0.0) >= 0
    check_words(describe(answer))
    check_words(read_name(answer, "cluster"))
    shown_clusters(answer)
    try:
        check_words(judge(answer, sent=1, now=0.0))
    except BatchRefused as error:
        check_words(str(error))
        for words in error.named.values():
            check_words(words)
    except ExporterError as error:
        check_words(str(error) + error.hint)


def read_refusal(data: bytes) -> None:
    """A 422 in FastAPI's layout, with anything in its fields."""
    text = data.decode("utf-8", "surrogatepass" if data[:1] < b"\x80" else "replace") if data.isascii() else repr(data)
    problem = {"loc": ["body", "jobs", len(data) % 3, text[:40]], "msg": text + "\ud800\x1b[2J", "input": text}
    body = json.dumps({"detail": [problem] * (1 + len(data) % 20)})
    read_answer(b"\x01\x42" + b" " * 32 + body.encode())


def read_settings(data: bytes) -> None:
    """A configuration in either form, read and changed by setup."""
    text = data.decode("utf-8", "replace")
    for suffix, change in ((".toml", change_toml), (".json", change_json)):
        try:
            content = parse_text(text, suffix)
        except (ValueError, RecursionError):
            continue
        if not isinstance(content, dict):
            continue
        try:
            parse_config({**content, "api_key_file": ""}, {})
        except ExporterError as error:
            check_words(str(error))
        parse_text(change(text, {}), suffix)


def read_row(data: bytes) -> None:
    """sacct's: its columns, with anything in them."""
    values = (data.decode("utf-8", "replace").split("|") + [""] * COLUMNS)[:COLUMNS]
    try:
        parse_row(values)
    except ExporterError as error:
        check_words(str(error))


def read_line(data: bytes) -> None:
    """The queue's."""
    try:
        parse_line(data.decode("utf-8", "replace"))
    except ExporterError as error:
        check_words(str(error))


def read_words(data: bytes) -> None:
    """Text from anywhere, surrogates included."""
    text = data.decode("utf-8", "surrogateescape")
    check_words(clean(text, 100))
    check_words(printable(text))


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "answer": read_answer,
    "refusal": read_refusal,
    "settings": read_settings,
    "row": read_row,
    "line": read_line,
    "words": read_words,
}
