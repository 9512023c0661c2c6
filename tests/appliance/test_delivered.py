"""What a purge asks of a stopped gateway's store: was everything delivered?"""

import asyncio
from pathlib import Path

from gateway.clock import SystemClock
from gateway.delivered import remember_store, undelivered
from gateway.model import Batch, Sample
from gateway.store import Store, Transaction, outbox
from gateway.store.settings import StoreSettings


async def filled(folder: Path, *, upload: bool, acknowledged: bool) -> None:
    async with Store.open(folder, StoreSettings(commit_interval_s=0.05), SystemClock()) as store:
        store.pin(["cloud"] if upload else [])
        series = store.series("a", "x")
        ticket = await store.put(Batch.of([Sample(series, 1_700_000_000_000_000, 1.0)]))
        await ticket
        if acknowledged:
            await store.ride(lambda tx: outbox.acknowledge(tx.conn, "cloud", 0, tx.newest_seq + 1))


async def asked(state: Path) -> str:
    return await asyncio.to_thread(undelivered, state)


async def test_a_backlog_is_not_delivered(tmp_path: Path) -> None:
    await filled(tmp_path, upload=True, acknowledged=False)
    assert "upload cloud has not got 1 samples" in await asked(tmp_path)


async def test_what_was_acknowledged_is_delivered(tmp_path: Path) -> None:
    await filled(tmp_path, upload=True, acknowledged=True)
    assert await asked(tmp_path) == ""


async def test_samples_that_no_upload_ever_had_are_kept(tmp_path: Path) -> None:
    await filled(tmp_path, upload=False, acknowledged=False)
    assert "no upload ever had them" in await asked(tmp_path)


async def test_a_store_elsewhere_is_found(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "data"
    state.mkdir()
    await filled(elsewhere, upload=True, acknowledged=False)
    assert await asked(state) == ""
    for _ in range(2):
        await asyncio.to_thread(remember_store, state, elsewhere)
    assert "upload cloud" in await asked(state)
    await asyncio.to_thread(remember_store, state, state)
    assert not (state / "store").is_symlink()


async def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert await asked(tmp_path) == ""


async def test_a_doubt_keeps_the_store(tmp_path: Path) -> None:
    (tmp_path / "hot.db").write_bytes(b"no database" * 100)
    assert "cannot be read" in await asked(tmp_path)
    (tmp_path / "hot.db").unlink()
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "000001.db").touch()
    assert "unknown" in await asked(tmp_path)
    (tmp_path / "history" / "000001.db").rename(tmp_path / "hot.db.corrupt-1")
    assert "damaged" in await asked(tmp_path)


async def test_a_quarantine_keeps_the_store(tmp_path: Path) -> None:
    await filled(tmp_path, upload=True, acknowledged=True)
    async with Store.open(tmp_path, StoreSettings(commit_interval_s=0.05), SystemClock()) as store:
        refused = [outbox.RefusedRow(Sample(1, 1_700_000_000_000_000, 1.0), "not to its taste")]

        def refuse(tx: Transaction) -> None:
            outbox.cut(tx, "cloud", "live", 1, 1, "{}")
            outbox.settle(tx, "cloud", "live", refused)

        await store.ride(refuse)
    assert "quarantine" in await asked(tmp_path)
