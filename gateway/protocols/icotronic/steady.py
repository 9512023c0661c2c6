"""The times of one stream on one time base, whatever is done to the clock meanwhile; pure."""

_STEP_US = 1_000_000
"""Frames are handed over in bursts, and read late: what is less need not be the clock."""


class SteadyTime:
    """`set_by_us`: what the clock was set by since the first frame, which later times go on without.

    `period_us` is the time between two frames.
    """

    def __init__(self, period_us: float) -> None:
        self.set_by_us = 0
        self._period_us = round(period_us)
        self._newest_us: int | None = None
        """As the clock had it."""

    def of(self, ts: list[int], passed_us: int) -> list[int]:
        """Return the times of at least one frame, in microseconds, by the clock as it was at the first one.

        `passed_us`: monotonic time since the call before.
        """
        newest_us = ts[0] if self._newest_us is None else self._newest_us
        self._newest_us = ts[-1]
        grows = ts[0] - newest_us >= -_STEP_US and ts[-1] - ts[0] >= -_STEP_US
        if not grows or ts[-1] - newest_us > passed_us + _STEP_US:
            return self._across(newest_us, ts, passed_us)
        return [us - self.set_by_us for us in ts] if self.set_by_us else ts

    def _across(self, newest_us: int, ts: list[int], passed_us: int) -> list[int]:
        """Find where the clock was set: before these frames, or among them."""
        silence_us = max(self._period_us, passed_us - max(0, ts[-1] - ts[0]))
        steady = []
        for us in ts:
            jump_us = us - newest_us
            if not -_STEP_US <= jump_us <= passed_us + _STEP_US:
                self.set_by_us += jump_us - silence_us
            steady.append(us - self.set_by_us)
            newest_us, silence_us = us, self._period_us
        return steady
