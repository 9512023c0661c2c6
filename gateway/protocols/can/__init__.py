"""A CAN bus whose frames a database (DBC, KCD, ARXML, SYM) or EDS files describe; nothing is sent to it.

Only the settings live here, so that a configuration is checked without importing python-can or cantools.
"""

import asyncio
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway import canbus
from gateway.model import Device, Link
from gateway.settings import Settings as Group
from gateway.settings import setting


def _check_signal(name: str) -> None:
    message, _, signal = name.partition(".")
    if not message.strip() or not signal.strip():
        raise ValueError(f"{name!r} is no signal: write its message before it, as Engine.Speed")


@dataclass(frozen=True, kw_only=True)
class Settings(canbus.Settings):
    """A CAN bus with a database."""

    SHORT = "database"

    database: Path | tuple[Path, ...] | None = setting(
        None,
        help="What its frames mean: a file, or a list of them (DBC, KCD, ARXML, SYM).",
        example="press.dbc",
    )
    canopen: Mapping[str, Path] = setting(
        {},
        help="CANopen nodes whose process data is taken: node id to EDS or DCF file.",
        example="{5: drive.eds}",
    )
    j1939: bool | None = setting(
        None,
        help="Whether frames are matched by J1939's parameter groups; as the database says unless given.",
    )
    enumerations: Literal["text", "number"] = setting(
        "text", help="What is stored where the database has a name for a value: the name, or the number."
    )
    raw_frames: Literal["off", "unknown", "all"] = setting(
        "off",
        help="Which frames are stored as they came too: none, those that the database does not know, all.",
    )
    keep_interval_ms: int = setting(
        1000,
        help="A signal that keeps changing is stored at most this often, with its newest value; "
        "0 stores it with every frame, changed or not.",
        low=0,
        high=86_400_000,
        example="1s",
    )
    silence_ms: int = setting(
        10_000,
        help="After this time without a frame the device is shown as degraded; 0 never.",
        low=0,
        high=86_400_000,
        example="10s",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.database is None and not self.canopen and self.raw_frames == "off":
            raise ValueError(
                "nothing says what the frames mean: add `database`, as press.dbc, or `canopen`, "
                "or `raw_frames: all` to store them as they come"
            )


@dataclass(frozen=True, kw_only=True)
class TagSettings(Group):
    """A signal."""

    SHORT = "signal"

    signal: str = setting(help="Its message and its name.", check=_check_signal, example="Engine.Speed")
    unit: str | None = setting(None, help="Unit of measure after scaling; that of the database unless given.")
    scale: float = setting(1.0, help="Factor from the database's physical value to the stored one.")
    offset: float = setting(0.0, help="Added after scaling.")
    deadband: float = setting(0.0, help="Smaller changes are not stored; in the unit of the tag.", low=0)
    keep_interval_ms: int | None = setting(
        None, help="As at the device, for this tag.", low=0, high=86_400_000, example="0s"
    )


def device_nodes(settings: Settings) -> list[str]:
    """Return the device nodes that have to be opened."""
    return canbus.device_nodes(settings)


async def run(device: Device, settings: Settings, link: Link) -> None:
    """Collect from the bus until cancelled, or raise."""
    module = await asyncio.to_thread(importlib.import_module, "gateway.protocols.can.collect")
    await module.collect(device, settings, link)
