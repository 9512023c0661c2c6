"""Frames to samples: what a session asks for each batch of frames."""

from gateway.canbus import Frames
from gateway.model import Batch, Device, Link
from gateway.protocols.can.database import Database
from gateway.protocols.can.tags import DecodingSettings


class Decoder:
    """Decodes the frames of one bus; not thread-safe."""

    def __init__(self, device: Device, settings: DecodingSettings, database: Database, link: Link) -> None:
        self.problems: tuple[str, ...] = ()
        """Sentences on listed tags that the databases do not have, and on what in them cannot be used."""

    def take(self, frames: Frames) -> Batch:
        """Return the samples to keep of some frames."""
        raise NotImplementedError

    def flush(self, now_us: int) -> Batch:
        """Return the changes that waited for their interval to pass, as of a time of the frames' clock."""
        raise NotImplementedError

    def filters(self) -> list[tuple[int, int]]:
        """Return (can_id, mask) of what is decoded, as in linux/can/raw.h; [] for every frame."""
        raise NotImplementedError
