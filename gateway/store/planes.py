"""Columns of numbers of one series to few bytes and back, bit for bit; standard library only.

What neighbours share is taken out first: integers become differences, or what is left of an even step;
doubles that are decimals become integers, others are XORed with the one before. The bytes are laid out plane
by plane (all first bytes, then all second bytes...), each packed on its own where that is smaller, because
each has statistics of its own.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, repeat
from operator import add, mul, sub, truediv

from gateway.store import lanes
from gateway.store.columns import CorruptBlock, Source
from gateway.store.lanes import EVEN, PLAIN, STEPS
from gateway.store.values import packed
from gateway.store.zstd import pack, unpack

_UNSIGNED = ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
_MOST_DIGITS = 6
_EXACT = 2.0**51
MAX_COUNT = 1 << 16


def encode_integers(values: "Sequence[int] | array[int]") -> bytes:
    """Encode at least one integer of 64 bits, signed."""
    if _constant(values):
        return bytes([PLAIN, 0]) + b"".join(map(_number, (0, 0, values[0], 1)))
    raw = values.tobytes() if getattr(values, "typecode", "") == "q" else packed("q", values)  # type: ignore[union-attr]
    found = lanes.shape(lanes.of_integers(raw), len(values), values.__getitem__, _even_step(values))
    return _shaped(values[0], found) if found else _encode_wide(values)


def _constant(values: "Sequence[int] | array[int]") -> bool:
    if isinstance(values, array):
        raw = values.tobytes()
        return raw == raw[: values.itemsize] * len(values)
    return values[0] == values[-1] and values.count(values[0]) == len(values)


def highest(values: "Sequence[int] | array[int]") -> int:
    """Return the largest of at least one integer."""
    return values[0] if _constant(values) else max(values)


def encode_wholes(values: Sequence[float]) -> bytes:
    """Encode doubles that are whole numbers, and small ones, as integers."""
    raw = packed("d", list(map(add, values, repeat(lanes.MAGIC))))
    if raw != raw[:8] * len(values):

        def number(place: int) -> int:
            return int(values[place])

        step = _even_step((number(0), number(len(values) - 1)), len(values))
        found = lanes.shape(lanes.of_doubles(raw), len(values), number, step)
        if found:
            return _shaped(number(0), found)
    return encode_integers(list(map(int, values)))


def _shaped(first: int, found: lanes.Shape) -> bytes:
    numbers = first, found.step, found.low, found.unit
    head = bytes([found.mode, found.width]) + b"".join(map(_number, numbers))
    return head + b"".join(squeezed(found.small[place::8]) for place in range(found.width))


def _encode_wide(values: Sequence[int]) -> bytes:
    """Encode what is too wide for lanes, or too short."""
    low, high = min(values), max(values)
    width, code = next((width, code) for width, code in _UNSIGNED if high - low < 1 << 8 * width)
    head = bytes([PLAIN, width]) + b"".join(map(_number, (values[0], 0, low, 1)))
    return head + pack_planes(packed(code, [value - low for value in values]), width)


def decode_integers(source: Source, count: int) -> "array[int]":
    """Read a column of integers."""
    found = decode_wholes(source, count)
    return found if isinstance(found, array) else _array(found)


def decode_wholes(source: Source, count: int) -> "array[int] | list[int]":
    """Do the same for who only goes over them: as what they come out fastest."""
    mode, width = source.byte(), source.byte()
    if mode > EVEN or not 0 < count <= MAX_COUNT:
        raise CorruptBlock(f"unknown integer column {mode} of {count}")
    if width not in (0, 1, 2, 4, 8):
        raise CorruptBlock(f"integers of {width} bytes")
    first, step, low, unit = source.short(4)
    if mode == PLAIN and not width:
        return _array((low,)) * count
    if mode == STEPS:
        steps: Iterable[int] = repeat(low, count - 1)
        if width:
            steps = _spread([stretched(source, count - 1) for _ in range(width)], unit, low, 0, count - 1)
        return list(accumulate(steps, initial=first))
    planes = [stretched(source, count) for _ in range(width)]
    start, step = (low + first, step) if mode == EVEN else (low, 0)
    return _spread(planes, unit, start, step, count)


def _array(numbers: Sequence[int]) -> "array[int]":
    try:
        return array("q", numbers)
    except OverflowError as error:
        raise CorruptBlock(f"an integer too large for its column: {error}") from error


def _spread(planes: Sequence[bytes], unit: int, start: int, step: int, count: int) -> "array[int]":
    """Return number * unit + start + step * place for each number of some planes.

    All are one large integer of 64 bits each, on which each step is one operation; what one of them borrows
    from its neighbour on the way is given back when all fit 64 bits again.
    """
    raw = bytearray(8 * count)
    for place, plane in enumerate(planes):
        raw[place::8] = plane
    ones, iota = _lanes(count)
    signs = ones << 63  # added, so that none is negative, and then turned into what a signed integer has
    total = int.from_bytes(raw, "little") * unit + start * ones + step * iota + signs
    return array("q", ((total & (ones << 64) - ones) ^ signs).to_bytes(8 * count, "little"))


@lru_cache(maxsize=32)
def _lanes(count: int) -> tuple[int, int]:
    """Return 1, 1, 1... and 0, 1, 2... of 64 bits each."""
    ones, iota = array("Q", [1]) * count, array("Q", range(count))
    return int.from_bytes(ones.tobytes(), "little"), int.from_bytes(iota.tobytes(), "little")


def _even_step(ends: Sequence[int], count: int = 0) -> int:
    """Return a round step that numbers between these may follow; 0: none."""
    mean = (ends[-1] - ends[0]) / max((count or len(ends)) - 1, 1)
    if not 1 <= mean < 1e15:
        return 0
    unit = 10 ** max(0, int(math.log10(mean)) - 1)
    return int(round(mean / unit) * unit)


def _number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return bytes([len(raw)]) + raw


def decimals(values: "array[float]") -> tuple[int, list[float]] | None:
    """Return digits and the numbers times 10 ** digits, rounded, where that is reversible bit for bit."""
    probe = values[:: len(values) // 16 + 1]
    for digits in range(_MOST_DIGITS + 1):
        if _scaled(probe, digits) is not None:
            wholes = _scaled(values, digits)
            if wholes is not None:
                return digits, wholes
    return None


def _scaled(values: "array[float]", digits: int) -> list[float] | None:
    factor = 10.0**digits
    # Near MAGIC doubles are whole numbers. What is too large does not come back the same; a NaN may.
    near = map(add, map(mul, values, repeat(factor)), repeat(lanes.MAGIC))
    wholes = list(map(sub, near, repeat(lanes.MAGIC)))
    back = packed("d", list(map(truediv, wholes, repeat(factor))))
    if back != values.tobytes() or not math.isfinite(sum(wholes)):
        return None
    return wholes if max(map(abs, (min(wholes), max(wholes)))) < _EXACT else None


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
    (packed,) = source.short(1)
    if not packed:
        return source.take(size)
    if packed < 0:
        raise CorruptBlock("a plane of a negative size")
    return unpack(source.take(packed), size)
