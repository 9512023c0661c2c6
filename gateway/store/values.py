"""Which values the store can keep bit for bit, how large they are in memory, and when two are the same."""

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from gateway.model import Batch, Value

MAX_DEPTH = 16
"""Nesting of arrays."""
MAX_VALUE_BYTES = 16 * 1024 * 1024
_ROW_BYTES = 160
"""What a sample costs in memory beside long values: five list slots, its integers and a double."""
_TS_LOW, _TS_HIGH = -(2**62), 2**62
_SERIES_HIGH = 2**31 - 1
FLOAT, INT, UINT64, BOOL, NONE, STR, BYTES, LIST = range(1, 9)
"""A code for each type of value; UINT64: an integer from 2**63."""
CODES = range(FLOAT, LIST + 1)
CODE_OF: dict[type, int] = {
    float: FLOAT, int: INT, bool: BOOL, type(None): NONE, str: STR, bytes: BYTES, list: LIST,
}  # fmt: skip
SELECT = {code: bytes(int(byte == code) for byte in range(256)) for code in CODES}
"""For each code what `bytes.translate` needs to mark it among others."""
_LONG = bytes((STR, BYTES, LIST))
_PLAIN = frozenset({float, bool, type(None)})
_double = struct.Struct("<d").pack


class Unfit(ValueError):
    """A sample cannot be stored; the text is the rest of a sentence: "its value ..."."""


@dataclass(slots=True)
class Checked(Batch):
    """A batch that can be stored, and what was found out on the way; it is not changed any more."""

    codes: bytes = b""
    """Of each value's type."""
    t0: int = 0
    t1: int = 0
    """First and last time."""
    size: int = 0
    """Bytes of memory."""

    @property
    def plain(self) -> bool:
        """Say whether all values are numbers, booleans or null."""
        return self.codes == self.codes.translate(None, _LONG)


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
        if not -(2**63) <= value < 2**64:
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


def checked(batch: Batch) -> Checked:
    """Look at each part of a batch once; raise Unfit, ValueError, OverflowError or TypeError."""
    if isinstance(batch, Checked):
        return batch
    t0, t1 = _check_columns(*batch.columns())
    codes = type_codes(batch.values)
    found = Checked(*batch.columns(), codes, t0, t1, _ROW_BYTES * len(batch))
    if not found.plain:
        found.size += sum(map(value_bytes, batch.values))
    return found


def joined(batches: Sequence[Checked]) -> Checked:
    """Return all samples of at least one batch as one."""
    if len(batches) == 1:
        return batches[0]
    whole = Checked(
        codes=b"".join(batch.codes for batch in batches),
        t0=min(batch.t0 for batch in batches),
        t1=max(batch.t1 for batch in batches),
        size=sum(batch.size for batch in batches),
    )
    for batch in batches:
        whole.extend(batch)
    return whole


def type_codes(values: Sequence[Value]) -> bytes:
    """Return a code for each value's type; raise Unfit for a type or an integer that cannot be stored."""
    try:
        codes = bytes(map(CODE_OF.__getitem__, map(type, values)))
    except KeyError as error:
        kind = error.args[0].__name__
        raise Unfit(f"its value is of the type {kind}, which the store does not know") from None
    if INT not in codes:
        return codes
    try:
        array("q", compress(values, codes.translate(SELECT[INT])))  # type: ignore[type-var]
    except OverflowError:
        return bytes(map(_wide_code, codes, values))
    return codes


def _wide_code(code: int, value: Any) -> int:
    if code == INT:
        value_bytes(value)
        return UINT64 if value >= 2**63 else INT
    return code


def row_problem(series: Any, ts: Any, value: Any, status: Any, flags: Any) -> str | None:
    """Say why one sample cannot be stored, or None."""
    try:
        _check_columns([series], [ts], [value], [status], [flags])
        value_bytes(value)
    except Unfit as unfit:
        return str(unfit)
    except (ValueError, OverflowError, TypeError):
        return "its time, status or flags are not integers of their size"
    return None


def _check_columns(
    series: Sequence[int],
    ts: Sequence[int],
    values: Sequence[Value],
    statuses: Sequence[int],
    flags: Sequence[int],
) -> tuple[int, int]:
    """Return the first and last time of columns that fit."""
    array("I", statuses), array("B", flags), array("q", ts), array("i", series)
    if not len(series) == len(ts) == len(values) == len(statuses) == len(flags):
        raise ValueError("the columns of a batch differ in length")
    if not ts:
        return 0, 0
    t0, t1 = min(ts), max(ts)
    if t0 < _TS_LOW or t1 > _TS_HIGH:
        raise Unfit("its time lies more than 140 000 years from 1970")
    return t0, t1
