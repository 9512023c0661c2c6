"""Frames as they come from a bus, and how the bus is."""

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


@dataclass(slots=True)
class BusHealth:
    """How a bus is. What an interface does not tell is None."""

    state: str = "error-active"
    """error-active, error-warning, error-passive or bus-off, as `ip -details link show` names them."""
    load_percent: float | None = None
    """Of the bit rate, over the last seconds."""
    receive_errors: int | None = None
    transmit_errors: int | None = None
    """The controller's error counters (REC, TEC)."""
    frames: int = 0
    """Received since it was opened."""
    dropped: int = 0
    """Lost since it was opened, for they were not fetched in time."""
