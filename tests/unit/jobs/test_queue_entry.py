"""Lines of the queue, as the hook, an admin, a full disk or pure chance writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UnreadableLine
from agent.jobs.queue_entry import LAST_JOB_ID, QueueEntry, parse_line

job_ids = st.integers(1, LAST_JOB_ID)
seconds = st.none() | st.integers(0, 10**12 - 1)
entries = st.builds(QueueEntry, job_ids, seconds, seconds, st.none() | st.integers(0, 10**10 - 1))


def format_line(entry: QueueEntry) -> str:
    """The line that the hook writes for an entry."""
    job_id, *hints = entry
    return " ".join([str(job_id), *("-" if hint is None else str(hint) for hint in hints)])


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("4711", QueueEntry(4711)),
        ("203_3\n", QueueEntry(203, array_task=3)),
        ("7 1700000000 1700000060 -\n", QueueEntry(7, 1_700_000_000, 1_700_000_060)),
        ("7 1700000000 1700000060 3", QueueEntry(7, 1_700_000_000, 1_700_000_060, 3)),
        ("  7\t-  - -", QueueEntry(7)),
        ("7 1700000000", QueueEntry(7, 1_700_000_000)),
        (str(LAST_JOB_ID), QueueEntry(LAST_JOB_ID)),
    ],
)
def test_lines_of_the_hook_and_of_admins(line: str, entry: QueueEntry) -> None:
    """Only the JobID is needed; what is not known is a dash or missing."""
    assert entry == parse_line(line)


@pytest.mark.parametrize(
    "line",
    ["", "job", "-1", "1.5", "1,2", "0", "0 1700000000 - -", "007x", "1 2 3 4 5", "$(reboot)", "1 -- - -", "²", "1_"],
)
def test_lines_that_are_not_entries(line: str) -> None:
    """Anything else is refused, with the line."""
    with pytest.raises(UnreadableLine) as caught:
        parse_line(line)
    assert line == caught.value.subject


@pytest.mark.parametrize("job_id", [0, LAST_JOB_ID + 1, 0xFFFFFFFE, 9_999_999_999])
def test_ids_that_no_cluster_assigns(job_id: int) -> None:
    """sacct would refuse the whole call because of one such ID, and all other jobs would wait forever."""
    with pytest.raises(UnreadableLine):
        parse_line(str(job_id))


@given(entries)
def test_written_values_are_read_back(entry: QueueEntry) -> None:
    """Every entry survives being written and read."""
    assert entry == parse_line(format_line(entry))


@given(st.text() | st.from_regex(r"[0-9 _-]{0,40}"))
def test_any_text_is_an_entry_or_refused(line: str) -> None:
    """A line is either an entry that sacct can be asked for or a refusal."""
    try:
        entry = parse_line(line)
    except UnreadableLine:
        return
    assert 0 < entry.job_id <= LAST_JOB_ID
    assert entry.asked.replace("_", "").isascii()
    assert entry.asked.replace("_", "").isdigit()


@given(entries, st.data())
def test_a_truncated_line_is_harmless(entry: QueueEntry, data: st.DataObject) -> None:
    """What a full disk leaves of a line names the job with fewer hints, or is refused, or is another number."""
    line = format_line(entry)
    try:
        rest = parse_line(line[: data.draw(st.integers(0, len(line)))])
    except UnreadableLine:
        return
    assert line.startswith(str(rest.job_id))
