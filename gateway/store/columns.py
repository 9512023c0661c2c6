"""Columns of integers and of mixed values to bytes and back, bit for bit; standard library only.

Numbers are laid out little-endian, byte-shuffled (all first bytes, then all second bytes...), so that zlib
finds what repeats. Samples are never visited one by one where a C loop of the standard library can.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, compress, islice
from operator import sub
from typing import Any

from gateway.model import Value
from gateway.store.values import MAX_DEPTH

assert sys.byteorder == "little", "the block format is little-endian, and so is every box it runs on"

_FLOAT, _INT, _UINT64, _BOOL, _NONE, _STR, _BYTES, _LIST = range(1, 9)
_CODE_OF: dict[type, int] = {
    float: _FLOAT, int: _INT, bool: _BOOL, type(None): _NONE, str: _STR, bytes: _BYTES, list: _LIST,
}  # fmt: skip
_SELECT = {code: bytes(int(byte == code) for byte in range(256)) for code in range(1, 9)}
_INT64_HIGH = 2**63 - 1
_WIDTHS = tuple((code, array(code).itemsize, low, high) for code, low, high in (
    ("b", -(2**7), 2**7 - 1), ("h", -(2**15), 2**15 - 1), ("i", -(2**31), 2**31 - 1),
    ("I", 0, 2**32 - 1), ("q", -(2**63), _INT64_HIGH), ("Q", 0, 2**64 - 1),
))  # fmt: skip
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

    def numbers(self, code: str, count: int) -> "array[Any]":
        """Read `count` shuffled numbers."""
        column = array(code)
        raw = self.take(count * column.itemsize)
        column.frombytes(_unshuffled(raw, column.itemsize))
        return column

    def end(self) -> None:
        if self._at != len(self._data):
            raise CorruptBlock("bytes are left over")


def encode_ints(values: Sequence[int], *, delta: bool = False) -> bytes:
    """Encode integers of at most 64 bits in the smallest width that holds them (or their differences)."""
    if not values:
        return b""
    low, high = min(values), max(values)
    if low == high:
        index, column = _narrowest(low, high, [low])
        return bytes([_CONSTANT | index]) + column.tobytes()
    if not delta:
        index, column = _narrowest(low, high, values)
        return bytes([index]) + _shuffled(column)
    steps = [values[0], *map(sub, islice(values, 1, None), values)]
    rest = steps[1:]
    if min(rest) < -(2**63) or (max(rest) > _INT64_HIGH and min(rest) < 0):
        return encode_ints(values)  # the differences fit no 64 bits
    index, column = _narrowest(min(rest), max(rest), rest)
    return bytes([_DELTA | index]) + array("q", [values[0]]).tobytes() + _shuffled(column)


def decode_ints(source: Source, count: int) -> list[int]:
    if not count:
        return []
    if count > _MAX_COUNT:
        raise CorruptBlock(f"{count} numbers in one column")
    mode = source.byte()
    index = mode & 0x0F
    if mode & 0x30 or index >= len(_WIDTHS):
        raise CorruptBlock(f"unknown integer column {mode}")
    code = _WIDTHS[index][0]
    if mode & _CONSTANT:
        return list(source.numbers(code, 1)) * count
    if not mode & _DELTA:
        return source.numbers(code, count).tolist()
    first = source.numbers("q", 1)[0]
    return list(accumulate(chain((first,), source.numbers(code, count - 1))))


def encode_values(values: Sequence[Value], depth: int = 0) -> bytes:
    """Encode checked values: a type code each, then the values of each type together."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    codes = _codes(values)
    present = sorted(set(codes))
    parts = [bytes([len(present), *present])]
    if len(present) > 1:
        parts.append(codes)
    for code in present:
        chosen = list(compress(values, codes.translate(_SELECT[code]))) if len(present) > 1 else values
        parts.append(_encode_kind(code, chosen, depth))
    return b"".join(parts)


def decode_values(source: Source, count: int, depth: int = 0) -> list[Value]:
    if depth > MAX_DEPTH:
        raise CorruptBlock("nested too deep")
    present = source.take(source.byte())
    if list(present) != sorted(set(present)) or not all(code in _SELECT for code in present):
        raise CorruptBlock("unknown value types")
    if not present and count:
        raise CorruptBlock("values without a type")
    if len(present) <= 1:
        return _decode_kind(present[0], source, count, depth) if present else []
    codes = source.take(count)
    if codes.translate(None, present):
        raise CorruptBlock("a value of a type that is not there")
    nexts: list[Callable[[], Value] | None] = [None] * 9
    for code in present:
        nexts[code] = iter(_decode_kind(code, source, codes.count(code), depth)).__next__
    return [nexts[code]() for code in codes]  # type: ignore[misc]


def _codes(values: Sequence[Value]) -> bytes:
    codes = bytes(map(_CODE_OF.__getitem__, map(type, values)))
    ints = codes.translate(_SELECT[_INT])
    if 1 in ints and max(compress(values, ints)) > _INT64_HIGH:  # type: ignore[type-var, operator]
        return bytes(
            _UINT64 if code == _INT and value > _INT64_HIGH else code  # type: ignore[operator]
            for code, value in zip(codes, values, strict=True)
        )
    return codes


def _encode_kind(code: int, values: Sequence[Any], depth: int) -> bytes:
    if code == _FLOAT:
        return _shuffled(array("d", values))
    if code in (_INT, _UINT64):
        return encode_ints(values)
    if code == _BOOL:
        return bytes(values)
    if code == _NONE:
        return b""
    if code == _LIST:
        items = list(chain.from_iterable(values))
        return encode_ints(list(map(len, values))) + encode_values(items, depth + 1)
    raw = [text.encode("utf-8", "surrogatepass") for text in values] if code == _STR else values
    return encode_ints(list(map(len, raw))) + b"".join(raw)


def _decode_kind(code: int, source: Source, count: int, depth: int) -> list[Any]:
    if code == _FLOAT:
        return source.numbers("d", count).tolist()
    if code in (_INT, _UINT64):
        return decode_ints(source, count)
    if code == _BOOL:
        raw = source.take(count)
        if raw.translate(None, b"\x00\x01"):
            raise CorruptBlock("a boolean that is neither")
        return list(map(bool, raw))
    if code == _NONE:
        if count > _MAX_COUNT:
            raise CorruptBlock(f"{count} empty values in one column")
        return [None] * count
    lengths = decode_ints(source, count)
    if count and min(lengths) < 0:
        raise CorruptBlock("a negative length")
    if code == _LIST:
        return list(_cut(decode_values(source, sum(lengths), depth + 1), lengths))
    pieces = _cut(source.take(sum(lengths)), lengths)
    if code == _BYTES:
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


def _narrowest(low: int, high: int, values: Sequence[int]) -> tuple[int, "array[int]"]:
    for index, (code, _, least, most) in enumerate(_WIDTHS):
        if least <= low and high <= most:
            return index, array(code, values)
    raise ValueError(f"integers from {low} to {high} fit no 64 bits")


def _shuffled(column: "array[Any]") -> bytes:
    raw, width = column.tobytes(), column.itemsize
    return raw if width == 1 else b"".join(raw[place::width] for place in range(width))


def _unshuffled(raw: bytes, width: int) -> bytes:
    if width == 1:
        return raw
    count = len(raw) // width
    out = bytearray(len(raw))
    for place in range(width):
        out[place::width] = raw[place * count : (place + 1) * count]
    return bytes(out)
