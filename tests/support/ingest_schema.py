"""What the dashboard's ingest call accepts, and its error messages. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Callable, Iterator


def find_problems(content: Any) -> list[dict[str, Any]]:
    """What is wrong with the body of a POST, as the detail of a 422; empty if nothing is."""
    if not isinstance(content, dict):
        return [_problem([], "Input should be a valid dictionary", content)]
    problems = []
    if not isinstance(content.get("hostname"), str):
        problems.append(_problem(["hostname"], "Input should be a valid string", content.get("hostname")))
    jobs = content.get("jobs")
    if not isinstance(jobs, list):
        return [*problems, _problem(["jobs"], "Input should be a valid list", jobs)]
    for index, job in enumerate(jobs):
        problems += _record_problems(["jobs", index], job)
    return problems


def find_breakage(jobs: list[dict[str, Any]]) -> str:
    """What crashes the dashboard although each record has the right types, as the detail of a 500."""
    if any(job.get("Start") is None for job in jobs):
        return "'NaTType' object has no attribute 'start_time'"
    times = (job.get(field) for job in jobs for field in ("Submit", "Start", "End"))
    if len({datetime.fromisoformat(time).utcoffset() for time in times if time}) > 1:
        return "Mixed timezones detected"
    return ""


def _record_problems(where: list[Any], job: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(job, dict):
        yield _problem(where, "Input should be a valid dictionary", job)
        return
    for field, (is_valid, kind, required) in _FIELDS.items():
        value = job.get(field)
        if value is None and not required:
            continue
        if field not in job:
            yield _problem([*where, field], "Field required", job)
        elif not is_valid(value):
            yield _problem([*where, field], f"Input should be a valid {kind}", value)


def _problem(where: list[Any], message: str, value: Any) -> dict[str, Any]:
    return {"loc": ["body", *where], "msg": message, "input": value}


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_datetime(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and value == int(value)


_STRING, _DATETIME = (_is_string, "string"), (_is_datetime, "datetime")
_NUMBER, _INTEGER = (_is_number, "number"), (_is_integer, "integer")

#: Field → its test, the name of its type, and whether it is required and not null. Other fields are ignored.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str, bool]] = {
    "JobID": (*_STRING, True),
    "User": (*_STRING, True),
    "Account": (*_STRING, True),
    "Partition": (*_STRING, True),
    "State": (*_STRING, True),
    "QOS": (*_STRING, False),
    "NodeList": (*_STRING, False),
    "Submit": (*_DATETIME, True),
    "Start": (*_DATETIME, False),
    "End": (*_DATETIME, False),
    "CPUHours": (*_NUMBER, True),
    "GPUHours": (*_NUMBER, True),
    "AllocCPUS": (*_INTEGER, True),
    "AllocGPUS": (*_INTEGER, True),
    "AllocNodes": (*_INTEGER, True),
}
