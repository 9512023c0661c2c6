"""What simulated devices and their bus exchange."""

from typing import NamedTuple, Protocol

EXTENDED = 0x80000000
"""Flag of a 29-bit id, as in linux/can.h."""


class Timed(NamedTuple):
    """A frame and when it is on the bus, in monotonic seconds."""

    at_s: float
    can_id: int
    """With EXTENDED for 29 bits."""
    data: bytes


class Simulated(Protocol):
    """A device on the bus; it has no clock of its own."""

    def receive(self, now_s: float, can_id: int, data: bytes) -> None:
        """Take a frame that something else sent."""

    def due(self, now_s: float) -> list[Timed]:
        """Return what it has to send until now, in the order of time."""
