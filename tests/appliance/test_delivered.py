"""What a purge asks of a stopped gateway's store: was everything delivered?"""

import asyncio
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.delivered import undelivered
from gateway.model import Batch, Sample
from gateway.state_files import remember_store, store_folder
from gateway.store import Store, Transaction, outbox
from gateway.store.settings import StoreSettings
from tests.store.folding import eager, folded


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
    assert await asyncio.to_thread(store_folder, state) == state
    assert not list(state.iterdir())


async def test_what_a_purge_leaves_on_a_disk_of_its_own_is_not_asked_for(tmp_path: Path) -> None:
    await filled(tmp_path, upload=True, acknowledged=True)
    for name in ("lost+found", "edge-gateway.kept-20260101-000000"):
        await filled(tmp_path / name, upload=True, acknowledged=False)
    assert await asked(tmp_path) == ""
    await filled(tmp_path / "before", upload=True, acknowledged=False)
    assert "upload cloud" in await asked(tmp_path)


async def test_a_store_in_a_folder_of_the_state_directory_is_found_whatever_its_name(tmp_path: Path) -> None:
    await filled(tmp_path / "store", upload=True, acknowledged=False)
    await asyncio.to_thread(remember_store, tmp_path, tmp_path / "store")
    assert "upload cloud" in await asked(tmp_path)
    await asyncio.to_thread(remember_store, tmp_path, tmp_path)
    assert "upload cloud" in await asked(tmp_path)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_a_restore_moved_aside_is_looked_at(tmp_path: Path, elsewhere: bool) -> None:
    state = tmp_path / "state"
    state.mkdir()
    folder = tmp_path / "data" if elsewhere else state
    await filled(folder / "replaced-1", upload=False, acknowledged=False)
    await filled(folder, upload=True, acknowledged=True)
    await asyncio.to_thread(remember_store, state, folder)
    assert f"{folder / 'replaced-1'}: there are samples" in await asked(state)


async def test_a_store_that_the_configuration_named_before_is_looked_at(tmp_path: Path) -> None:
    await filled(tmp_path / "state", upload=True, acknowledged=False)
    await filled(tmp_path / "data", upload=True, acknowledged=True)
    await asyncio.to_thread(remember_store, tmp_path / "state", tmp_path / "data")
    assert "upload cloud" in await asked(tmp_path / "state")


async def test_a_store_that_cannot_be_reached_is_kept(tmp_path: Path) -> None:
    await asyncio.to_thread(remember_store, tmp_path, tmp_path / "unmounted")
    assert "unmounted cannot be read" in await asked(tmp_path)


async def put_one(store: Store, ts: int) -> None:
    await (await store.put(Batch.of([Sample(store.series("a", "x"), ts, 1.0)])))


async def acknowledge_all(store: Store) -> None:
    await store.ride(lambda tx: outbox.acknowledge(tx.conn, "cloud", 0, tx.newest_seq + 1))


@pytest.mark.parametrize("first", [[], ["cloud"]], ids=["no upload at first", "an upload all along"])
async def test_history_of_a_time_without_an_upload_was_never_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: list[str]
) -> None:
    eager(monkeypatch)
    settings = StoreSettings(chunk_minutes=0, commit_interval_s=0.02)
    async with Store.open(tmp_path, settings, SystemClock()) as store:
        store.pin(first)
        for number in range(10):
            await put_one(store, 1_700_000_000_000_000 + number)
            if first:
                await acknowledge_all(store)
        await folded(store)
        assert store.state().segments
    async with Store.open(tmp_path, settings, SystemClock()) as store:
        store.pin(["cloud"])
        await put_one(store, 1_700_000_000_000_100)
        await acknowledge_all(store)
        await store.flush()
    said = await asked(tmp_path)
    assert said == "" if first else "a time without an upload" in said


async def test_what_was_there_when_the_first_upload_came_is_delivered_once_it_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager(monkeypatch)
    settings = StoreSettings(chunk_minutes=0, commit_interval_s=0.02)
    async with Store.open(tmp_path, settings, SystemClock()) as store:
        store._writer.compactor._look_ns = 2**63
        store.pin([])
        for number in range(5):
            await put_one(store, 1_700_000_000_000_000 + number)
        store.pin(["cloud"])
        await store.flush()
        assert not await store.ride(lambda tx: outbox.never_sent_to(tx.conn))
        await acknowledge_all(store)
        store._writer.compactor._look_ns = 0
        await put_one(store, 1_700_000_000_000_100)
        await acknowledge_all(store)
        await folded(store)
    assert await asked(tmp_path) == ""


async def test_what_an_upload_lacked_when_it_was_removed_is_not_delivered_by_adding_it_again(
    tmp_path: Path,
) -> None:
    await filled(tmp_path, upload=True, acknowledged=False)
    async with Store.open(tmp_path, StoreSettings(commit_interval_s=0.05), SystemClock()) as store:
        for known in ([], ["cloud"]):
            store.pin(known)
            await store.flush()
        await acknowledge_all(store)
    assert "a time without an upload" in await asked(tmp_path)


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
