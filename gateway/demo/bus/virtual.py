"""The simulated bus as one of python-can's virtual buses, for what runs in the same process."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence

import can

from gateway.demo.bus.bus import SimulatedBus
from gateway.demo.bus.frames import EXTENDED, Timed


@contextlib.asynccontextmanager
async def attached(bus: SimulatedBus, channel: str) -> AsyncIterator[None]:
    """Attach the bus to a virtual channel while entered."""
    loop = asyncio.get_running_loop()
    virtual = can.Bus(channel, interface="virtual", preserve_timestamps=True)

    def pass_on(frames: Sequence[Timed], wall_us: int) -> None:
        for at_s, can_id, data in frames:
            extended = bool(can_id & EXTENDED)
            virtual.send(
                can.Message(
                    timestamp=at_s + wall_us / 1e6,
                    arbitration_id=can_id & 0x1FFFFFFF,
                    is_extended_id=extended,
                    data=data,
                )
            )

    def fetch() -> None:
        while not stop.is_set():
            message = virtual.recv(0.05)
            if message is not None:
                can_id = message.arbitration_id | (EXTENDED if message.is_extended_id else 0)
                loop.call_soon_threadsafe(bus.send, can_id, bytes(message.data), pass_on)

    stop = threading.Event()
    detach = bus.attach(pass_on)
    thread = loop.run_in_executor(None, fetch)
    try:
        yield
    finally:
        stop.set()
        await thread
        detach()
        virtual.shutdown()
