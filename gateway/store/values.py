"""Which values the store can keep bit for bit, how large they are in memory, and when two are the same."""

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from gateway.model import Batch, Value

MAX_DEPTH = 16
"""Nesting of arrays."""
MAX_VALUE_BYTES = 16 * 1024 * 1024
_ROW_BYTES = 160
"""What a sample costs in memory beside long values: five list slots, its integers and a double."""
_INT_LOW, _INT_HIGH = -(2**63), 2**64 - 1
_TS_LOW, _TS_HIGH = -(2**62), 2**62
_SERIES_HIGH = 2**31 - 1
_PLAIN = frozenset({float, bool, type(None)})
_double = struct.Struct("<d").pack


class Unfit(ValueError):
    """A sample cannot be stored; the text is the rest of a sentence: "its value ..."."""


def same_value(one: Value, other: Value) -> bool:
    """Compare bit for bit: NaN equals itself; 1, True and 1.0 differ, and so do 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if type(one) is float:
        return _double(one) == _double(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return one == other


def value_bytes(value: Any, depth: int = 0) -> int:
    """Return the memory of a value beyond a plain number's; raise Unfit where it cannot be stored."""
    kind = type(value)
    if kind in _PLAIN:
        return 0
    if kind is int:
        if not _INT_LOW <= value <= _INT_HIGH:
            raise Unfit(f"its value of {value.bit_length()} bits is outside the 64-bit integers")
        return 0
    if kind is str or kind is bytes:
        size = sys.getsizeof(value)
    elif kind is list:
        if depth >= MAX_DEPTH:
            raise Unfit(f"its value is nested deeper than {MAX_DEPTH} arrays")
        size = _list_bytes(value, depth)
    else:
        raise Unfit(f"its value is of the type {kind.__name__}, which the store does not know")
    if size > MAX_VALUE_BYTES:
        raise Unfit(f"its value of {size} bytes is larger than {MAX_VALUE_BYTES}")
    return size


def _list_bytes(value: list[Any], depth: int) -> int:
    size = sys.getsizeof(value) + 32 * len(value)
    if set(map(type, value)) <= _PLAIN:
        return size
    return size + sum(value_bytes(item, depth + 1) for item in value)


def batch_bytes(batch: Batch) -> int:
    """Return a batch's memory; raise Unfit or OverflowError or TypeError where any part is unfit."""
    size = _ROW_BYTES * len(batch)
    _check_columns(batch.series, batch.ts, batch.statuses, batch.flags)
    kinds = set(map(type, batch.values)) - _PLAIN
    if kinds == {int}:
        ints = [value for value in batch.values if type(value) is int]
        value_bytes(min(ints)), value_bytes(max(ints))
    elif kinds:
        size += sum(map(value_bytes, batch.values))
    return size


def row_problem(series: Any, ts: Any, value: Any, status: Any, flags: Any) -> str | None:
    """Say why one sample cannot be stored, or None."""
    try:
        _check_columns([series], [ts], [status], [flags])
        value_bytes(value)
    except Unfit as unfit:
        return str(unfit)
    except (OverflowError, TypeError):
        return "its time, status or flags are not integers of their size"
    return None


def _check_columns(
    series: Sequence[int], ts: Sequence[int], statuses: Sequence[int], flags: Sequence[int]
) -> None:
    array("I", statuses), array("B", flags), array("q", ts), array("i", series)
    if not len(series) == len(ts) == len(statuses) == len(flags):
        raise ValueError("the columns of a batch differ in length")
    if len(ts) and not (min(ts) >= _TS_LOW and max(ts) <= _TS_HIGH):
        raise Unfit("its time lies more than 140 000 years from 1970")
