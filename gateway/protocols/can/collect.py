"""What runs for a bus: it is opened, listened to, and opened again when it was lost."""

from gateway import canbus
from gateway.canbus import BusProblem
from gateway.model import Device, Link
from gateway.protocols.can import Settings
from gateway.protocols.can.bus_tags import BusTags
from gateway.protocols.can.database import Database
from gateway.protocols.can.decoder import Decoder
from gateway.protocols.can.listening import Listening
from gateway.protocols.can.losses import Losses

_AGAIN_S = 0.5


async def collect(device: Device, settings: Settings, link: Link) -> None:
    """Collect until cancelled, or raise a DeviceProblem."""
    await collect_from(device, settings, Database(), link)


async def collect_from(device: Device, settings: Settings, database: Database, link: Link) -> None:
    """Collect what a database describes until cancelled."""
    tags, losses = BusTags(link), Losses(link)
    decoder: Decoder | None = None
    while True:
        # What was stored before a hole says nothing of what is after it: each signal is stored anew.
        decoder = decoder or Decoder(device, settings, database, link)
        try:
            async with canbus.opened(
                settings, device=device.id, clock=link.clock, filters=decoder.filters(), stamp=link.stamp
            ) as bus:
                listening = Listening(bus, decoder, settings, link, tags, losses)
                decoder = None
                await listening.run()
        except BusProblem as problem:
            link.report(problem.state, str(problem))
            losses.emit(tags.state(problem.bus_state))
        await link.clock.sleep(_AGAIN_S)
