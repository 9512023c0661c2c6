"""Makes a store fold its blocks at once, and waits for it."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.store import Store, commit, compact, writer

AT_ONCE = {"chunk_minutes": 0}
"""Settings of a store that folds as soon as it can."""


def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for something to fold all the time, and write the snapshot with each commit."""
    monkeypatch.setattr(compact, "LOOK_NS", 0)
    monkeypatch.setattr(writer, "_SNAPSHOT_NS", -1)


def keeping_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never delete the blocks that were folded."""
    monkeypatch.setattr(commit, "delete_folded", lambda conn, ranges, newest_seq: (0, list(ranges)))


async def in_both(store: Store) -> None:
    """Wait until samples are in chunks whose blocks are still there."""
    for _ in range(1000):
        if store._writer.compactor.pending:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not folded: {store.state()}")


async def folded(store: Store) -> None:
    """Wait until all but the newest block is in chunks."""
    await store.flush()
    for _ in range(1000):
        if store.state().blocks <= 1 and not store._writer.compactor.pending:
            return
        await asyncio.sleep(0.01)
        await store.flush()
    raise AssertionError(f"not folded: {store.state()}, {store._writer.compactor.pending}")


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "history").glob("*.db"))


def rows(path: Path, query: str) -> list[tuple[int, ...]]:
    with sqlite3.connect(path) as conn:
        found = conn.execute(query).fetchall()
    conn.close()
    return found
