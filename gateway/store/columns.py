"""Columns of integers and of mixed values to bytes and back, bit for bit; standard library only.

Numbers are laid out little-endian, byte-shuffled (all first bytes, then all second bytes...), so that zstd
finds what repeats. Samples are never visited one by one where a C loop of the standard library can.
"""

import contextlib
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, islice
from operator import sub
from typing import Any

from gateway.model import Value
from gateway.store.values import (
    BOOL,
    BYTES,
    FLOAT,
    INT,
    LIST,
    MAX_DEPTH,
    NONE,
    SELECT,
    STR,
    UINT64,
    chosen,
    packed,
    typed,
)

assert sys.byteorder == "little", "the block format is little-endian, and so is every box it runs on"

_WIDTHS = "bhiIqQ"
_BYTES_OF = 1, 2, 4, 4, 8, 8
_MAX_COUNT = 1 << 26
_CONSTANT = 0x40
_DELTA = 0x80


class CorruptBlock(Exception):
    """Bytes that are not what an encoder wrote; nothing of them is used."""


class Source:
    """Reads sections off bytes; raises CorruptBlock rather than read past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise CorruptBlock(f"a section of {size} bytes passes the end")
        part = self._data[self._at : end]
        self._at = end
        return part

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self, count: int) -> list[int]:
        """Read signed integers, each with its size in a byte before it."""
        data, at, found = self._data, self._at, []
        for _ in range(count):
            end = at + 1 + (data[at] if at < len(data) else 0)
            if end > len(data):
                raise CorruptBlock("a number passes the end")
            found.append(int.from_bytes(data[at + 1 : end], "little", signed=True))
            at = end
        self._at = at
        return found

    def numbers(self, code: str, count: int) -> "array[Any]":
        """Read `count` shuffled numbers."""
        column = array(code)
        raw = self.take(count * column.itemsize)
        column.frombytes(_unshuffled(raw, column.itemsize))
        return column

    def integers(self, count: int) -> bytes:
        """Take a column of integers as it is."""
        start = self._at
        mode = self.byte()
        width = _BYTES_OF[_index(mode)]
        if mode & _CONSTANT:
            self.take(width)
        elif mode & _DELTA:
            self.take(8 + (count - 1) * width)
        else:
            self.take(count * width)
        return self._data[start : self._at]

    def rewind(self) -> None:
        self._at = 0

    def end(self) -> None:
        if self._at != len(self._data):
            raise CorruptBlock("bytes are left over")


def encode_ints(values: Sequence[int], *, delta: bool = False) -> bytes:
    """Encode integers of at most 64 bits in the smallest width that holds them (or their differences)."""
    if not values:
        return b""
    if values[0] == values[-1] and values.count(values[0]) == len(values):
        index, raw = _narrowest(values[:1])
        return bytes([_CONSTANT | index]) + raw
    if delta:
        try:
            index, raw = _narrowest(list(map(sub, islice(values, 1, None), values)))
        except ValueError:  # the differences fit no 64 bits
            return encode_ints(values)
        return bytes([_DELTA | index]) + packed("q", values[:1]) + _shuffled(raw, _BYTES_OF[index])
    index, raw = _narrowest(values)
    return bytes([index]) + _shuffled(raw, _BYTES_OF[index])


def encode_times(packed_ts: bytes) -> bytes:
    """Encode times: as differences where they mostly go on."""
    ts = array("q", packed_ts)
    probe = range(0, len(ts) - 1, len(ts) // 16 + 1)
    if sum(ts[place] <= ts[place + 1] for place in probe) * 8 >= len(probe) * 7:
        return encode_ints(ts.tolist(), delta=True)
    return encode_packed(packed_ts)


def encode_packed(raw: bytes) -> bytes:
    """Encode integers of 8 bytes as they are: the planes of zeros pack to nothing."""
    if raw == raw[:8] * (len(raw) // 8):
        return encode_ints(array("q", raw[:8]))
    return bytes([_WIDTHS.index("q")]) + _shuffled(raw, 8)


def decode_ints(source: Source, count: int) -> list[int]:
    if not count:
        return []
    if count > _MAX_COUNT:
        raise CorruptBlock(f"{count} numbers in one column")
    mode = source.byte()
    code = _WIDTHS[_index(mode)]
    if mode & _CONSTANT:
        return list(source.numbers(code, 1)) * count
    if not mode & _DELTA:
        return source.numbers(code, count).tolist()
    first = source.numbers("q", 1)[0]
    return list(accumulate(chain((first,), source.numbers(code, count - 1))))


def decode_array(source: Source, count: int, code: str) -> "array[int]":
    """Read at least one integer into an array."""
    packed_as = Source(source.integers(count))
    mode = packed_as.byte()
    try:
        if mode & _DELTA or count > _MAX_COUNT:
            packed_as.rewind()
            return array(code, decode_ints(packed_as, count))
        column = packed_as.numbers(_WIDTHS[_index(mode)], 1 if mode & _CONSTANT else count)
        if column.typecode != code:
            column = array(code, column)
    except OverflowError as error:
        raise CorruptBlock(f"an integer too large for its column: {error}") from error
    return column * count if mode & _CONSTANT else column


def _index(mode: int) -> int:
    index = mode & 0x0F
    if mode & 0x30 or index >= len(_WIDTHS):
        raise CorruptBlock(f"unknown integer column {mode}")
    return index


def encode_values(
    values: Sequence[Value], found: tuple[bytes, dict[int, bytes]] | None = None, depth: int = 0
) -> bytes:
    """Encode checked values: a type code each, then those of each type. `found`: what `typed` gave."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    codes, numbers = typed(values) if found is None else found
    present = sorted(set(codes))
    parts = [bytes([len(present), *present])]
    if len(present) > 1:
        parts.append(codes)
    for code in present:
        if code in numbers:
            parts.append(_encode_numbers(code, numbers[code]))
        else:
            parts.append(_encode_kind(code, chosen(values, codes, code), depth))
    return b"".join(parts)


