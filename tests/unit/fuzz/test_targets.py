"""The fuzzers' targets, with inputs that once broke them, and with those that Hypothesis finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.binary(max_size=300))
def test_nothing_that_is_read_breaks_the_reader(name: str, data: bytes) -> None:
    """Only our own errors are raised, with text that can be stored and shown."""
    TARGETS[name](data)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success": true, "jobs_processed": "' + b"A" * 100_000 + b'"}',
        b'{"success": true, "message": "\\ud800\\u001b[2J\\u202e"}',
        b'{"detail": [{"loc": ["body", "jobs", 0, "x"], "msg": "\\udfff", "input": "\\ud800"}]}',
        b"[" * 100_000,
        b'{"success": true, "jobs_processed": ' + b"9" * 100_000 + b"}",
        b"\x1f\x8b\x08",
    ],
)
@pytest.mark.parametrize("status", [b"\x00\x64", b"\x01\x42", b"\x00\xcd"])  # 200, 422, 305
def test_answers_that_once_broke_it(status: bytes, body: bytes) -> None:
    """A message of 15 MB, lone surrogates, brackets without end, endless numbers, packed bytes."""
    TARGETS["answer"](status + b"x" * 32 + body)
