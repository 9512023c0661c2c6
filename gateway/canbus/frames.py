"""Frames as they come from a bus, and how the bus is."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

EXTENDED = 0x80000000
REMOTE = 0x40000000
ERROR = 0x20000000
"""Flags of a CAN id (linux/can.h: CAN_EFF_FLAG, CAN_RTR_FLAG, CAN_ERR_FLAG)."""
STANDARD_BITS = 0x7FF
EXTENDED_BITS = 0x1FFFFFFF


@dataclass(slots=True)
class Frames:
    """Frames of one batch as parallel lists of equal length, in arrival order, without error frames.

    ts: microseconds UTC, by the kernel or the interface where it has a clock, else by us.
    ids: as in linux/can.h: the id with EXTENDED for 29 bits and REMOTE for a remote frame.
    data: 0 to 8 bytes, or up to 64 with CAN FD.
    """

    ts: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    flags: int = 0
    """Of every `ts`, for the samples made of it (model.Flag)."""

    def __len__(self) -> int:
        return len(self.ids)

    def extend(self, other: "Frames") -> None:
        self.ts.extend(other.ts)
        self.ids.extend(other.ids)
        self.data.extend(other.data)
        self.flags |= other.flags


def matching(filters: Sequence[tuple[int, int]]) -> Callable[[int], bool]:
    """Return what says of an id whether the filters let it through (see `opened`)."""

    @functools.lru_cache(4096)
    def passes(can_id: int) -> bool:
        return any((can_id ^ wanted) & mask == 0 for wanted, mask in filters)

    return passes


@dataclass(slots=True)
class BusHealth:
    """How a bus is. What an interface does not tell is None; counts begin where it was opened."""

    state: str = "up"
    """error-active, error-warning, error-passive or bus-off, as `ip -details link show` names them; up where
    the interface does not tell."""
    cause: str = ""
    """What the last error frame says that is wrong."""
    note: str = ""
    """What else is wrong for as long as it is open."""
    load_percent: float | None = None
    """Of the bit rate, over the last seconds, without stuffing bits."""
    receive_errors: int | None = None
    transmit_errors: int | None = None
    """The controller's error counters (REC, TEC)."""
    error_frames: int = 0
    frames: int = 0
    """Received."""
    traffic: int | None = None
    """Frames on the bus, also those that the filters keep away; None where only `frames` is known."""
    dropped: int = 0
    """Frames lost, for they were not fetched in time."""
    overruns: int = 0
    """How often the controller lost frames before the system fetched them."""
    returns: int = 0
    """How often it was bus-off and came back, open all the time."""
