"""A machine's clock that is set while something goes on."""

from gateway.clock import SystemClock

DAY_US = 86_400_000_000


class SteppedClock(SystemClock):
    """The machine's own clock, and by how much it was set since the test began."""

    def __init__(self) -> None:
        super().__init__()
        self.set_by_us = 0

    def wall_us(self) -> int:
        return super().wall_us() + self.set_by_us
