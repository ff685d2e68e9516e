"""Interprets the dashboard's answers. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Mapping, NamedTuple

from agent.dashboard import request_retry
from agent.errors import BatchForbidden, BatchRefused, BatchTooLarge, DashboardUnreachable, ExporterError, KeyRefused
from agent.sanitize import clean, hide

#: Proxies and firewalls have statuses of their own, such as 507, 529 or 599.
TEMPORARY = frozenset({408, 425, 429, *range(500, 1000)})
#: Statuses of a proxy whose backend failed or took too long: a smaller batch may get through.
OVERWHELMED = TEMPORARY - {425, 429, 500}
_WRONG_URL = frozenset({404, 405, 410})
#: Only this much of a long error page is searched for a message.
_LONGEST_WORDS = 10_000
URL_HINT = "check api_url: the address of the dashboard's backend, without /api"
_KEPT = "everything is kept"


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    text: str
    secret: str = ""  # hidden wherever the answer repeats it


def judge(answer: Answer, *, sent: int, now: float) -> str:
    """Returns the dashboard's message if it accepted all ``sent`` records, and raises the failure otherwise.

    :param now: epoch seconds.
    :raises ExporterError: BatchRefused, BatchTooLarge, DashboardUnreachable or KeyRefused.
    """
    status = answer.status
    if 200 <= status < 300:
        return _judge_success(answer, sent)
    raise _explain_failure(answer, now)


def judge_any(answer: Answer, *, sent: int, now: float) -> str:
    """The same for any receiver, whose 2xx acknowledges all records, except with the ``errors`` of a bulk interface."""
    if 200 <= answer.status < 300:
        if read_json(answer).get("errors") is True:
            raise BatchRefused(f'the receiver answered {answer.status} with "errors": true')
        return f"{sent} jobs, answered {answer.status}"
    raise _explain_failure(answer, now)


def _judge_success(answer: Answer, sent: int) -> str:
    content = read_json(answer)
    if not content:
        raise DashboardUnreachable(
            f"this is not the dashboard's answer: {describe(answer)}", hint=f"{URL_HINT}; {_KEPT}", foreign=True
        )
    if content.get("success") is not True:
        raise BatchRefused(f"the dashboard did not store the jobs: {describe(answer)}")
    counted = content.get("jobs_processed", sent)
    if type(counted) is not int or counted != sent:
        raise BatchRefused(f"the dashboard counted {_words(answer, repr(counted), 40)} of {sent} jobs sent")
    return _words(answer, content.get("message") or f"{sent} jobs")


def _explain_failure(answer: Answer, now: float) -> ExporterError:
    status, said = answer.status, describe(answer)
    if status == 401:
        return refused_key(said)
    if status == 403:
        return BatchForbidden(said)
    if status == 413:
        return BatchTooLarge(f"the dashboard does not accept a POST of this size: {said}")
    astray = explain_astray(answer)
    if astray:
        return astray
    pause = request_retry.parse_retry_after(answer.headers.get("Retry-After", ""), now)
    if status in TEMPORARY and (status != 500 or pause):
        wish = f" and asks to retry after {pause:.0f} s" if pause else ""
        return DashboardUnreachable(
            f"the dashboard is not available{wish}: {said}",
            hint=f"{_KEPT}; a later run tries again",
            retry_after_seconds=pause,
            overwhelmed=status in OVERWHELMED and not pause,
            timed_out=status in {408, 504, 522, 524, 598, 599},
        )
    return BatchRefused(f"the dashboard refused the jobs: {said}", named=_named_records(answer))


def explain_astray(answer: Answer) -> DashboardUnreachable | None:
    """Interprets an answer that is not from the dashboard's interface at all; None if it may be.

    IIS answers 404 to a body over its limit, and a firewall may redirect to a page of its own because of one record.
    """
    status = answer.status
    if status == 407:
        return DashboardUnreachable(
            f"the proxy refuses the request: {describe(answer)}",
            hint=f"it requires a password: HTTP_PROXY=http://USER:PASSWORD@HOST:PORT; {_KEPT}",
        )
    if 300 <= status < 400:
        target = _words(answer, answer.headers.get("Location", ""), 200)
        return DashboardUnreachable(
            f"the dashboard redirects to {target!r}, which is not followed to protect the API key",
            hint=f"set api_url to the target of the redirect; {_KEPT}",
            foreign=True,
        )
    if status in _WRONG_URL:
        said = describe(answer)
        return DashboardUnreachable(
            f"there is no dashboard at this URL: {said}", hint=f"{URL_HINT}; {_KEPT}", foreign=True
        )
    if status < 200:
        return DashboardUnreachable(f"this is not the dashboard's answer: {status}", hint=f"{URL_HINT}; {_KEPT}")
    return None


def refused_key(said: str) -> KeyRefused:
    """The dashboard does not accept the API key; ``said`` is its message."""
    hint = "check api_key, or get a new one with `setup`"
    return KeyRefused(f"the dashboard refused the API key: {said}", hint=f"{hint}; {_KEPT}")


def _named_records(answer: Answer) -> dict[int, str]:
    """The records that a 422 names, by index, with the problems of each."""
    detail = read_json(answer).get("detail")
    named: dict[int, list[str]] = {}
    for problem in detail if isinstance(detail, list) else []:
        where = problem.get("loc") if isinstance(problem, dict) else None
        if isinstance(where, list) and len(where) >= 3 and where[1] == "jobs" and type(where[2]) is int:
            problems = named.setdefault(where[2], [])
            if len(problems) < _MOST_PROBLEMS:
                problems.append(_problem(answer, where[3:], problem))
    return {index: clean("; ".join(words)) for index, words in named.items()}


#: At most this many problems of one record are reported.
_MOST_PROBLEMS = 10


def _problem(answer: Answer, field: list[Any], problem: Mapping[str, Any]) -> str:
    name = ".".join(_words(answer, part, 40) for part in field[:5]) or "record"
    return f"{name}: {_words(answer, problem.get('msg'))} (sent {_words(answer, repr(problem.get('input')))})"


def read_json(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object, empty if there is none."""
    try:
        content = json.loads(answer.text.lstrip("\ufeff"), parse_int=_parse_int)
    except (ValueError, RecursionError):  # of endlessly nested brackets
        return {}
    return content if isinstance(content, dict) else {}


