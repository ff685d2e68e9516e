"""What an answer of the dashboard means. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from agent.dashboard import backoff
from agent.dashboard.transport import Answer
from agent.errors import (
    BatchForbidden,
    BatchRefused,
    BatchTooLarge,
    DashboardUnreachable,
    ExporterError,
    KeyRefused,
)

TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_WRONG_URL = frozenset({404, 405, 410})
#: An error page may be long, and only its beginning is told.
_LONGEST_WORDS = 10_000
URL_HINT = "check api_url: the address of the dashboard's backend, without /api"
_KEPT = "everything is kept"


def judge(answer: Answer, *, sent: int, now: float) -> str:
    """Returns the dashboard's message where it has taken all ``sent`` records, and raises what went wrong otherwise.

    :param now: epoch seconds.
    :raises ExporterError: BatchRefused, BatchTooLarge, DashboardUnreachable or KeyRefused.
    """
    status = answer.status
    if 200 <= status < 300:
        return _judge_success(answer, sent)
    raise _explain_failure(answer, now)


def _judge_success(answer: Answer, sent: int) -> str:
    content = read_json(answer)
    if not content:
        raise DashboardUnreachable(
            f"this is not the dashboard's answer: {describe(answer)}", hint=f"{URL_HINT}; {_KEPT}"
        )
    if content.get("success") is not True:
        raise BatchRefused(f"the dashboard did not store the jobs: {describe(answer)}")
    counted = content.get("jobs_processed", sent)
    if counted != sent:
        raise BatchRefused(f"the dashboard counted {counted!r} jobs of {sent} sent")
    return str(content.get("message", f"{sent} jobs"))


def _explain_failure(answer: Answer, now: float) -> ExporterError:
    status, said = answer.status, describe(answer)
    if status == 401:
        return refused_key(said)
    if status == 403:
        return BatchForbidden(said)
    if status == 413:
        return BatchTooLarge(f"the dashboard takes no POST of this size: {said}")
    if 300 <= status < 400:
        location = answer.headers.get("Location", "")
        return DashboardUnreachable(
            f"the dashboard redirects to {location[:200]!r}, which is not followed: the API key stays here",
            hint=f"set api_url to the address behind the redirect; {_KEPT}",
        )
    if status in _WRONG_URL:
        return DashboardUnreachable(f"there is no dashboard at this URL: {said}", hint=f"{URL_HINT}; {_KEPT}")
    pause = backoff.parse_retry_after(answer.headers.get("Retry-After", ""), now)
    if status > 500 or (status in TEMPORARY and (status != 500 or pause)):
        wish = f", and wants to be left alone for {pause:.0f} s" if pause else ""
        return DashboardUnreachable(
            f"the dashboard is not available{wish}: {said}",
            hint=f"{_KEPT}; a later run tries again",
            retry_after_seconds=pause,
        )
    return BatchRefused(f"the dashboard refused the jobs: {said}", named=_named_records(answer))


def refused_key(said: str) -> KeyRefused:
    """The dashboard is there and does not want us; ``said`` are its words."""
    hint = "check api_key, or get a new one with `setup`"
    return KeyRefused(f"the dashboard refused the API key: {said}", hint=f"{hint}; {_KEPT}")


def _named_records(answer: Answer) -> dict[int, str]:
    """The records that a 422 names, by index, with what is wrong with each."""
    detail = read_json(answer).get("detail")
    named: dict[int, list[str]] = {}
    for problem in detail if isinstance(detail, list) else []:
        where = problem.get("loc") if isinstance(problem, dict) else None
        if isinstance(where, list) and len(where) >= 3 and where[1] == "jobs" and isinstance(where[2], int):
            field = ".".join(map(str, where[3:])) or "record"
            named.setdefault(where[2], []).append(f"{field}: {problem.get('msg')} (sent {problem.get('input')!r})")
    return {index: "; ".join(words)[:500] for index, words in named.items()}


def read_json(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object, empty where it holds none."""
    try:
        content = json.loads(answer.text)
    except (ValueError, RecursionError):  # brackets in brackets without end
        return {}
    return content if isinstance(content, dict) else {}


def describe(answer: Answer) -> str:
    """Status and words of an answer, short and on one line."""
    detail = read_json(answer).get("detail") or read_json(answer).get("message") or answer.text
    words = " ".join(re.sub(r"<[^<>]*>", " ", str(detail)[:_LONGEST_WORDS]).split())
    return f"{answer.status} {words[:300]!r}" if words else str(answer.status)
