"""Columns of numbers of one series to few bytes and back, bit for bit; standard library only.

What neighbours share is taken out first: integers become differences, or what is left of an even step;
doubles that are decimals become integers, others are XORed with the one before. The bytes are laid out plane
by plane (all first bytes, then all second bytes...), each packed on its own where that is smaller, because
each has statistics of its own.
"""

import math
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain, islice, repeat
from operator import add, mul, sub, truediv

from gateway.store.columns import CorruptBlock, Source
from gateway.store.zstd import pack, unpack

_PLAIN, _STEPS, _EVEN = range(3)
_UNSIGNED = ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
_LOW, _HIGH = -(2**63), 2**63 - 1
_MOST_DIGITS = 6
_EXACT = 2.0**53
MAX_COUNT = 1 << 16


def encode_integers(values: Sequence[int]) -> bytes:
    """Encode at least one integer of 64 bits, signed."""
    first = values[0]
    if values.count(first) == len(values):
        return bytes([_PLAIN, 0]) + b"".join(map(_number, (0, 0, first, 1)))
    mode, step, low, high, rest = _shape(values)
    if low == high:
        return bytes([mode, 0]) + b"".join(map(_number, (first, step, low, 1)))
    left = list(map(sub, rest, repeat(low))) if low else rest
    unit = math.gcd(*left)
    spread = (high - low) // unit
    width, code = next((width, code) for width, code in _UNSIGNED if spread < 1 << 8 * width)
    column = array(code, left if unit == 1 else [number // unit for number in left])
    head = bytes([mode, width]) + b"".join(map(_number, (first, step, low, unit)))
    return head + pack_planes(column.tobytes(), width)


def decode_integers(source: Source, count: int) -> list[int]:
    mode, width = source.byte(), source.byte()
    if mode > _EVEN or not 0 < count <= MAX_COUNT:
        raise CorruptBlock(f"unknown integer column {mode} of {count}")
    first, step, low, unit = (_take_number(source) for _ in range(4))
    size = count - (mode == _STEPS)
    rest = [low] * size
    if width:
        code = dict(_UNSIGNED).get(width)
        if code is None:
            raise CorruptBlock(f"integers of {width} bytes")
        numbers = array(code, unpack_planes(source, size, width)).tolist()
        rest = list(map(add, map(mul, numbers, repeat(unit)), repeat(low)))
    if mode == _STEPS:
        return list(accumulate(chain((first,), rest)))
    if mode == _EVEN:
        return list(map(add, rest, range(first, first + step * count, step)))
    return rest


def _shape(plain: Sequence[int]) -> tuple[int, int, int, int, Sequence[int]]:
    """Return the mode whose rest is narrowest: mode, step, lowest and highest of the rest, rest."""
    low, high = min(plain), max(plain)
    best: tuple[int, int, int, int, Sequence[int]] = _PLAIN, 0, low, high, plain
    if len(plain) < 3 or high - low < 2:
        return best
    narrowest = high - low
    steps = list(map(sub, islice(plain, 1, None), plain))
    low, high = min(steps), max(steps)
    if high - low < narrowest:
        best, narrowest = (_STEPS, 0, low, high, steps), high - low
    step = _even_step(plain)
    if step > 0 and narrowest and narrowest > step // 8:
        rest = list(map(sub, plain, range(plain[0], plain[0] + step * len(plain), step)))
        low, high = min(rest), max(rest)
        if high - low < narrowest:
            best = _EVEN, step, low, high, rest
    return best


def _even_step(plain: Sequence[int]) -> int:
    """Return a round step that the numbers may follow; 0: none."""
    mean = (plain[-1] - plain[0]) / (len(plain) - 1)
    if not 1 <= mean < 1e15:
        return 0
    unit = 10 ** max(0, int(math.log10(mean)) - 1)
    return int(round(mean / unit) * unit)


def _number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return bytes([len(raw)]) + raw


def _take_number(source: Source) -> int:
    return int.from_bytes(source.take(source.byte()), "little", signed=True)


def decimals(values: "array[float]") -> tuple[int, list[int]] | None:
    """Return digits and the numbers times 10 ** digits where that is reversible bit for bit."""
    probe = values[:: len(values) // 16 + 1]
    for digits in range(_MOST_DIGITS + 1):
        if _scaled(probe, digits) is not None:
            numbers = _scaled(values, digits)
            if numbers is not None:
                return digits, numbers
    return None


def _scaled(values: "array[float]", digits: int) -> list[int] | None:
    factor = 10.0**digits
    if not max(map(abs, values)) * factor < _EXACT:
        return None
    try:
        numbers = list(map(round, map(mul, values, repeat(factor))))
    except (ValueError, OverflowError):  # not a number, infinite
        return None
    return numbers if from_decimals(numbers, digits).tobytes() == values.tobytes() else None


def from_decimals(numbers: Sequence[int], digits: int) -> "array[float]":
    return array("d", map(truediv, numbers, repeat(10.0**digits)))


def encode_doubles(values: "array[float]") -> bytes:
    """Encode doubles as they are, each XORed with the one before."""
    whole = int.from_bytes(values.tobytes(), "little")
    mask = (1 << 64 * len(values)) - 1
    return pack_planes(((whole ^ whole << 64) & mask).to_bytes(8 * len(values), "little"), 8)


def decode_doubles(source: Source, count: int) -> "array[float]":
    whole, shift = int.from_bytes(unpack_planes(source, count, 8), "little"), 64
    while shift < 64 * count:
        whole ^= whole << shift
        shift *= 2
    mask = (1 << 64 * count) - 1
    return array("d", (whole & mask).to_bytes(8 * count, "little"))


def pack_planes(raw: bytes, width: int) -> bytes:
    return b"".join(squeezed(raw[place::width]) for place in range(width))


def unpack_planes(source: Source, count: int, width: int) -> bytes:
    out = bytearray(count * width)
    for place in range(width):
        out[place::width] = stretched(source, count)
    return bytes(out)


def squeezed(raw: bytes) -> bytes:
    """Return bytes with their packed size before them, 0 where they are left as they are."""
    packed = pack(raw)
    if len(packed) < len(raw):
        return _number(len(packed)) + packed
    return _number(0) + raw


def stretched(source: Source, size: int) -> bytes:
    packed = _take_number(source)
    if not packed:
        return source.take(size)
    if packed < 0:
        raise CorruptBlock("a plane of a negative size")
    return unpack(source.take(packed), size)