def read_name(answer: Answer, field: str) -> str:
    """A cluster's name in an answer; empty if there is none or it can't be a name."""
    name = read_json(answer).get(field)
    name = name.strip() if isinstance(name, str) else ""
    return name if name == clean(name, 100) else ""


def shown_clusters(answer: Answer) -> list[str] | None:
    """The clusters that a dashboard shows, from its health check; None if that does not list them."""
    names = read_json(answer).get("hostnames")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else None


def _parse_int(digits: str) -> float:
    """Limits the length of a number: old Pythons spend minutes on a million digits."""
    return int(digits) if len(digits) < 20 else math.inf


def describe(answer: Answer) -> str:
    """Status and message of an answer, short and on one line."""
    packing = answer.headers.get("Content-Encoding", "identity").lower()
    if packing != "identity":
        return f"{answer.status}, compressed ({_words(answer, packing, 40)}) although the request rules that out"
    content = read_json(answer)
    words = _words(answer, content.get("detail") or content.get("message") or answer.text)
    return f"{answer.status} {words!r}" if words else str(answer.status)


def _words(answer: Answer, said: object, limit: int = 300) -> str:
    """Text of the dashboard, or of whatever answered instead: one short line, without tags and without the key.

    All such text passes through here before it reaches a message, and so the log, the ledger or a screen.
    """
    text = hide(str(said), answer.secret)[:_LONGEST_WORDS]
    return clean(re.sub(r"<[^<>]*>", " ", text), limit)
