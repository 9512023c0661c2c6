"""Keeps an ear on the STU and the connected node, so that a loss is noticed within 6 s."""

import contextlib
from collections.abc import Callable

from gateway.clock import Clock
from gateway.controls.sensor_nodes import NoAnswer, NodeLost, Refused
from gateway.protocols.icotronic.radio import LINK_BROKE, Radio

LOOK_S = 0.5
_ASK_NS = 1_500_000_000
"""So often a connected node that does not stream is asked whether it is there."""
_ASK_IDLE_NS = 5_000_000_000
"""So often the STU is, while no node is connected."""
_SILENT_NS = 2_000_000_000
_LOST_NS = 4_500_000_000
"""A stream is doubted, and given up, after such a silence, or three frames' time if that is more."""


class Watch:
    """Asks what has not been heard for long."""

    def __init__(self, radio: Radio, clock: Clock) -> None:
        self._radio = radio
        self._clock = clock
        self._asked_ns = 0

    async def run(self, heard: Callable[[int], None]) -> None:
        """Watch until cancelled. NoAnswer: the STU is silent.

        `heard` is called whenever all is well, with how long ago something was heard, in microseconds.
        """
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                ago_us = await self._heard_ago_us()
            except Refused:
                ago_us = 0  # an error is an answer too
            if ago_us is not None:
                heard(ago_us)

    async def _heard_ago_us(self) -> int | None:
        """Return how long ago something was heard, None where that is not known; take note of losses."""
        radio, now_ns = self._radio, self._clock.mono_ns()
        stream = radio.stream
        if stream is not None:
            silent_ns = now_ns - stream.heard_ns
            if silent_ns < _SILENT_NS:
                self._asked_ns = now_ns
                return silent_ns // 1000
            if not await radio.stu.connected():
                radio.lose(LINK_BROKE)
            elif stream is radio.stream and silent_ns > max(_LOST_NS, int(3e9 / stream.frame_rate_hz)):
                radio.lose(f"it has sent nothing for {silent_ns / 1e9:.1f} s, though the STU holds the link")
            return None
        connected = radio.connected
        if now_ns - self._asked_ns < (_ASK_NS if connected else _ASK_IDLE_NS):
            return None
        self._asked_ns = now_ns
        if connected is None:
            await radio.stu.state()
        elif await radio.stu.connected():
            with contextlib.suppress(NoAnswer, NodeLost):  # the radio has taken note of the loss
                await radio.node.state()
        elif radio.connected is connected:
            radio.lose(LINK_BROKE)
        return 0
