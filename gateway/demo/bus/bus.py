"""The simulated bus: carries frames between simulated devices and those who are attached to it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from gateway.demo.bus.frames import Simulated, Timed

_TICK_S = 0.005
Listener: TypeAlias = Callable[[Sequence[Timed], int], None]
"""Called with frames and with what is to be added to their time, in microseconds, to make it UTC."""


class SimulatedBus:
    """Every frame reaches all who are attached, but the one who sent it."""

    def __init__(self, devices: Sequence[Simulated]) -> None:
        self._devices = devices
        self._listeners: list[Listener] = []

    def attach(self, listener: Listener) -> Callable[[], None]:
        """Hand all frames to `listener`; the function returned ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def send(self, can_id: int, data: bytes, sender: Listener | None = None) -> None:
        """Put a frame on the bus."""
        now_s = time.monotonic()
        self._carry([Timed(now_s, can_id, data)], sender)
        for device in self._devices:
            device.receive(now_s, can_id, data)
        self._pass(now_s)

    async def run(self) -> None:
        """Let the devices live until cancelled."""
        while True:
            self._pass(time.monotonic())
            await asyncio.sleep(_TICK_S)

    def _pass(self, now_s: float) -> None:
        frames = [frame for device in self._devices for frame in device.due(now_s)]
        if frames:
            self._carry(sorted(frames, key=lambda frame: frame.at_s), None)

    def _carry(self, frames: Sequence[Timed], sender: Listener | None) -> None:
        wall_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        for listener in [*self._listeners]:
            if listener is not sender:
                listener(frames, wall_us)
