"""The control Push of a device that pushes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.controls.devices import Push, PushedSample
from gateway.model import Batch, Device, Flag, Receipt
from gateway.protocols import push
from gateway.store import deletes
from tests.api.plant import plant
from tests.opcua.recording import RecordingLink


@asynccontextmanager
async def pushing(
    link: RecordingLink, tags: dict[str, push.TagSettings] | None = None, **settings: int
) -> AsyncIterator[Push]:
    device = Device("box", tags or {}, {"": "gateway.yaml:3"})
    task = asyncio.create_task(push.run(device, push.Settings(**settings), link))
    try:
        await link.until(lambda: bool(link.controls))
        (control,) = link.controls
        assert isinstance(control, Push)
        yield control
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_answers_after_commit_with_the_clients_time(tmp_path: Path) -> None:
    link = RecordingLink("box", tmp_path, commit_s=0.2)
    async with pushing(link) as control:
        samples = [PushedSample("a", 1.5, 1_000), PushedSample("b", "x", -5, status=0x40000000)]
        receipt = await control.push(samples)
        assert receipt == Receipt(2, 0, 0)
        assert link.rows() == {("a", 1_000, 1.5), ("b", -5, "x")}
        assert [sample.status for sample in link.committed] == [0, 0x40000000]
        assert link.runs[0].kind == "push" and link.runs[0].samples == 2
        await control.push([PushedSample("a", 2)])
        assert link.committed[-1].flags == Flag.OWN_TIME


async def test_listed_tags_are_scaled_and_others_refused(tmp_path: Path) -> None:
    link = RecordingLink("box", tmp_path)
    listed = {"a": push.TagSettings(unit="bar", scale=2.0, offset=1.0)}
    async with pushing(link, listed) as control:
        await control.push([PushedSample("a", 3, 1)])
        assert link.rows() == {("a", 1, 7.0)} and link.units == {"a": "bar"}
        with pytest.raises(ValueError, match=r"device box has no tag 'c'.*gateway\.yaml:3"):
            await control.push([PushedSample("a", 3, 2), PushedSample("c", 3, 2)])
        assert len(link.committed) == 1


async def test_more_tags_than_allowed_are_refused_and_nothing_is_half_stored(tmp_path: Path) -> None:
    link = RecordingLink("box", tmp_path)
    link.tag("of_before")
    async with pushing(link, max_tags=3) as control:
        await control.push([PushedSample("a", 1, 1)])
        refused = [PushedSample("a", 2, 2), PushedSample("b", 2, 2), PushedSample("c", 2, 2)]
        with pytest.raises(
            ValueError, match=r"box takes at most 3 tags \(max_tags\), has 2, and 'b' is none"
        ):
            await control.push(refused)
        assert link.rows() == {("a", 1, 1)} and set(link.tags) == {"of_before", "a"}
        await control.push([*refused[:2], PushedSample("of_before", 2, 2)])
        with pytest.raises(ValueError, match="max_tags"):
            await control.push(refused[2:])
    assert set(link.tags) == {"of_before", "a", "b"}


async def test_listed_tags_are_no_more_than_they_are(tmp_path: Path) -> None:
    listed = {name: push.TagSettings() for name in "abc"}
    async with pushing(RecordingLink("box", tmp_path), listed, max_tags=1) as control:
        await control.push([PushedSample(name, 1, 1) for name in "abc"])


async def test_a_large_push_leaves_turns_to_others(tmp_path: Path) -> None:
    link, turns = RecordingLink("box", tmp_path), 0
    emit = link.emit

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def emitted(batch: Batch) -> object:
        other.cancel()  # what counts is the turns before there is anything to wait for
        return await emit(batch)

    link.emit = emitted  # type: ignore[method-assign, assignment]
    async with pushing(link, max_tags=20_000) as control:
        other = asyncio.create_task(others())
        await control.push([PushedSample(f"t{n}", 1.0, n) for n in range(20_000)])
    assert turns >= 40


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\0", "\x9f", "a\ud800"])
async def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    link = RecordingLink("box", tmp_path)
    async with pushing(link) as control:
        with pytest.raises(ValueError, match="tag name"):
            await control.push([PushedSample("good", 1, 1), PushedSample(name, 1, 1)])
        assert not link.names and not link.committed


async def test_too_many_at_once(tmp_path: Path) -> None:
    link = RecordingLink("box", tmp_path)
    async with pushing(link, max_batch=2) as control:
        with pytest.raises(ValueError, match="at most 2"):
            await control.push([PushedSample("a", 1, n) for n in range(3)])


@pytest.mark.parametrize("full", [True, False])
async def test_no_room_or_no_commit_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    monkeypatch.setattr(push, "_PATIENCE_S", 0.2)
    link = RecordingLink("box", tmp_path, commit_s=5.0)
    if full:
        link.full.clear()
    async with pushing(link) as control:
        with pytest.raises(TimeoutError):
            await control.push([PushedSample("a", 1, 1)])


async def test_who_waits_is_answered_in_time_whatever_the_commit_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push._UNHURRIED_S <= push._PATIENCE_S / 2
    monkeypatch.setattr(push, "_UNHURRIED_S", 0.1)
    monkeypatch.setattr(push, "_PATIENCE_S", 4.0)
    monkeypatch.setattr(deletes, "_UNHURRIED_S", 0.1)
    async with plant(tmp_path, commit_interval_s=60) as gateway:
        box = gateway.devices["box"]
        control = box.control(Push)
        assert control is not None
        for n in range(3):
            assert await control.push([PushedSample("a", 1, n)]) == Receipt(1, 0, 0)
        async with asyncio.timeout(4):
            made = await gateway.store.delete(box.tags["a"], "a test")
        assert made is not None and made.count == 3


async def test_a_commit_is_not_hurried_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit wears the flash: that is what a long interval is for."""
    link, hurried = RecordingLink("box", tmp_path, commit_s=0.1), list[None]()
    monkeypatch.setattr(link, "hurry", lambda: hurried.append(None))
    monkeypatch.setattr(push, "_UNHURRIED_S", 0.4)
    async with pushing(link) as control:
        await control.push([PushedSample("a", 1, 1)])
        await asyncio.sleep(0.5)
    assert not hurried
