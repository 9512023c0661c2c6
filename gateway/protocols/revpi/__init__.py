"""The box's own modules: the process image of a Revolution Pi, read and never written.

Only the settings live here, so that a configuration is checked without importing revpimodio2.
"""

import asyncio
import importlib
from dataclasses import dataclass

from gateway.model import Device, Link
from gateway.settings import Settings as Group
from gateway.settings import setting

IMAGE = "/dev/piControl0"


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is no absolute path: it begins with /, as {IMAGE} does")


def _check_io(name: str) -> None:
    if not name.strip():
        raise ValueError("the name is empty: it is that of an input or output in PiCtory, as InputValue_1")


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """The modules of this Revolution Pi."""

    SHORT = "image"

    image: str = setting(IMAGE, help="The process image.", check=_check_path)
    configuration: str | None = setting(
        None,
        help="What PiCtory saved; /etc/revpi/config.rsc or else /opt/KUNBUS/config.rsc unless given.",
        check=_check_path,
        example="/etc/revpi/config.rsc",
    )
    only_exported: bool = setting(
        default=False,
        help="Where no tags are listed: only inputs and outputs that PiCtory marks as exported.",
    )
    poll_interval_ms: int = setting(
        100, help="How often the image is looked at.", low=10, high=60_000, example="100ms"
    )
    keep_interval_ms: int = setting(
        1000,
        help="A tag that keeps changing is kept at most this often, with its newest value; 0 keeps each.",
        low=0,
        high=86_400_000,
        example="1s",
    )


@dataclass(frozen=True, kw_only=True)
class TagSettings(Group):
    """An input or output."""

    SHORT = "io"

    io: str = setting(help="Its name in PiCtory.", check=_check_io, example="InputValue_1")
    bit: int | None = setting(None, help="One bit of it, 0 the lowest.", low=0, high=63)
    signed: bool | None = setting(
        None, help="Whether the number has a sign; as revpimodio2 takes it unless given: only on an AIO."
    )
    unit: str = setting("", help="Unit of measure after scaling.", example="bar")
    scale: float = setting(1.0, help="Factor from the raw to the stored value.")
    offset: float = setting(0.0, help="Added after scaling.")
    deadband: float = setting(0.0, help="Smaller changes are not kept; in the unit of the tag.", low=0)
    keep_interval_ms: int | None = setting(
        None, help="As at the device, for this tag.", low=0, high=86_400_000, example="0s"
    )

    def __post_init__(self) -> None:
        if self.bit is not None and self.signed is not None:
            raise ValueError("a bit has no sign: remove `signed`, or `bit`")


def device_nodes(settings: Settings) -> list[str]:
    """Return the device nodes that have to be opened; "r" stands for reading only."""
    return [f"{settings.image} r"] if settings.image.startswith("/dev/") else []


async def run(device: Device, settings: Settings, link: Link) -> None:
    """Collect from the process image until cancelled, or raise."""
    module = await asyncio.to_thread(importlib.import_module, "gateway.protocols.revpi.collect")
    await module.collect(device, settings, link)
