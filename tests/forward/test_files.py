"""Files of measurements to a dataspace, in both dialects: exactly one object with the right bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.controls.files import RemoteFile
from gateway.forward import FileLane
from gateway.forward import files as files_module
from gateway.model import UploadProblem
from gateway.store import Store, file_queue
from gateway.uploaders import dataspace
from tests.forward.folder import (
    DIALECTS,
    Folder,
    file_settings,
    state_of,
    the_only_object,
    until_state,
    uploading,
)
from tests.forward.plant import Plant, check_ledger, delivered, open_store, until
from tests.peers.receiver import Receiver, receiver

NAME = "run__gw-1__2026-11-21_10-00-00Z.hdf5"
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "files").mkdir()
    return Folder(tmp_path / "files")


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.seed_row(35, 40)
async def test_a_file_that_is_written_arrives_and_what_is_changed_takes_its_place(
    store: Store, peer: Receiver, folder: Folder, dialect: str
) -> None:
    first = folder.write(NAME)
    async with uploading(store, folder, file_settings(peer, dialect, virtual_group_root="root")) as (lane, _):
        state = await until_state(lane, NAME, "up_to_date")
        assert state.remote_id and state.uploaded_us and not state.queued
        await the_only_object(peer, NAME, first)
        changed = folder.write(NAME, seed=2)
        await until(lambda: _has(peer, changed), "the changed file", 20)
        await until_state(lane, NAME, "up_to_date")
        await the_only_object(peer, NAME, changed)
        (there,) = (await lane.listed(10)).files
        assert there.name == NAME and there.size == 300_000
        if dialect == "management":
            assert there.metadata["pre_metadata"] == {"profile": "turning"}
            assert there.listed["virtual_group"] == "root/turning"
        assert lane.status.delivered == 2 and lane.status.reachable.healthy
    assert [file["stores"] for file in await peer.files()] == [2]


async def _has(peer: Receiver, md5: str) -> bool:
    return any(file["etag"] == md5 for file in await peer.files())


FAULTS: dict[str, dict[str, Any]] = {
    "the connection is cut": {"cut": 2},
    "403 at the storage": {"answers": [{"status": 403, "path": "/storage", "count": 2}]},
    "500 at the storage": {"answers": [{"status": 500, "path": "/storage", "count": 2}]},
    "500 at the announcement": {"answers": [{"status": 500, "path": "/management", "count": 2}]},
    "503 at the older announcement": {"answers": [{"status": 503, "path": "/s3/presigned", "count": 2}]},
    "the answer to the bytes is lost": {"forget": 1},
    "the answer to the bytes is cut": {"truncate": 1},
    "the answer to the announcement is lost": {"mute": "POST /management/files"},
    "the answer to the older announcement is lost": {"mute": "GET /s3/presigned-upload"},
    "the answer to the list is lost": {"mute": "GET /management/files"},
    "the tokens end all the time": {"token_requests": 2},
    "nothing answers for a while": {"hang": 1},
}


@pytest.mark.seed_row(39)
async def test_whatever_fails_there_is_one_object_with_the_right_bytes(
    store: Store, peer: Receiver, folder: Folder, dialect: str
) -> None:
    async with uploading(store, folder, file_settings(peer, dialect, timeout_s=2.0)) as (lane, _):
        for number, (fault, told) in enumerate(FAULTS.items()):
            name = f"{fault.replace(' ', '_')}.hdf5"
            await peer.faults(reset=True, **told)
            md5 = folder.write(name, seed=number)
            await until_state(lane, name, "up_to_date")
            await the_only_object(peer, name, md5)
            (stores,) = [file["stores"] for file in await peer.files() if file["name"] == name]
            assert stores == 1, f"{fault}: bytes that were there already were sent again"


async def test_an_answer_is_not_believed_where_the_target_has_other_bytes(
    store: Store, peer: Receiver, folder: Folder, dialect: str
) -> None:
    await peer.faults(garble=1)
    md5 = folder.write(NAME)
    async with uploading(store, folder, file_settings(peer, dialect)) as (lane, _):
        await until_state(lane, NAME, "up_to_date")
        await the_only_object(peer, NAME, md5)
        assert lane.status.failures == 1


async def test_what_is_changed_while_it_is_sent_is_sent_again(
    store: Store, peer: Receiver, folder: Folder
) -> None:
    await peer.faults(hold=NAME)
    folder.write(NAME, size=3_000_000)
    async with uploading(store, folder, file_settings(peer)) as (lane, _):
        await until_state(lane, NAME, "updating")
        await until(lambda: _sent_some(lane), "some of it", 20)
        changed = folder.write(NAME, seed=2)
        await peer.faults(hold="")
        await until(lambda: _has(peer, changed), "the change", 20)
        await until_state(lane, NAME, "up_to_date")
        await the_only_object(peer, NAME, changed)


async def _sent_some(lane: FileLane) -> bool:
    return (await state_of(lane, NAME)).sent_bytes > 0


async def test_the_promise_is_broken_by_an_uploader_that_does_not_look(
    store: Store, peer: Receiver, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: each attempt makes a file anew, at a dataspace that lets it."""

    async def blind(self: dataspace.Target, file: Any) -> RemoteFile | None:
        found = [each async for each in self.files() if each.name == file.name and each.stored]
        return found[-1] if len(found) > 1 else None

    monkeypatch.setattr(dataspace.Target, "_there", blind)
    await peer.faults(dedupe=False, forget=1)
    md5 = folder.write(NAME)
    async with uploading(store, folder, file_settings(peer)) as (lane, _):
        await until_state(lane, NAME, "up_to_date")
        with pytest.raises(AssertionError):
            await the_only_object(peer, NAME, md5)


