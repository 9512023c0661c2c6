"""The IFT value: the sample variance of a window that slides over the samples of a channel.

y[i] is the sample variance (n - 1) of x[i] to x[i + W], both included, with W = floor(window * rate); after
the last whole window its value goes on to the end. Source: what the vendor's library libift gives, found by
trying (icolyzer 1.8.0 agrees to 5e-15). The sums are of whole counts, so they are exact however long it goes
on; a physical value is a count times a gain, its variance the one of the counts times the gain squared.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

_LEAST_S = 0.6
_LEAST_RATE_HZ = 200.0
_WINDOWS_S = (0.005, 1.0)


@dataclass(frozen=True, slots=True)
class IftRequest:
    """ValueError: there is no IFT value of such a window."""

    channel: int
    """0, 1 or 2."""
    window_s: float
    raw: bool = False
    """Of raw counts, and at the rate of all channels together: what ICOapi gives. Else of physical values at
    the channel's own rate."""

    def __post_init__(self) -> None:
        if self.channel not in (0, 1, 2):
            raise ValueError(f"there is no channel {self.channel + 1}: a node has three")
        low, high = _WINDOWS_S
        if not low <= self.window_s <= high:
            raise ValueError(f"the window of the IFT value is {self.window_s} s: it is {low} to {high} s")


class Ift:
    """Values as they become known: a window later than the sample that they belong to."""

    def __init__(self, window_s: float, rate_hz: float, gain: float = 1.0) -> None:
        """`rate_hz`: samples a second; `gain`: physical units of a count, 1 for raw counts."""
        self._n = math.floor(window_s * rate_hz) + 1
        self.possible = rate_hz >= _LEAST_RATE_HZ and self._n > 1
        """Else there are no values."""
        self._least = _LEAST_S * rate_hz
        self._factor = gain * gain
        self._window: deque[int] = deque()
        self._sum = self._squares = self._taken = 0
        self._waiting: list[float] = []
        self._last: float | None = None

    def take(self, counts: Iterable[int]) -> list[float]:
        """Return the values that these samples complete; none before 0.6 s of samples are there."""
        if not self.possible:
            return []
        found = self._slide(counts)
        if self._taken <= self._least:
            self._waiting += found
            return []
        found, self._waiting = self._waiting + found, []
        return found

    def _slide(self, counts: Iterable[int]) -> list[float]:
        n, window, total, squares = self._n, self._window, self._sum, self._squares
        below, factor = n * (n - 1), self._factor
        found: list[float] = []
        taken = 0
        for taken, count in enumerate(counts, 1):  # noqa: B007  # how many there were
            window.append(count)
            total += count
            squares += count * count
            if len(window) == n:
                found.append((n * squares - total * total) / below * factor)
                gone = window.popleft()
                total -= gone
                squares -= gone * gone
        self._sum, self._squares = total, squares
        self._taken += taken
        if found:
            self._last = found[-1]
        return found

    def end(self) -> list[float]:
        """Return the values of the last samples, which no whole window follows."""
        if not self.possible or self._taken <= self._least or self._last is None:
            return []
        return [self._last] * min(self._n - 1, self._taken)


def ift(counts: Iterable[int], request_window_s: float, rate_hz: float, gain: float = 1.0) -> list[float]:
    """Return the value of each sample; none where there are too few, or the rate is too low."""
    whole = Ift(request_window_s, rate_hz, gain)
    return whole.take(counts) + whole.end()
