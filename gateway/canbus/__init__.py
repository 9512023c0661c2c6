"""Opens a CAN bus: batched SocketCAN, a socketcand server, or any other interface of python-can in a thread.

    async with opened(settings, device="press", clock=clock) as bus:
        while True:
            frames = await bus.receive()

What ends a bus (removed, down, unplugged) is raised as a BusProblem by `opened`, `receive` or `send`; it is
left and opened again then.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.canbus.batched import Opening
from gateway.canbus.frames import EXTENDED, REMOTE, BusHealth, Frames
from gateway.canbus.problems import BusProblem, first_of
from gateway.canbus.settings import Settings, device_nodes
from gateway.canbus.socketcan import SocketBus
from gateway.canbus.socketcand import SocketcandBus
from gateway.canbus.stamping import Stamp
from gateway.canbus.threaded import ThreadedBus
from gateway.clock import Clock

__all__ = [
    "EXTENDED",
    "REMOTE",
    "Bus",
    "BusHealth",
    "BusProblem",
    "Frames",
    "Settings",
    "device_nodes",
    "first_of",
    "opened",
]


class Bus(Protocol):
    """An open bus."""

    name: str
    """How it is called in sentences, with its device."""
    health: BusHealth
    """How it is now; the same object for as long as it is open."""

    async def receive(self) -> Frames:
        """Wait for frames and return all that are there, never none. BusProblem: the bus is lost."""

    async def send(self, can_id: int, data: bytes) -> None:
        """Send a frame; `can_id` with EXTENDED and REMOTE as in `Frames`. BusProblem: it cannot be."""


def opened(
    settings: Settings,
    *,
    device: str,
    clock: Clock,
    filters: Sequence[tuple[int, int]] = (),
    batch_ms: int = 50,
    stamp: Stamp | None = None,
) -> AbstractAsyncContextManager[Bus]:
    """Return what opens the bus of a device while entered. BusProblem: it cannot be opened.

    `filters`: (can_id, mask) as in linux/can/raw.h: a frame is received if its id and can_id agree in the
    bits of the mask, for any of them; none: every frame. `batch_ms`: a busy bus is fetched so often.
    `stamp`: model.Link.stamp, for the times of frames while nothing sets the clock.
    """
    ways: dict[str, type[SocketBus] | type[SocketcandBus]] = {
        "socketcan": SocketBus,
        "socketcand": SocketcandBus,
    }
    opening = Opening(
        settings=settings,
        device=device,
        clock=clock,
        filters=tuple(filters),
        batch_ms=batch_ms,
        stamp=stamp,
    )
    return ways.get(settings.interface, ThreadedBus).opened(opening)
