"""Rows of the seeds' feature table that ask for more than the tests of the contract see."""

import asyncio
import hashlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.measurements.plan import Conversion
from tests.api.test_cloud import add_upload
from tests.forward.folder import file_settings, the_only_object
from tests.icoapi.bench import Contract, until
from tests.icoapi.test_contract_cloud import REMOTE, becomes, status
from tests.icoapi.test_contract_files import measured
from tests.icoapi.test_contract_nodes import connect, streamed
from tests.icotronic.plant import SPINDLE
from tests.measurements.reading import ADXL1001
from tests.peers.receiver import receiver

Port = Callable[[], int]
BARE = pytest.mark.parametrize("ico", ["bare"], indirect=True)


@pytest.mark.seed_row(15)
def test_the_middle_of_the_scale_is_nearly_0_g() -> None:
    (value,) = Conversion.of(ADXL1001, 3.3).values([32768])
    assert value == pytest.approx(0.0019, abs=0.00005)


@pytest.mark.seed_row(16)
def test_the_sample_rate_is_that_of_the_formula() -> None:
    settings = itertools.product((1, 2, 5, 127), (1, 4, 8, 64, 256), (1, 64, 4096))
    for prescaler, acquisition, oversampling in settings:
        adc = AdcConfiguration(prescaler, acquisition, oversampling)
        expected = 38_400_000 / ((prescaler + 1) * (acquisition + 13) * oversampling)
        assert adc.sample_rate_hz == pytest.approx(expected, rel=1e-12)
    assert AdcConfiguration(2, 8, 64).sample_rate_hz == pytest.approx(9523.8, abs=0.05)


@pytest.mark.seed_row(18)
@pytest.mark.timeout(60)
@pytest.mark.parametrize("percent", [1, 10, 50])
@BARE
async def test_the_stream_tells_the_loss_of_each_second_and_of_all(ico: Contract, percent: int) -> None:
    ico.stage.stu.faults.frame_loss = percent / 100
    await connect(ico)
    _, told = await streamed(ico, frames=4000)
    points = [point for message in told for point in message]
    losses = [point["dataloss"] for point in points if point["dataloss"] is not None]
    counted = ico.stage.node(SPINDLE).counted
    true = counted.lost / (counted.lost + counted.sent)
    assert losses[-1] == pytest.approx(true, abs=0.01) and true == pytest.approx(percent / 100, abs=0.03)
    assert len(losses) > 1 and all(0 <= each <= 1 for each in losses)
    counters = [point["counter"] for point in points if point["counter"] is not None][::3]
    lost = sum((after - before - 1) % 256 for before, after in itertools.pairwise(counters))
    assert losses[-1] == pytest.approx(lost / (lost + len(counters)), abs=0.01), (
        "by the counters, as ICOapi's"
    )


@pytest.mark.seed_row(37)
@pytest.mark.timeout(60)
@BARE
async def test_all_pages_are_listed_with_the_fields_that_are_known(
    ico: Contract, tmp_path: Path, free_port: Port
) -> None:
    """ICOapi read the first page, and failed at a field that was new."""
    async with receiver(free_port(), tmp_path / "cloud") as peer:
        peer.fill(250, {"profile": "turning"})
        add_upload(ico.plant, "dataspace", file_settings(peer))
        await until(lambda: ico.plant.uploads["dataspace"].files.reachable.healthy)  # type: ignore[union-attr]
        listed = await ico.ask("GET", "/cloud")
        assert {each["name"] for each in listed} == {f"f{n}.hdf5" for n in range(250)} and len(listed) == 250
        assert all(each.keys() == REMOTE for each in listed)


@pytest.mark.seed_row(36)
@pytest.mark.timeout(90)
@BARE
async def test_the_status_of_a_file_follows_its_bytes_here_and_there(
    ico: Contract, tmp_path: Path, free_port: Port
) -> None:
    """ICOapi looked at the bytes only where the file here was the newer one."""
    name, other = await measured(ico), await measured(ico)
    path = ico.plant.measurements.folder / name
    assert (await status(ico, name))["status"] == "not_uploaded"
    async with receiver(free_port(), tmp_path / "cloud") as peer:
        await peer.faults(hold=name)
        lane = add_upload(ico.plant, "dataspace", file_settings(peer)).files
        assert lane is not None

        async def change(file: Path, end: bytes, mtime_s: float) -> str:
            data = (await asyncio.to_thread(file.read_bytes)) + end
            await asyncio.to_thread(file.write_bytes, data)
            os.utime(file, (mtime_s, mtime_s))
            lane.wake()
            return hashlib.md5(data).hexdigest()

        async def stores() -> list[int]:
            return [each["stores"] for each in await peer.files() if each["name"] == name]

        assert await becomes(ico, name, "updating") == {
            "status": "updating", "id": None, "upload_timestamp": None,
        }  # fmt: skip
        await peer.faults(reset=True)
        first = await becomes(ico, name, "up_to_date")
        await becomes(ico, other, "up_to_date")
        remote = {"filename": name, "file_id": first["id"]}

        # A newer time and the same bytes: nothing to send.
        await change(path, b"", time.time() + 100)
        assert (await becomes(ico, name, "up_to_date"))["id"] == first["id"]
        assert await stores() == [1]

        # Other bytes and an older time: outdated, for as long as the dataspace takes another file.
        await peer.faults(hold=other)
        await change(path.with_name(other), b"x", time.time())
        await becomes(ico, other, "updating")
        md5 = await change(path, b"x", time.time() - 10**6)
        for _ in range(3):
            assert (await status(ico, name))["status"] == "outdated"
        await peer.faults(reset=True)
        await becomes(ico, name, "up_to_date")
        await the_only_object(peer, name, md5)

        # Others wrote there, and others removed it there: told, and left alone until somebody asks.
        peer.spoil(name, etag="0" * 32)
        await ico.ask("GET", "/cloud")
        assert (await status(ico, name))["status"] == "outdated"
        assert (await ico.ask("POST", "/cloud/update", remote))["status"] == "up_to_date"
        await the_only_object(peer, name, md5)
        peer.spoil(name)
        await ico.ask("GET", "/cloud")
        gone = await status(ico, name)
        assert (gone["status"], gone["id"]) == ("not_uploaded", None)
        assert await ico.ask("POST", "/cloud/upload", {"filename": name}) is None
        assert (await status(ico, name))["status"] == "up_to_date"

        # It cannot be sent: an error, and it is what it was as soon as it can.
        await peer.faults(answers=[{"status": 403, "path": "/storage", "count": -1, "body": "expired"}])
        md5 = await change(path, b"y", time.time())
        await becomes(ico, name, "error")
        await peer.faults(reset=True)
        await becomes(ico, name, "up_to_date")
        await the_only_object(peer, name, md5)
