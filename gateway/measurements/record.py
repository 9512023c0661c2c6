"""A measurement as it is kept: in the store's row while it lasts, in the head of each of its blocks."""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.measurements import plan
from gateway.measurements.plan import Channels, loss

RECORDING, RECORDED, WRITTEN, EMPTY = "recording", "recorded", "written", "empty"
"""States: frames come, all frames are in the store, the file is written and verified, there was no frame."""
BLOCK_SIZE = struct.Struct("<I")
"""What stands before each block on its way to the child process."""
_HEAD = ("name", "device", "gateway", "node", "mac", "started_us", "channels", "adc")


@dataclass(slots=True)
class Measurement:
    """One measurement."""

    name: str
    """Of the file too, less ".hdf5"; no other measurement has it."""
    device: str
    gateway: str
    node: str
    mac: str
    started_us: int
    channels: Channels
    adc: AdcConfiguration
    state: str = RECORDING
    duration_s: float | None = None
    """As asked for."""
    ended_us: int | None = None
    ending: str = ""
    """A sentence on why it ended, where it was not as asked for."""
    interrupted: bool = False
    """The gateway ended, or lost the node, before the measurement did."""
    received: int = 0
    """Frames."""
    lost: int = 0
    """Frames, by their counters."""
    clock_set_us: int = 0
    """By how much the clock was set meanwhile; all times of the measurement are by the clock before."""
    metadata: Mapping[str, Any] | None = None
    post_metadata: Mapping[str, Any] | None = None
    waits_for_metadata: bool = False
    metadata_due: bool = False
    """Metadata came after the file was written: it is to be changed."""
    file: str = ""
    """Name of the file, once there is one."""
    problem: str = ""
    """Why the file is not there yet. Not kept."""

    @property
    def loss(self) -> float:
        """Share of the frames that are missing, 0 to 1."""
        return loss(self.received, self.lost)

    @property
    def active(self) -> int:
        """Number of channels."""
        return sum(channel is not None for channel in self.channels)

    @property
    def frame_rate_hz(self) -> float:
        return self.adc.sample_rate_hz / (2 if self.active == 2 else 3)

    @property
    def channel_rate_hz(self) -> float:
        """Samples a second of each channel."""
        return self.adc.sample_rate_hz / self.active

    def text(self) -> str:
        """Return all of it, for the store; without metadata where that is in the file."""
        row = self.whole()
        if self.state == WRITTEN and not self.metadata_due:
            row["metadata"] = row["post_metadata"] = None
        return json.dumps(row)

    def head(self) -> bytes:
        """Return what the counts of a block mean."""
        row = self.whole()
        return json.dumps({name: row[name] for name in _HEAD}, separators=(",", ":")).encode()

    def whole(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        row = {name: getattr(self, name) for name in self.__slots__ if name != "problem"}
        return row | {"channels": plan.to_json(self.channels), "adc": asdict(self.adc)}


def from_text(text: str | bytes) -> Measurement:
    """Read what `text` or `head` gave. ValueError: it is neither."""
    return from_row(json.loads(text))


def from_row(row: dict[str, Any]) -> Measurement:
    """Read what `whole` gave, or a part of it. ValueError: it is neither."""
    try:
        row["channels"] = plan.from_json(row["channels"])
        row["adc"] = AdcConfiguration(**row["adc"])
        return Measurement(**row)
    except (TypeError, KeyError) as error:
        raise ValueError(f"it does not describe a measurement: {error}") from error
