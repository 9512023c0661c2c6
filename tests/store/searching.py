"""Waits for a store that takes in what its damaged files hold."""

import asyncio

from gateway.store import Store


async def searched(store: Store) -> None:
    """Wait until every damaged file is searched, and what was found is committed."""
    writer = store._writer
    for _ in range(2000):
        waiting = await asyncio.to_thread(writer.mender.recoverer.waiting)
        if not (waiting or writer.mender.busy or writer.mender.examining):
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError(f"still being searched: {waiting}")
    await store.flush()
