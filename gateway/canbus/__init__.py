"""Opens a CAN bus: batched SocketCAN, a socketcand server, or any interface of python-can in a thread.

    async with opened(settings, device="press", clock=clock) as bus:
        while True:
            frames = await bus.receive()

What ends a bus (removed, down, unplugged) is raised as a DeviceProblem by `opened`, `receive` or `send`; it
is left and opened again then.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from gateway.canbus.frames import EXTENDED, REMOTE, BusHealth, Frames
from gateway.canbus.settings import Settings, device_nodes
from gateway.clock import Clock

__all__ = ["EXTENDED", "REMOTE", "Bus", "BusHealth", "Frames", "Settings", "device_nodes", "opened"]


class Bus(Protocol):
    """An open bus."""

    @property
    def health(self) -> BusHealth:
        """How it is now; the same object for as long as it is open."""

    async def receive(self) -> Frames:
        """Wait for frames and return all that are there. DeviceProblem: the bus is lost."""

    async def send(self, can_id: int, data: bytes) -> None:
        """Send a frame; `can_id` with EXTENDED and REMOTE as in `Frames`. DeviceProblem: it cannot be."""


@contextlib.asynccontextmanager
async def opened(
    settings: Settings,
    *,
    device: str,
    clock: Clock,
    filters: Sequence[tuple[int, int]] = (),
    batch_ms: int = 50,
) -> AsyncIterator[Bus]:
    """Open the bus of a device. DeviceProblem: it cannot be opened.

    `filters`: (can_id, mask) as in linux/can/raw.h: a frame is received if its id and can_id agree in the
    bits of the mask, for any of them; none: every frame. `batch_ms`: a busy bus is fetched so often.
    """
    from gateway.canbus.threaded import ThreadedBus

    async with ThreadedBus.opened(settings, device, clock, filters, batch_ms) as bus:
        yield bus
