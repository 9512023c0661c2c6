"""The queue of files: what is due, what settles it, what leaves a gap record."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.store import Store, file_queue
from gateway.store.examine import changed_rows
from gateway.store.file_queue import CHANGED, FileRow
from tests.store.conftest import Opener


async def row(store: Store, name: str = "a.hdf5") -> FileRow | None:
    return await store.read(lambda conn: file_queue.find(conn, "cloud", name))


async def enqueued(store: Store, replace: str = "") -> FileRow:
    return await store.ride(lambda tx: file_queue.enqueue(tx, "cloud", "a.hdf5", replace))


async def test_a_file_is_queued_claimed_and_settled(opened: Opener) -> None:
    async with opened() as store:
        first = await enqueued(store)
        assert (first.due, first.revision, first.intent, first.md5) == (1, 1, "", "")
        await store.ride(lambda tx: file_queue.intend(tx, "cloud", "a.hdf5", "m1"))
    async with opened() as store:
        kept = await row(store)
        assert kept is not None and (kept.due, kept.intent) == (1, "m1")
        sent = kept._replace(due=0, md5="m1", size=7, etag="e1", remote_id="r1", stored_us=5, local="l1")
        await store.ride(lambda tx: file_queue.settle(tx, "cloud", sent))
        assert await row(store) == sent
        await store.ride(lambda tx: file_queue.mark(tx, "cloud", kept, CHANGED))
        assert await row(store) == sent, "what was listed before it was sent marks nothing"
        await store.ride(lambda tx: file_queue.mark(tx, "cloud", sent, CHANGED))
        assert await row(store) == sent._replace(remote=CHANGED)
        again = await enqueued(store)
        assert (again.due, again.revision, again.remote, again.md5) == (1, 2, "", "m1")


async def test_what_is_asked_for_while_it_is_sent_stays_due(store: Store) -> None:
    first = await enqueued(store)
    await enqueued(store, replace="r9")
    sent = first._replace(due=0, md5="m1", remote_id="r1")
    await store.ride(lambda tx: file_queue.settle(tx, "cloud", sent))
    after = await row(store)
    assert after is not None
    assert (after.due, after.replace, after.md5, after.remote_id) == (1, "r9", "m1", "r1")
    await store.ride(lambda tx: file_queue.settle(tx, "cloud", after._replace(due=0)))
    settled = await row(store)
    assert settled is not None and (settled.due, settled.replace) == (0, "")


async def test_only_what_was_never_delivered_leaves_a_gap(store: Store) -> None:
    first = await enqueued(store)
    await store.ride(lambda tx: file_queue.enqueue(tx, "cloud", "b.hdf5"))
    await store.ride(lambda tx: file_queue.settle(tx, "cloud", first._replace(due=0, md5="m1")))
    for name, due in (("a.hdf5", False), ("b.hdf5", True)):
        known = await store.ride(lambda tx, name=name: file_queue.drop_everywhere(tx, name, f"{name}: gone"))  # type: ignore[misc]
        assert known == {"cloud": due}
    assert [(gap.upload, gap.reason) for _, gap in await store.gaps()] == [("cloud", "b.hdf5: gone")]
    assert not await store.read(lambda conn: file_queue.rows(conn, "cloud"))


async def test_an_upload_that_is_removed_says_which_files_it_never_got(store: Store) -> None:
    store.pin(["cloud", "other"])
    await enqueued(store)
    store.pin(["other"])
    await store.flush()
    (gap,) = [gap for _, gap in await store.gaps()]
    assert gap.upload == "cloud" and gap.reason.startswith("a.hdf5: the upload was removed")
    assert await row(store) is None


async def test_a_row_that_was_changed_is_noticed(opened: Opener) -> None:
    async with opened() as store:
        await enqueued(store)
        path = store.folder / "hot.db"
    assert await asyncio.to_thread(spoilt, path) == ["a row of its table file was changed"]


def spoilt(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as conn:
        assert list(changed_rows(conn)) == []
        conn.execute("UPDATE file SET due = 0")
        return list(changed_rows(conn))