async def test_a_failure_is_told_and_a_bad_file_holds_up_no_other(
    store: Store, peer: Receiver, folder: Folder
) -> None:
    """Another file of the name is there, which nobody said to replace."""
    theirs = Folder(folder.path_of)
    theirs.write("notes.hdf5", seed=7)
    async with dataspace.open("x", file_settings(peer), None) as outlet:  # type: ignore[arg-type]
        address = await outlet.controls[0]._dialect.address(  # type: ignore[attr-defined]
            dataspace.NewFile("x/notes.hdf5", "notes.hdf5", "", "somebody", {}, None), None
        )
        await outlet.controls[0]._account.put(address, b"theirs")  # type: ignore[attr-defined]
    folder.write("notes.hdf5", seed=8)
    async with uploading(store, folder, file_settings(peer)) as (lane, forwarder):
        state = await until_state(lane, "notes.hdf5", "error")
        assert "did not put there" in state.detail and state.queued
        md5 = folder.write(NAME)
        await until_state(lane, NAME, "up_to_date")
        await the_only_object(peer, NAME, md5)
        status = forwarder.status()
        assert status.files is not None and (status.files.waiting, status.files.failing) == (1, 1)
        there = {each.name: each for each in (await lane.listed(10)).files}
        replaced = await lane.send("notes.hdf5", there["notes.hdf5"].id, patience_s=20)
        assert (replaced.state, replaced.remote_id) == ("up_to_date", there["notes.hdf5"].id)
        assert len(await peer.files()) == 2


@pytest.mark.parametrize(("dialect", "files"), [("management", 600), ("s3", 8000)])
async def test_a_target_that_lists_more_than_one_answer_holds_still_takes_files(
    store: Store, peer: Receiver, folder: Folder, dialect: str, files: int
) -> None:
    """600 with metadata in pages, 8,000 in the one answer of the older dialect: each is more than 1 MiB."""
    peer.fill(files, {"pre_metadata": {"parameters": {f"parameter_{n}": "x" * 50 for n in range(40)}}})
    md5 = folder.write(NAME)
    async with uploading(store, folder, file_settings(peer, dialect)) as (lane, _):
        state = await until_state(lane, NAME, "up_to_date")
        await the_only_object(peer, NAME, md5)
        listing = await lane.listed(files + 1)
        assert {each.name for each in listing.files} == {NAME} | {f"f{n}.hdf5" for n in range(files)}
        assert (len(listing.files), listing.left_out) == (files + 1, 0)
        bounded = await lane.listed(100)
        assert (len(bounded.files), bounded.left_out) == (100, files - 99)
        assert (await state_of(lane, NAME)).remote_id == state.remote_id, "seen, though it is not shown"


@pytest.mark.seed_row(36)
async def test_what_others_do_at_the_target_is_told_and_left_to_a_person(
    store: Store, peer: Receiver, folder: Folder, dialect: str
) -> None:
    md5 = folder.write(NAME)
    async with uploading(store, folder, file_settings(peer, dialect)) as (lane, _):
        await until_state(lane, NAME, "up_to_date")
        peer.spoil(NAME, etag="0" * 32)
        assert (await lane.listed(10)).files[0].name == NAME
        assert "other bytes" in (await state_of(lane, NAME)).detail
        assert (await state_of(lane, NAME)).state == "outdated"
        assert (await lane.send(NAME, patience_s=20)).state == "up_to_date"
        await the_only_object(peer, NAME, md5)
        peer.spoil(NAME)
        await lane.listed(10)
        gone = await state_of(lane, NAME)
        assert gone.state == "not_uploaded" and "no more" in gone.detail and not gone.remote_id
        assert (await lane.send(NAME, patience_s=20)).state == "up_to_date"


