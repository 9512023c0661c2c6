"""Reads everything of a store."""

from collections.abc import Sequence

from gateway.model import Batch, Sample
from gateway.store import Store

ALL = (-(2**62), 2**62 + 2**20)


async def everything(store: Store, series: Sequence[int], **window: int) -> list[Sample]:
    """Return the samples of series, all times unless `from_us` and `to_us` are given."""
    found: list[Sample] = []
    from_us, to_us = window.pop("from_us", ALL[0]), window.pop("to_us", ALL[1])
    async for batch in store.samples(series, from_us, to_us, **window):  # type: ignore[arg-type]
        found += batch
    return found


async def put(store: Store, *samples: tuple[object, ...]) -> tuple[int, int, int]:
    """Store samples given as Sample's fields; return added, same, moved."""
    ticket = await store.put(Batch.of(Sample(*sample) for sample in samples))  # type: ignore[arg-type]
    return tuple(await ticket)  # type: ignore[return-value]
