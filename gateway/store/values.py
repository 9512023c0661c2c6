"""Which values the store can keep bit for bit, how large they are in memory, and when two are the same."""

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from gateway.model import Batch, Value

MAX_DEPTH = 16
"""Nesting of arrays."""
MAX_VALUE_BYTES = 16 * 1024 * 1024
_ROW_BYTES = 160
"""What a sample costs in memory beside long values: five list slots, its integers and a double."""
FIRST_TS, LAST_TS = -(2**62), 2**62
"""Microseconds since 1970: no sample is taken that is earlier or later."""
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
    """A batch that can be stored, and what was found out on the way; it is not changed any more.

    Numbers are packed where the batch comes in: to the writer thread's processor they would be far away.
    """

    packed_series: bytes = b""
    packed_ts: bytes = b""
    """These columns as little-endian numbers of 4 and 8 bytes."""
    codes: bytes = b""
    """Of each value's type."""
    numbers: dict[int, bytes] = field(default_factory=dict)
    """By code the doubles, 64-bit integers and booleans among the values, packed too."""
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
    """Look at each part of a batch once; raise Unfit, or another ValueError, OverflowError or TypeError."""
    if isinstance(batch, Checked):
        return batch
    found = stored(batch)
    if found.t0 < FIRST_TS or found.t1 > LAST_TS:
        raise Unfit("its time lies more than 140 000 years from 1970")
    return found


def stored(batch: Batch) -> Checked:
    """Look at what the store holds already: a moved sample may lie beyond LAST_TS. It raises as `checked`."""
    if isinstance(batch, Checked):
        return batch
    codes, numbers = typed(batch.values)
    series, ts = _check_columns(*batch.columns())
    t0, t1 = (min(batch.ts), max(batch.ts)) if ts else (0, 0)
    found = Checked(*batch.columns(), series, ts, codes, numbers, t0, t1, _ROW_BYTES * len(batch))
    if not found.plain:
        found.size += sum(map(value_bytes, batch.values))
    return found


def joined(batches: Sequence[Checked]) -> Checked:
    """Return all samples of at least one batch as one."""
    if len(batches) == 1:
        return batches[0]
    whole = Checked(
        packed_series=b"".join(batch.packed_series for batch in batches),
        packed_ts=b"".join(batch.packed_ts for batch in batches),
        codes=b"".join(batch.codes for batch in batches),
        numbers={
            code: b"".join(batch.numbers.get(code, b"") for batch in batches)
            for code in frozenset().union(*(batch.numbers for batch in batches))
        },
        t0=min(batch.t0 for batch in batches),
        t1=max(batch.t1 for batch in batches),
        size=sum(batch.size for batch in batches),
    )
    for batch in batches:
        whole.extend(batch)
    return whole


def cut_out(batch: Checked, start: int, end: int) -> Checked:
    """Return some samples in a row of a batch, at least one."""
    codes, ts = batch.codes[start:end], batch.ts[start:end]
    numbers = {}
    for code, raw in batch.numbers.items():
        width = 1 if code == BOOL else 8
        first = batch.codes.count(code, 0, start) * width
        numbers[code] = raw[first : first + codes.count(code) * width]
    columns: Any = [column[start:end] for column in batch.columns()]
    series, _, values, statuses, flags = columns
    packed_series, packed_ts = batch.packed_series[4 * start : 4 * end], batch.packed_ts[8 * start : 8 * end]
    return Checked(
        series, ts, values, statuses, flags, packed_series, packed_ts, codes, numbers, min(ts), max(ts)
    )


def typed(values: Sequence[Value]) -> tuple[bytes, dict[int, bytes]]:
    """Return a code for each value's type, and by code the numbers, packed.

    Unfit: a type or an integer that cannot be stored.
    """
    try:
        codes = bytes(map(CODE_OF.__getitem__, map(type, values)))
    except KeyError as error:
        kind = error.args[0].__name__
        raise Unfit(f"its value is of the type {kind}, which the store does not know") from None
    numbers: dict[int, bytes] = {}
    if INT in codes:
        try:
            numbers[INT] = packed("q", chosen(values, codes, INT))
        except ValueError:  # an integer beyond 63 bits
            codes = bytes(map(_wide_code, codes, values))
            numbers[INT] = packed("q", chosen(values, codes, INT))
    for code, form in (FLOAT, "d"), (BOOL, "?"):
        if code in codes:
            numbers[code] = packed(form, chosen(values, codes, code))
    return codes, numbers


def chosen(values: Sequence[Value], codes: bytes, code: int) -> Sequence[Any]:
    """Return the values of one code."""
    if codes.count(code) == len(codes):
        return values
    return list(compress(values, codes.translate(SELECT[code])))


def _wide_code(code: int, value: Any) -> int:
    if code == INT:
        value_bytes(value)
        return UINT64 if value >= 2**63 else INT
    return code


def row_problem(series: Any, ts: Any, value: Any, status: Any, flags: Any) -> str | None:
    """Say why one sample cannot be stored, or None."""
    try:
        checked(Batch([series], [ts], [value], [status], [flags]))
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
) -> tuple[bytes, bytes]:
    """Return series and times, packed, of columns that fit."""
    if not len(series) == len(ts) == len(values) == len(statuses) == len(flags):
        raise ValueError("the columns of a batch differ in length")
    array("I", statuses), bytes(flags)
    return packed("i", series), packed("q", ts)


def packed(code: str, numbers: Sequence[float]) -> bytes:
    """Return little-endian numbers of one type of `struct`; raise ValueError where one is none of these."""
    try:
        return struct.pack(f"<{len(numbers)}{code}", *numbers)
    except struct.error as error:
        raise ValueError(f"{error}") from None
