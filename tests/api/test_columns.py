"""Samples written from columns are byte for byte what they are one by one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.formats import TYPES, format_of
from gateway.api.samples import _SAMPLE_COLUMNS
from gateway.api.values import row
from gateway.model import Batch, Value

TAGS = {1: "speed", 2: 'say "hi", you', 3: "\x01,", 4: "null\x00 ümlaut \U0001f600", 5: "a,b\r\nc", 6: "\x01"}
numbers = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.sampled_from([0, 0.0, -0.0, 1e300, 5e-324]),
)
values = st.one_of(numbers, st.none(), st.text(), st.binary(), st.lists(st.floats(), max_size=2))
rows = st.tuples(
    st.sampled_from([1, 1, 1, *TAGS]),
    st.integers(-(2**62), 2**62),
    st.integers(0, 2**32 - 1) | st.just(0),
    st.integers(0, 31) | st.just(0),
)


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=300, deadline=None)
@given(st.lists(rows, min_size=1, max_size=20), st.data())
def test_all_at_once_is_one_by_one(
    kind: str, keys: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    some = st.lists(data.draw(st.sampled_from([numbers, values])), min_size=len(keys), max_size=len(keys))
    column: list[Value] = data.draw(some)
    series, ts, statuses, flags = map(list, zip(*keys, strict=True))
    form = format_of(TYPES[kind], "samples", _SAMPLE_COLUMNS)
    whole = form.part(Batch(series, ts, column, statuses, flags), TAGS)
    samples = zip(series, ts, column, statuses, flags, strict=True)
    single = form.between.join(form.row(row(TAGS[s], *rest)) for s, *rest in samples)
    assert whole in (None, single)


@pytest.mark.parametrize(("kind", "none_too"), [("json", True), ("ndjson", True), ("csv", False)])
def test_what_is_plain_is_written_at_once(kind: str, none_too: bool) -> None:
    form = format_of(TYPES[kind], "samples", _SAMPLE_COLUMNS)

    def at_once(value: Value) -> bool:
        return form.part(Batch([1, 2], [0, 1], [value, 1.5], [0, 5], [0, 3]), TAGS) is not None

    assert all(at_once(value) for value in (1, 0.1, True, 2**64 - 1, -(2**63)))
    assert not any(at_once(value) for value in (float("nan"), float("-inf"), "x", b"x", []))
    assert at_once(None) == none_too
