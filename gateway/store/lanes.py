"""Many integers in one: each a lane of 64 bits of a Python integer, so that one C loop does all of them.

A lane must never become negative or overflow meanwhile: it would borrow from the next one. Each step below
therefore begins with room (a bias), and ends with a look at the high bits of all lanes.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_HALF = 1 << 38
"""The bias of a lane while it is made small."""
_MOST = 1 << 53
"""Numbers here lie between this and its negative."""
_PROBE = 64
WIDTHS = 1, 2, 4
PLAIN, STEPS, EVEN = range(3)


class Packed(NamedTuple):
    """number = its shape's prediction + low + unit * (what is packed); `raw` has 8 bytes each, `width` of use."""

    mode: int
    step: int
    low: int
    unit: int
    width: int
    raw: bytes


def shrunk(packed: bytes, probe: Sequence[int], step: int) -> Packed | None:
    """Make signed numbers of 8 bytes small; None where they are too large or jump too far.

    `probe` are some neighbours among them, to choose the shape by; `step` is a round mean step, or 0.
    """
    n = len(packed) // 8
    lanes = int.from_bytes(packed, "little") + _MOST * _ones(n)
    if n < 3 or len(probe) < 3 or lanes >> 64 * n or lanes & _high(n, 54):
        return None
