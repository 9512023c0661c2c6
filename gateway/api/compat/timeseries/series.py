"""What timeseries-api knows of a series beside its points, kept in a file of the state directory."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gateway.durable import write
from gateway.model import GatewayError

FILE: Final = "timeseries-series.json"
MOST: Final = 10_000


class TooManySeries(GatewayError):
    """No further series is taken."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series: its points are samples of the tags `ID/FIELD` of a device."""

    id: int
    owner: str
    """Id of the user who made it."""
    device: str
    """The device of the gateway that takes its points."""
    device_id: str
    """What its client calls itself (a MAC), as the two descriptions."""
    device_desc: str
    desc: str | None
    created_us: int


class SeriesFile:
    """All series. Each change is on the disk when it returns; an id is never given twice."""

    def __init__(self, state: Path) -> None:
        self._file = state / FILE
        self._series: dict[int, Series] = {}
        self._next_id = 1
        self._changing = asyncio.Lock()

    async def load(self, first_id: int) -> None:
        """Read the file. `first_id`: the least id that no sample stands under. GatewayError: damaged."""
        await asyncio.to_thread(self._load)
        self._next_id = max(self._next_id, first_id)

    def __iter__(self) -> Iterator[Series]:
        return iter(self._series.values())

    def get(self, series_id: int) -> Series | None:
        return self._series.get(series_id)

    async def add(
        self, owner: str, device: str, device_id: str, device_desc: str, desc: str | None, created_us: int
    ) -> Series:
        """Make a series. TooManySeries; GatewayError: the disk refuses."""
        async with self._changing:
            if len(self._series) >= MOST:
                raise TooManySeries(f"there are {MOST} series already: delete some first")
            made = Series(self._next_id, owner, device, device_id, device_desc, desc, created_us)
            await self._change({**self._series, made.id: made}, made.id + 1)
        return made

    async def remove(self, series_id: int) -> None:
        """Forget a series. GatewayError: the disk refuses."""
        async with self._changing:
            left = {number: each for number, each in self._series.items() if number != series_id}
            await self._change(left, self._next_id)

    async def _change(self, series: dict[int, Series], next_id: int) -> None:
        document = {"next_id": next_id, "series": [asdict(each) for each in series.values()]}
        try:
            await asyncio.to_thread(write, self._file, json.dumps(document, indent=1).encode() + b"\n")
        except OSError as error:
            raise GatewayError(f"{self._file} cannot be written: {error.strerror}") from error
        self._series, self._next_id = series, next_id

    def _load(self) -> None:
        try:
            document = json.loads(self._file.read_bytes())
            self._series = {each["id"]: Series(**each) for each in document["series"]}
            self._next_id = document["next_id"]
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError) as error:
            raise GatewayError(
                f"{self._file} is damaged ({error}): put it back from a backup, or remove it: the samples "
                "stay, their series are to be registered anew"
            ) from error
