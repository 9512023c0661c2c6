"""Values to JSON and back, for whatever hypothesis thinks of."""

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.values import MAX_DEPTH, carry, dumps, loads, read, row
from gateway.api.windows import cursor_of, cursor_text, duration_us, instant
from gateway.model import Flag, Value

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=()))  # lone surrogates and NUL too
    | st.binary()
)
VALUES = SCALARS | st.recursive(st.lists(SCALARS), lambda inner: st.lists(inner | SCALARS), max_leaves=20)


def same(one: Value, other: Value) -> bool:
    """Bit for bit, but for the payload of a NaN."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or struct.pack("<d", one) == struct.pack("<d", other)
    return type(one) is type(other) and one == other


def refuse(word: str) -> float:
    raise AssertionError(f"{word} is not JSON")


@given(VALUES)
def test_every_value_goes_through_valid_json_and_back(value: Value) -> None:
    text = dumps(row("tag", 1, value, 0, 0))
    found = json.loads(text.decode("utf-8"), parse_constant=refuse)
    assert same(read(found["value"], found.get("type")), value)
    assert same(read(loads(text)["value"], loads(text).get("type")), value)


@given(VALUES)
def test_a_type_is_given_only_where_it_is_needed(value: Value) -> None:
    carried, kind = carry(value)
    if kind is None:
        assert same(read(json.loads(json.dumps(carried)), None), value)
    else:
        assert any(
            isinstance(leaf, bytes) or leaf != leaf or leaf in (math.inf, -math.inf) for leaf in leaves(value)
        )


def leaves(value: Value) -> list[Value]:
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


def test_flags_are_named() -> None:
    assert row("t", 1, 2, 3, Flag.OWN_TIME | Flag.UNSYNCED)["flags"] == ["own_time", "unsynced"]
    assert "flags" not in row("t", 1, 2, 3, 0)


def test_arrays_are_only_so_deep() -> None:
    value: Value = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert read(value, None) == value
    with pytest.raises(ValueError, match="nested"):
        read([value], None)


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001  # hypothesis wants them so
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
)
def test_instants(naive: datetime, offset: timedelta) -> None:
    zone = timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    moment = naive.replace(tzinfo=zone)
    us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert instant(moment.isoformat()) == us
    assert instant(moment.isoformat().replace("+", " ")) == us
    assert instant(str(us)) == us


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31))
def test_cursors(ts: int, series: int) -> None:
    assert cursor_of(cursor_text(ts, series)) == (ts, series)


@pytest.mark.parametrize(
    ("text", "us"),
    [("1ms", 1000), ("1.5s", 1_500_000), ("10m", 600_000_000), ("2h", 7_200_000_000), ("1d", 86_400_000_000)],
)
def test_durations(text: str, us: int) -> None:
    assert duration_us(text) == us


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1us", "0s", "1e3s", "1 s", "\u0661s", "9" * 40 + "s"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is "):
        duration_us(text)