@pytest.mark.seed_row(36)
async def test_a_file_that_others_announce_once_more_is_told_as_created(
    store: Store, peer: Receiver, folder: Folder
) -> None:
    """In the dialect of 0.1.2 nothing is announced."""
    md5 = folder.write(NAME)
    async with uploading(store, folder, file_settings(peer)) as (lane, _):
        remote_id = (await until_state(lane, NAME, "up_to_date")).remote_id
        peer.announce(NAME)
        await lane.listed(10)
        state = await state_of(lane, NAME)
        assert (state.state, state.remote_id) == ("created", remote_id) and "no bytes" in state.detail
        assert (await lane.send(NAME, patience_s=20)).state == "up_to_date"
        await the_only_object(peer, NAME, md5)


async def test_a_restart_resumes_and_a_new_upload_gets_what_there_is(
    tmp_path: Path, peer: Receiver, folder: Folder, dialect: str
) -> None:
    md5 = folder.write(NAME)
    await peer.faults(answers=[{"status": 503, "path": "/storage", "count": -1}])
    settings = file_settings(peer, dialect)
    async with open_store(tmp_path / "s") as store, uploading(store, folder, settings) as (lane, _):
        await until_state(lane, NAME, "error")
    await peer.faults(reset=True)
    folder.names.clear()  # the queue alone knows of it
    async with open_store(tmp_path / "s") as store, uploading(store, folder, settings) as (lane, _):
        await until_state(lane, NAME, "up_to_date")
    await the_only_object(peer, NAME, md5)


async def test_files_that_are_only_sent_on_demand(store: Store, peer: Receiver, folder: Folder) -> None:
    folder.write(NAME)
    (folder.path_of / "foreign.hdf5").write_bytes(b"x" * 1000)
    async with uploading(store, folder, file_settings(peer, measurements=False)) as (lane, _):
        assert (await lane.send("foreign.hdf5", patience_s=20)).state == "up_to_date"
        assert [file["name"] for file in await peer.files()] == ["foreign.hdf5"]
        (folder.path_of / "foreign.hdf5").write_bytes(b"y" * 1000)
        for told in folder.listeners:
            told()
        await until(lambda: _stored(peer, "foreign.hdf5", 2), "the change", 20)


async def _stored(peer: Receiver, name: str, times: int) -> bool:
    return any(file["name"] == name and file["stores"] == times for file in await peer.files())


async def test_a_file_that_is_removed_first_leaves_a_gap_record(
    store: Store, peer: Receiver, folder: Folder
) -> None:
    await peer.faults(answers=[{"status": 503, "path": "/storage", "count": -1}])
    folder.write(NAME)
    async with uploading(store, folder, file_settings(peer)) as (lane, _):
        await until_state(lane, NAME, "error")
        (folder.path_of / NAME).unlink()
        folder.names.clear()
        await until(lambda: _empty(store), "forgotten", 20)
    (gap,) = [gap for _, gap in await store.gaps()]
    assert gap.upload == "cloud" and NAME in gap.reason and "deleted" in gap.reason


async def _empty(store: Store) -> bool:
    return not await store.read(lambda conn: file_queue.rows(conn, "cloud"))


@pytest.mark.seed_row(38)
async def test_a_dead_dataspace_delays_no_live_samples_elsewhere_and_comes_back_by_itself(
    tmp_path: Path,
    store: Store,
    folder: Folder,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files_module, "CHECK_S", 0.2)
    async with receiver(free_port(), tmp_path / "d", started=False) as peer:
        md5 = folder.write(NAME)
        async with uploading(store, folder, file_settings(peer)) as (lane, forwarder):
            await until(lambda: lane.reachable.healthy is False, "told to be down", 20)
            assert "could not be reached" in lane.reachable.detail
            with pytest.raises(UploadProblem):
                await lane.listed(10)
            await peer.start()
            await until_state(lane, NAME, "up_to_date")
            await until(lambda: lane.reachable.healthy is True, "told to be up", 20)
            await peer.kill()
            await until(lambda: lane.reachable.healthy is False, "told to be down again", 20)
            await peer.start()
            await until(lambda: lane.reachable.healthy is True, "told to be up again", 20)
            await the_only_object(peer, NAME, md5)
            assert forwarder.turned_ns > 0


async def test_live_samples_arrive_while_a_file_is_held_up(
    store: Store, peer: Receiver, folder: Folder
) -> None:
    """The storage takes files and does not answer: units to the same target go on, for nothing waits."""
    plant = Plant(store)
    folder.write(NAME, size=3_000_000)
    await peer.faults(cut=0, hold=NAME)
    async with uploading(store, folder, file_settings(peer, timeout_s=20.0)) as (lane, forwarder):
        await until_state(lane, NAME, "updating")
        for _ in range(5):
            await plant.write(10)
        await until(lambda: delivered(peer, plant), "the samples", 20)
        assert (await state_of(lane, NAME)).state == "updating"
        await peer.faults(hold="")
        await until_state(lane, NAME, "up_to_date")
    check_ledger(plant, await peer.samples())
    assert forwarder.counters.failures == 0
