"""A device that pushes its samples to us over HTTP."""

import asyncio
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.controls.devices import PushedSample
from gateway.model import Batch, Device, DeviceProblem, Link, Receipt, Run
from gateway.scaling import Scaling
from gateway.settings import Settings as Group
from gateway.settings import setting

_PATIENCE_S = 10.0
"""How long a push may take for room in the memory budget and COMMIT together."""
_UNHURRIED_S = 5.0
"""How long it waits for a commit at its tick; where `commit_interval` is longer, one is asked for then."""
_NAME_LENGTH = 200
_SLICE = 1000
"""Samples between two turns of the event loop."""


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """A device that pushes."""

    max_batch: int = setting(
        100_000, help="The most samples taken in one request.", low=1, high=10_000_000, example="10000"
    )
    max_tags: int = setting(
        10_000,
        help="The most tags the device may have, where none is listed; what brings more is refused.",
        low=1,
        high=1_000_000,
    )


@dataclass(frozen=True, kw_only=True)
class TagSettings(Group):
    """A tag that may be pushed; where none is listed, every name is taken."""

    SHORT = "unit"

    unit: str = setting("", help="Unit of measure.", example="bar")
    scale: float = setting(1.0, help="Factor from the pushed to the stored value.")
    offset: float = setting(0.0, help="Added after scaling.")


class Pusher:
    """Takes samples from clients (controls.Push)."""

    def __init__(self, device: Device, settings: Settings, link: Link, run: Run) -> None:
        self._device = device
        self._settings = settings
        self.most = settings.max_batch
        self._link = link
        self._run = run
        self._known: dict[str, tuple[int, Scaling]] = {}
        self._names = set(link.tags)
        """Of all tags that the device has, or is just getting."""

    async def push(self, samples: Sequence[PushedSample]) -> Receipt:
        """Store them; returns after COMMIT. ValueError: a sample is refused, and then all of them."""
        if len(samples) > self.most:
            raise ValueError(
                f"device {self._device.id} takes at most {self.most} samples in one request (max_batch)"
            )
        batch = await self._batch(samples)
        if not len(batch):
            return Receipt(0, 0, 0)
        async with asyncio.timeout(_PATIENCE_S):
            ticket = await self._link.emit(batch)
            self._run.add(len(batch))
            hurry = asyncio.get_running_loop().call_later(_UNHURRIED_S, self._link.hurry)
            try:
                return await ticket
            finally:
                hurry.cancel()

    def stamp(self) -> tuple[int, int]:
        """Return our own (ts, flags)."""
        return self._link.stamp()

    async def _batch(self, samples: Sequence[PushedSample]) -> Batch:
        # Every name is judged before the first tag is made: a refused request leaves nothing behind.
        new = list({sample.tag for sample in samples} - self._known.keys())
        for start in range(0, len(new), _SLICE):
            for name in new[start : start + _SLICE]:
                self._judge(name)
            await asyncio.sleep(0)
        self._make_room(new)
        batch = Batch()
        for start in range(0, len(samples), _SLICE):
            for sample in samples[start : start + _SLICE]:
                series, scaling = self._tag(sample.tag)
                ts, flags = self._link.stamp() if sample.ts is None else (sample.ts, sample.flags)
                batch.add(series, ts, scaling(sample.value), sample.status, flags)
            await asyncio.sleep(0)
        return batch

    def _make_room(self, names: Sequence[str]) -> None:
        """Take these among the device's tags. ValueError: they are too many."""
        fresh = set(names) - self._names
        if not self._device.tags and len(self._names) + len(fresh) > self._settings.max_tags:
            raise ValueError(
                f"device {self._device.id} takes at most {self._settings.max_tags} tags (max_tags), has "
                f"{len(self._names)}, and {min(fresh)!r} is none of them"
            )
        self._names |= fresh

    def _judge(self, name: str) -> None:
        if not 1 <= len(name) <= _NAME_LENGTH:
            raise ValueError(f"a tag name has 1 to {_NAME_LENGTH} characters, this one {len(name)}")
        # Cc: control characters; Cs: lone surrogates, which no UTF-8 can hold.
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise ValueError(f"the tag name {name!r} holds a control character")
        if self._device.tags and name not in self._device.tags:
            raise ValueError(
                f"device {self._device.id} has no tag {name!r}: it is not among those listed at "
                f"{self._device.where.get('', 'its configuration')}"
            )

    def _tag(self, name: str) -> tuple[int, Scaling]:
        found = self._known.get(name)
        if found is None:
            configured: TagSettings = self._device.tags.get(name) or TagSettings()
            series = self._link.tag(name, unit=configured.unit)
            found = self._known[name] = series, Scaling(configured.scale, configured.offset)
        return found


async def run(device: Device, settings: Settings, link: Link) -> None:
    """Offer `controls.Push` until cancelled."""
    async with link.run("push") as current:
        with link.offer(Pusher(device, settings, link, current)):
            link.report("running")
            await asyncio.Event().wait()
    raise DeviceProblem(f"device {device.id}: the push intake ended")
