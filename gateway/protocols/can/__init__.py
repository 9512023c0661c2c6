"""A CAN bus whose frames a database (DBC, KCD, ARXML, SYM) or EDS files describe; nothing is sent to it.

Only the settings live here, so that a configuration is checked without importing python-can or cantools.
"""

import asyncio
import importlib
from dataclasses import dataclass
from pathlib import Path

from gateway import canbus
from gateway.model import Device, DeviceProblem, Link
from gateway.protocols.can.tags import DecodingSettings, TagSettings
from gateway.settings import setting

__all__ = ["Settings", "TagSettings", "device_nodes", "run"]


@dataclass(frozen=True, kw_only=True)
class Settings(canbus.Settings, DecodingSettings):
    """A CAN bus with a database."""

    SHORT = "database"

    silence_ms: int = setting(
        10_000,
        help="After this time without a frame the device is degraded, and the hole is recorded; 0 never.",
        low=0,
        high=86_400_000,
        example="10s",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.databases or self.canopen or self.raw_frames != "off"):
            raise ValueError(
                "nothing says what the frames mean: add `database`, as press.dbc, or `canopen`, "
                "or `raw_frames: all` to store them as they come"
            )

    def files(self) -> list[Path]:
        """Return the databases and EDS files."""
        return [*self.databases, *(node.eds for node in self.canopen.values())]


def device_nodes(settings: Settings) -> list[str]:
    """Return the device nodes that have to be opened."""
    return canbus.device_nodes(settings)


def file_problems(device: Device, settings: Settings) -> list[str]:
    """Say what is wrong with the databases, and which tags they do not have."""
    loading = importlib.import_module("gateway.protocols.can.loading")
    wanted = importlib.import_module("gateway.protocols.can.wanted")
    try:
        database = asyncio.run(loading.load(device.id, settings, {}))
    except DeviceProblem as problem:
        return [str(problem)]
    missing = wanted.Wanted(device, settings, database).problems.values()
    return [f"device {device.id}: {sentence}" for sentence in (*missing, *database.notes)]


async def run(device: Device, settings: Settings, link: Link) -> None:
    """Collect from the bus until cancelled, or raise."""
    module = await asyncio.to_thread(importlib.import_module, "gateway.protocols.can.collect")
    await module.collect(device, settings, link)
