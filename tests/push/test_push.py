"""The control Push of a device that pushes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.controls.devices import Push, PushedSample
from gateway.model import Device, Flag, Receipt
from gateway.protocols import push
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
