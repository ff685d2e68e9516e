"""A batch grows only after a success, and a size that failed is remembered for a day."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.sync.batch_size import CEILING_SECONDS, FIRST_BYTES, LARGEST_BYTES, BatchSize, Capacity

NOW = 1_700_000_000.0


def make(size: int = 1000, ceiling: int = 0, *, timeout: float = 30) -> BatchSize:
    return BatchSize(Capacity(size, ceiling, NOW if ceiling else 0.0), timeout=timeout)


def test_it_begins_below_any_usual_limit_of_a_proxy() -> None:
    """nginx accepts one megabyte, unless configured otherwise."""
    assert FIRST_BYTES == BatchSize(Capacity(), timeout=30).bytes < 1 << 20


def test_a_full_batch_that_was_accepted_quickly_doubles() -> None:
    """A batch that was not full has proven nothing."""
    size = make()
    size.went_through(900, 0.1, NOW, full=False)
    assert 1000 == size.bytes
    size.went_through(1000, 0.1, NOW, full=True)
    assert 2000 == size.bytes


def test_no_batch_grows_beyond_half_of_the_time_out() -> None:
    """The time of a byte limits it. A slow batch does not shrink it: most of its time may be the cost of any POST."""
    size = make(timeout=10)
    size.went_through(1000, 4.0, NOW, full=True)
    assert 1250 == size.bytes
    size.went_through(1250, 9.9, NOW, full=True)
    assert 1250 == size.bytes


def test_the_size_is_limited() -> None:
    """Memory is bounded, whatever a dashboard takes."""
    size = make(LARGEST_BYTES)
    size.went_through(LARGEST_BYTES, 0.1, NOW, full=True)
    assert LARGEST_BYTES == size.bytes


def test_it_shrinks_faster_and_faster() -> None:
    """A limit of some kilobytes is found with five failures, and none is below a record."""
    size = make(1 << 21)
    found = []
    for _ in range(7):
        size.failed(size.bytes)
        found.append(size.bytes)
    assert [1 << 20, 1 << 18, 1 << 15, 1 << 11, 1 << 6, 1, 1] == found


def test_a_much_smaller_batch_did_not_fail_for_its_size() -> None:
    """Each time this happens it counts against the larger ones, so that a dashboard that has become slow is noticed."""
    size = make(8000)
    size.went_through(8000, 20.0, NOW, full=True)
    sizes = []
    for _ in range(3):
        size.failed(100)
        size.went_through(50, 0.1, NOW, full=False)
        sizes.append((size.bytes, size.capacity.ceiling))
    assert [(8000, 0), (8000, 0), (50, 50)] == sizes


def test_a_ceiling_holds_for_a_day() -> None:
    """The ceiling is half of what failed, once something smaller has succeeded; then a larger one is tried again."""
    size = make(1000)
    size.failed(1000)
    size.failed(500)
    assert (125, 0) == (size.bytes, size.capacity.ceiling)
    size.went_through(125, 0.1, NOW, full=True)
    assert (250, 250) == (size.bytes, size.capacity.ceiling)
    size.went_through(250, 0.1, NOW + CEILING_SECONDS - 1, full=True)
    assert 250 == size.bytes
    size.went_through(250, 0.1, NOW + CEILING_SECONDS, full=True)
    assert (500, 0) == (size.bytes, size.capacity.ceiling)


def test_a_size_limit_ends_even_if_the_clock_is_set_back() -> None:
    """A time in the future is ignored."""
    size = make(250, 250)
    size.went_through(250, 0.1, NOW - 86_400 * 400, full=True)
    assert 500 == size.bytes


def test_failures_with_another_cause_do_not_count() -> None:
    """The previous limit is kept."""
    size = make()
    before = size.capacity
    size.failed(1000)
    size.forget_failures(before)
    size.went_through(1000, 0.1, NOW, full=True)
    assert (2000, 0) == (size.bytes, size.capacity.ceiling)


@given(
    limit=st.integers(1, LARGEST_BYTES),
    first=st.integers(1, LARGEST_BYTES),
    seconds_a_byte=st.floats(0, 1e-3),
    timeout=st.floats(1, 3600),
)
def test_any_limit_is_found(limit: int, first: int, seconds_a_byte: float, timeout: float) -> None:
    """Of bytes, or of seconds: a few failures, and then batches of at least a quarter of it go through."""
    most = max(int(min(limit, timeout / max(seconds_a_byte, 1e-12))), 1)
    size = BatchSize(Capacity(first), timeout=timeout)
    failures = 0
    for _ in range(40):
        sent = size.bytes
        if sent > most:
            failures += 1
            size.failed(sent)
        else:
            size.went_through(sent, sent * seconds_a_byte, NOW, full=True)
    assert failures <= 9
    assert min(most // 4, LARGEST_BYTES) <= size.bytes <= max(most, 1)
