"""Many integers in one: each a lane of 64 bits of a Python integer, so that one loop in C does all of them.

A lane that became negative, or too large, would change the next one. So each lane has room (a bias is added
before something is taken away), and the high bits of all lanes are looked at before it is relied on.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

PLAIN, STEPS, EVEN = range(3)
_BITS = 64
_SIGN = 1 << 63
_MOST = 1 << 53
"""Numbers here are smaller, either way."""
_ROOM = 1 << 56
_HALF = 1 << 38
_UNIT_MOST = 1 << 24
_PROBES = 32


class Shape(NamedTuple):
    """The numbers are `low + unit * small[i]`; mode STEPS: the differences are; EVEN: what is left of a step.

    `small` has 8 bytes of each, all but the first `width` of them zero.
    """

    mode: int
    step: int
    low: int
    unit: int
    width: int
    small: bytes


def of_integers(packed: bytes) -> int:
    """Return lanes of signed numbers of 8 bytes, little-endian."""
    ones = _ones(len(packed) // 8)
    return (int.from_bytes(packed, "little") ^ _SIGN * ones) - (_SIGN - _MOST) * ones


MAGIC = 1.5 * 2.0**52
"""A double to which a whole number is added shows it in its lowest bits."""
_MAGIC_BITS = 0x4338 << 48


def of_doubles(packed: bytes) -> int:
    """Return lanes of whole numbers: doubles to each of which MAGIC was added."""
    return int.from_bytes(packed, "little") - (_MAGIC_BITS - _MOST) * _ones(len(packed) // 8)


def shape(lanes: int, n: int, number: Callable[[int], int], step: int) -> Shape | None:
    """Return how lanes become narrow; None: they are too few or too large, or spread too far.

    `number` returns one of them by its place, to choose by; `step`: a round number they may follow, or 0.
    """
    if n < 3 or lanes < 0 or lanes & _from_bit(n, 54):
        return None
    mode, rest = _mode(n, number, step)
    if mode == PLAIN:
        roomy = lanes + (_ROOM - _MOST) * _ones(n)
    elif mode == STEPS:
        before = lanes & (1 << _BITS * (n - 1)) - 1
        n -= 1
        roomy = (lanes >> _BITS) + _ROOM * _ones(n) - before
    else:
        roomy = lanes + (_ROOM - _MOST - number(0)) * _ones(n) - step * _ramp(n)
        if roomy < 0 or step * n >= _MOST:
            return None
    return _narrowed(roomy, n, mode, step if mode == EVEN else 0, rest)


def _mode(n: int, number: Callable[[int], int], step: int) -> tuple[int, Sequence[int]]:
    """Return the shape that is narrowest, as far as a few numbers tell, and these numbers in it."""
    places = range(0, n - 1, n // _PROBES + 1)
    plain = [number(place) for place in places]
    steps = [number(place + 1) - one for place, one in zip(places, plain, strict=True)]
    found, narrowest = (PLAIN, plain), max(plain) - min(plain)
    if max(steps) - min(steps) < narrowest:
        found, narrowest = (STEPS, steps), max(steps) - min(steps)
    if step > 0 and narrowest > step // 8:
        rest = [one - plain[0] - place * step for place, one in zip(places, plain, strict=True)]
        if max(rest) - min(rest) < narrowest:
            found = EVEN, rest
    return found


def _narrowed(roomy: int, n: int, mode: int, step: int, rest: Sequence[int]) -> Shape | None:
    least = min(rest)
    unit = math.gcd(*(one - least for one in rest)) or 1
    for each in (unit, 1) if 1 < unit < _UNIT_MOST else (1,):
        middle = least + (max(rest) - least) // each // 2 * each
        # Where each lane is a multiple, so is the whole. Where one is not, what it leaves makes the next one
        # larger than any width.
        lanes, left = divmod(roomy + (each * _HALF - _ROOM - middle) * _ones(n), each)
        if not left and (found := _width(lanes, n, mode, step, middle, each)):
            return found
    return None


def _width(lanes: int, n: int, mode: int, step: int, middle: int, unit: int) -> Shape | None:
    ones = _ones(n)
    if lanes == _HALF * ones:
        return Shape(mode, step, middle, 1, 0, b"")
    for width in (1, 2, 4):
        half = 1 << 8 * width - 1
        small = lanes - (_HALF - half) * ones
        if small >= 0 and not small & _from_bit(n, 8 * width):
            return Shape(mode, step, middle - half * unit, unit, width, small.to_bytes(8 * n, "little"))
    return None


@lru_cache(maxsize=8)
def _ones(n: int) -> int:
    """Return 1 in each lane."""
    return int.from_bytes(b"\x01\0\0\0\0\0\0\0" * n, "little")


@lru_cache(maxsize=8)
def _ramp(n: int) -> int:
    """Return 0, 1, 2... in the lanes."""
    return int.from_bytes(b"".join(place.to_bytes(8, "little") for place in range(n)), "little")


@lru_cache(maxsize=32)
def _from_bit(n: int, bit: int) -> int:
    """Return all bits from that one on of each lane."""
    return ((1 << _BITS) - (1 << bit)) * _ones(n)