def _encode_numbers(code: int, raw: bytes) -> bytes:
    if code == FLOAT:
        return _shuffled(raw, 8)
    return encode_packed(raw) if code == INT else raw


def decode_values(source: Source, count: int, depth: int = 0) -> list[Value]:
    if depth > MAX_DEPTH:
        raise CorruptBlock("nested too deep")
    present = take_types(source, count)
    if len(present) <= 1:
        return _decode_kind(present[0], source, count, depth) if present else []
    codes = take_codes(source, count, present)
    nexts: list[Callable[[], Value] | None] = [None] * 9
    for code in present:
        nexts[code] = iter(_decode_kind(code, source, codes.count(code), depth)).__next__
    return [nexts[code]() for code in codes]  # type: ignore[misc]


def take_types(source: Source, count: int) -> bytes:
    """Read which types of values there are."""
    present = source.take(source.byte())
    if list(present) != sorted(set(present)) or not all(code in SELECT for code in present):
        raise CorruptBlock("unknown value types")
    if not present and count:
        raise CorruptBlock("values without a type")
    return present


def take_codes(source: Source, count: int, present: bytes) -> bytes:
    """Read the type of each value."""
    if len(present) == 1:
        return present * count
    codes = source.take(count)
    if codes.translate(None, present):
        raise CorruptBlock("a value of a type that is not there")
    return codes


def take_booleans(source: Source, count: int) -> bytes:
    raw = source.take(count)
    if raw.translate(None, b"\x00\x01"):
        raise CorruptBlock("a boolean that is neither")
    return raw


def _encode_kind(code: int, values: Sequence[Any], depth: int) -> bytes:
    if code in (INT, UINT64):
        return encode_ints(values)
    if code == FLOAT:
        return _shuffled(packed("d", values), 8)
    if code == BOOL:
        return bytes(values)
    if code == NONE:
        return b""
    if code == LIST:
        items = list(chain.from_iterable(values))
        return encode_ints(list(map(len, values))) + encode_values(items, depth=depth + 1)
    raw = [text.encode("utf-8", "surrogatepass") for text in values] if code == STR else values
    return encode_ints(list(map(len, raw))) + b"".join(raw)


def _decode_kind(code: int, source: Source, count: int, depth: int) -> list[Any]:
    if code == FLOAT:
        return source.numbers("d", count).tolist()
    if code in (INT, UINT64):
        return decode_ints(source, count)
    if code == BOOL:
        return list(map(bool, take_booleans(source, count)))
    if code == NONE:
        if count > _MAX_COUNT:
            raise CorruptBlock(f"{count} empty values in one column")
        return [None] * count
    lengths = decode_ints(source, count)
    if count and min(lengths) < 0:
        raise CorruptBlock("a negative length")
    if code == LIST:
        return list(_cut(decode_values(source, sum(lengths), depth + 1), lengths))
    pieces = _cut(source.take(sum(lengths)), lengths)
    if code == BYTES:
        return list(pieces)
    try:
        return [str(piece, "utf-8", "surrogatepass") for piece in pieces]
    except UnicodeDecodeError as error:
        raise CorruptBlock("text that is not UTF-8") from error


def _cut(whole: Any, lengths: Sequence[int]) -> Iterable[Any]:
    end = 0
    for length in lengths:
        start, end = end, end + length
        yield whole[start:end]


def _narrowest(values: Sequence[int]) -> tuple[int, bytes]:
    for index, code in enumerate(_WIDTHS):
        with contextlib.suppress(ValueError):
            return index, packed(code, values)
    raise ValueError("the integers fit no 64 bits")


def _shuffled(raw: bytes, width: int) -> bytes:
    return raw if width == 1 else b"".join([raw[place::width] for place in range(width)])


def _unshuffled(raw: bytes, width: int) -> bytes:
    if width == 1:
        return raw
    count = len(raw) // width
    out = bytearray(len(raw))
    for place in range(width):
        out[place::width] = raw[place * count : (place + 1) * count]
    return bytes(out)
