"""What a bus may lose: frames that nobody fetched or took in time, samples that found no room."""

from gateway.canbus.losses import SAMPLES_LOST, Loss
from gateway.model import Batch, Link


class Losses:
    """All three kinds."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.frames = Loss(
            link,
            "{} frames were lost, for they were not fetched in time: is the machine overloaded, or "
            "net.core.rmem_max small?",
        )
        self.overruns = Loss(
            link,
            "the memory of the CAN controller ran over {} times, and frames were lost each time: is the "
            "machine overloaded, or the adapter too slow for this bus?",
        )
        self.samples = Loss(link, SAMPLES_LOST)

    def emit(self, batch: Batch) -> bool:
        """Hand samples over, or count them as lost: a bus cannot wait. Say whether they were taken."""
        if not len(batch) or self._link.try_emit(batch) is not None:
            return True
        self.samples.add_samples(batch)
        return False

    def settle(self, *, at_once: bool = False) -> None:
        """Record what is to be recorded."""
        for loss in (self.frames, self.overruns, self.samples):
            loss.settle(at_once=at_once)
