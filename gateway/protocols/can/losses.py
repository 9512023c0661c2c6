"""What a bus may lose: frames that were not fetched in time, samples that found no room."""

from gateway.canbus.losses import SAMPLES_LOST, Loss
from gateway.model import Batch, Link


class Losses:
    """Both kinds."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.frames = Loss(
            link,
            "{} frames were lost, for they were not fetched in time: is the machine overloaded, or "
            "net.core.rmem_max small?",
        )
        self.samples = Loss(link, SAMPLES_LOST)

    def emit(self, batch: Batch) -> bool:
        """Hand samples over, or count them as lost: a bus cannot wait. Say whether they were taken."""
        if not len(batch) or self._link.try_emit(batch) is not None:
            return True
        self.samples.add(len(batch), self._link.clock.wall_us())
        return False

    def settle(self, *, at_once: bool = False) -> None:
        """Record what is to be recorded."""
        self.frames.settle(at_once=at_once)
        self.samples.settle(at_once=at_once)
