"""What a client sees of a measurement while it runs. A slow client loses frames; nobody waits for it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

_MOST_FRAMES = 20_000
"""That wait for one client: some six seconds."""


@dataclass(frozen=True, slots=True)
class LiveFrames:
    """Frames as physical values, by columns."""

    measurement: str
    ts: Sequence[int]
    """When each frame arrived, in microseconds UTC."""
    counters: bytes
    sample_ts: Sequence[int]
    """When each sample was taken: the samples of a frame end with its own time, a sample period apart."""
    values: tuple[Sequence[float] | None, Sequence[float] | None, Sequence[float] | None]
    """Of each channel, in its sensor's unit, as many as `sample_ts`; None where it is not active."""
    missed: int = 0
    """Frames before these that this client was too slow for."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Data loss, told each second, and at the end."""

    measurement: str
    of_interval: float
    """Share of the frames that are missing since it was told last, 0 to 1."""
    overall: float


@dataclass(frozen=True, slots=True)
class IftValues:
    """IFT values of samples, in their order, each with the time of its sample; a window late."""

    measurement: str
    ts: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Ended:
    """The measurement ended; its file follows."""

    measurement: str
    reason: str
    """A sentence where it was not as asked for, else ""."""
    overall_loss: float


LiveItem = LiveFrames | Loss | IftValues | Ended


class Tap:
    """Items for one client; iterate over it. Event loop only."""

    def __init__(self) -> None:
        self._items: deque[LiveItem] = deque()
        self._frames = self._missed = 0
        self._there = asyncio.Event()
        self._closed = False

    def put(self, item: LiveItem) -> None:
        """Add an item; where too many frames wait, the oldest items go."""
        if isinstance(item, LiveFrames):
            self._frames += len(item.ts)
        self._items.append(item)
        while self._frames > _MOST_FRAMES and len(self._items) > 1:
            gone = self._items.popleft()
            if isinstance(gone, LiveFrames):
                self._frames -= len(gone.ts)
                self._missed += len(gone.ts)
        self._there.set()

    def close(self) -> None:
        self._closed = True
        self._there.set()

    def __aiter__(self) -> "Tap":
        return self

    async def __anext__(self) -> LiveItem:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._there.clear()
            await self._there.wait()
        item = self._items.popleft()
        if isinstance(item, LiveFrames):
            self._frames -= len(item.ts)
            item, self._missed = replace(item, missed=self._missed), 0
        return item


class Taps:
    """Those who look on at one device."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []

    def __bool__(self) -> bool:
        return bool(self._taps)

    def tell(self, item: LiveItem) -> None:
        for tap in self._taps:
            tap.put(item)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Tap]:
        """Yield a tap that gets what is told while entered."""
        tap = Tap()
        self._taps.append(tap)
        try:
            yield tap
        finally:
            self._taps.remove(tap)
            tap.close()
