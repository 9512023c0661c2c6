"""Listens to an open bus: frames become samples, and what is wrong is told."""

import asyncio
from collections.abc import Sequence
from typing import Final

from gateway.canbus import Bus, first_of
from gateway.canbus.losses import Loss
from gateway.clock import wall_us_of
from gateway.model import Link, Run
from gateway.protocols.can import Settings
from gateway.protocols.can.browse import Browser
from gateway.protocols.can.bus_tags import BusTags
from gateway.protocols.can.decoder import Decoder
from gateway.protocols.can.losses import Losses
from gateway.protocols.can.scanning import Scanner

_LOOK_S = 1.0
_TELL_NS = 60_000_000_000
"""So long a loss is told of."""
_ERRORS: Final = {
    "error-warning": "many transfers fail",
    "error-passive": "so many transfers fail that the controller hardly takes part any more",
    "bus-off": "so many transfers failed that the controller takes no part any more",
}
_WIRING: Final = "check the bit rate, the wiring and both terminating resistors (60 ohms from CAN_H to CAN_L)"


class Listening:
    """One open bus and what is made of its frames."""

    def __init__(
        self,
        bus: Bus,
        decoder: Decoder,
        settings: Settings,
        link: Link,
        tags: BusTags,
        losses: Losses,
        told: Sequence[str] = (),
    ) -> None:
        self._bus, self._decoder, self._link = bus, decoder, link
        self._tags, self._losses, self._told = tags, losses, told
        self._browser = Browser(decoder.database, decoder.collected, link)
        self._scanner = Scanner(settings, decoder.matching, link.device, link.clock)
        self._silence_ns = settings.silence_ms * 1_000_000
        self._heard_ns = link.clock.mono_ns()
        self._ahead_us = 0
        """What the frames' clock, which may be that of another machine, is ahead of the gateway's."""
        self._traffic: int | None = None
        """Frames of all kinds on the bus when it was found silent."""
        self._dropped = self._overruns = self._returns = 0
        self._forgotten = losses.samples.total
        """So many samples were lost when the decoder was told."""

    async def run(self) -> None:
        """Listen until the bus is lost (BusProblem)."""
        try:
            with self._link.offer(self._decoder, self._scanner, self._browser):
                async with self._link.run("subscription") as run:
                    run.add(0)
                    await self._together(run)
        finally:
            self._count_overruns()
            self._losses.emit(self._decoder.rest())  # the last state is never lost
            self._losses.settle(at_once=True)

    async def _together(self, run: Run) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(run))
                group.create_task(self._look(run))
        except BaseExceptionGroup as problems:
            first = first_of(problems)
            raise first from first.__cause__

    async def _read(self, run: Run) -> None:
        while True:
            frames = await self._bus.receive()
            self._scanner.take(frames)
            samples = self._decoder.take(frames)
            run.add(len(samples))
            self._heard()
            self._ahead_us = frames.ts[-1] - self._link.stamp()[0]
            self._losses.emit(samples)

    async def _look(self, run: Run) -> None:
        while True:
            self._count_overruns()
            losses = self._losses
            losses.emit(self._tags.look(self._bus.health, losses.frames.total, losses.overruns.total))
            if self._losses.samples.total != self._forgotten:
                self._forgotten = self._losses.samples.total
                self._decoder.forget()
                self._tags.forget()
            self._losses.settle()
            detail = "; ".join(self._sentences())
            self._link.report("degraded" if detail else "running", detail)
            await self._link.clock.sleep(_LOOK_S)
            samples = self._decoder.flush(self._frames_us())
            if len(samples):
                run.add(len(samples))
                self._losses.emit(samples)

    def _heard(self) -> None:
        """Take note that frames came, and of what did not come before."""
        health, clock = self._bus.health, self._link.clock
        heard_us = wall_us_of(clock, self._heard_ns)
        back = "the bus was bus-off, and came back" if health.returns != self._returns else ""
        if hole := self._silent() or back:
            self._link.gap(heard_us, clock.wall_us(), hole)
        self._returns = health.returns
        if health.dropped != self._dropped:
            self._losses.frames.add(health.dropped - self._dropped, heard_us)
            self._dropped = health.dropped
        self._heard_ns = clock.mono_ns()
        self._traffic = None

    def _frames_us(self) -> int:
        """Return the time by the frames' clock."""
        return self._link.stamp()[0] + self._ahead_us

    def _count_overruns(self) -> None:
        overruns = self._bus.health.overruns
        if overruns != self._overruns:
            heard_us = wall_us_of(self._link.clock, self._heard_ns)
            self._losses.overruns.add(overruns - self._overruns, heard_us)
            self._overruns = overruns

    # -- what is to be said --------------------------------------------------------------------------

    def _sentences(self) -> list[str]:
        health = self._bus.health
        found = [*self._told, *self._decoder.problems, *self._decoder.sentences(self._frames_us())]
        if health.state in _ERRORS:
            counted = f" (REC {health.receive_errors}, TEC {health.transmit_errors})"
            cause = health.cause or _ERRORS[health.state]
            found.append(
                f"{self._bus.name} is {health.state}{counted if health.receive_errors is not None else ''}: "
                f"{cause}; {_WIRING}"
            )
        if health.note:
            found.append(health.note)
        if silent := self._silent():
            found.append(f"{self._bus.name}: {silent}")
        losses = (self._losses.frames, self._losses.overruns, self._losses.samples)
        return [*found, *(loss.sentence for loss in losses if self._recent(loss))]

    def _silent(self) -> str:
        """Return a sentence where no frame came for too long, or ""."""
        silent_ns = self._link.clock.mono_ns() - self._heard_ns
        if not self._silence_ns or silent_ns < self._silence_ns:
            return ""
        if self._traffic is None:
            self._traffic = self._bus.health.traffic
        if self._bus.health.traffic != self._traffic:
            return "there are frames on the bus, but none that the database knows: is it that of this bus?"
        return f"no frame came for {self._silence_ns / 1e9:g} s or more: {_WIRING}"

    def _recent(self, loss: Loss) -> bool:
        return loss.last_ns is not None and self._link.clock.mono_ns() - loss.last_ns < _TELL_NS
