"""What runs for a bus: it is opened, listened to, and opened again when it was lost."""

import asyncio
import logging
from collections.abc import Sequence

from gateway import canbus
from gateway.canbus import BusProblem, first_of
from gateway.clock import wall_us_of
from gateway.model import Device, DeviceProblem, Link
from gateway.protocols.can import Settings
from gateway.protocols.can.bus_tags import BusTags
from gateway.protocols.can.database import Database
from gateway.protocols.can.decoder import Decoder
from gateway.protocols.can.listening import Listening
from gateway.protocols.can.loading import Signature, load, signatures
from gateway.protocols.can.losses import Losses

_AGAIN_S = 0.5
_BATCH_MS = 100
_FILES_S = 5.0

_log = logging.getLogger(__name__)


async def collect(device: Device, settings: Settings, link: Link) -> None:
    """Collect until cancelled, or raise a DeviceProblem."""
    told: list[str] = []
    deaf_since_ns: int | None = None
    while True:
        read_as = await signatures(settings)
        database = await load(device.id, settings, link.memory)
        told.clear()
        for note in database.notes:
            _log.info("%s: %s", device.id, note)
        try:
            async with asyncio.TaskGroup() as group:
                collecting = group.create_task(
                    collect_from(device, settings, database, link, told, deaf_since_ns)
                )
                await _changed(device, settings, link, read_as, told)
                collecting.cancel()
                deaf_since_ns = link.clock.mono_ns()
        except BaseExceptionGroup as problems:
            first = first_of(problems)
            raise first from first.__cause__
        _log.info("%s: a database has changed and is taken", device.id)


async def _changed(
    device: Device, settings: Settings, link: Link, read_as: Sequence[Signature], told: list[str]
) -> None:
    """Wait until the files are others that can be used; what cannot be is told meanwhile."""
    while True:
        await link.clock.sleep(_FILES_S)
        seen = await signatures(settings)
        if seen == read_as:
            continue
        read_as = seen
        try:
            await load(device.id, settings, link.memory)
        except DeviceProblem as problem:
            told[:] = [f"{problem}; until then the one before is used"]
        else:
            return


async def collect_from(
    device: Device,
    settings: Settings,
    database: Database,
    link: Link,
    told: Sequence[str] = (),
    deaf_since_ns: int | None = None,
) -> None:
    """Collect what a database describes until cancelled.

    `told`: what is wrong with its files by now. `deaf_since_ns`: when the bus was left for another database.
    """
    tags, losses = BusTags(link), Losses(link)
    decoder: Decoder | None = None
    while True:
        # What was stored before a hole says nothing of what is after it: each signal is stored anew.
        decoder = decoder or Decoder(device, settings, database, link)
        try:
            async with canbus.opened(
                settings,
                device=device.id,
                clock=link.clock,
                filters=decoder.filters(),
                batch_ms=_BATCH_MS,
                stamp=link.stamp,
            ) as bus:
                if deaf_since_ns is not None:
                    since_us = wall_us_of(link.clock, deaf_since_ns)
                    link.gap(since_us, link.clock.wall_us(), "the bus was opened again with a new database")
                    deaf_since_ns = None
                listening = Listening(bus, decoder, settings, link, tags, losses, told)
                decoder = None
                await listening.run()
        except BusProblem as problem:
            link.report(problem.state, str(problem))
            if not losses.emit(tags.state(problem.bus_state)):
                tags.forget()
        await link.clock.sleep(_AGAIN_S)
