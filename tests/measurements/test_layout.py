"""The file in ICOtronic's layout: read by h5py, by PyTables and by the icotronic library; its metadata."""

import asyncio
import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tables

from gateway.controls.sensor_nodes import AdcConfiguration
from gateway.measurements import RAW, Channel, Measurement, MeasurementRefused, Plan, Sensor
from gateway.measurements.catalogue import Catalogue
from gateway.measurements.metadata import MOST_BYTES
from tests.measurements.conftest import Gateway
from tests.measurements.node import DEVICE, START_US, Node
from tests.measurements.reading import MASKS, SENSORS, attributes
from tests.measurements.test_measure import plan, recorded

PICTURE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 400).decode()
PRE = {
    "version": "1.0",
    "profile": "milling",
    "parameters": {
        "tool": "Fräser ⌀ 12", "speed": {"value": 1200, "unit": "1/min"},
        "before_pictures": {"0": PICTURE, "1": "x"},
    },
}  # fmt: skip
POST = {
    "version": "1.0",
    "profile": "milling",
    "parameters": {"breakage": True, "picture": {"0": PICTURE[:100]}},
}


def without(metadata: dict[str, Any], key: str) -> dict[str, Any]:
    parameters = {name: value for name, value in metadata["parameters"].items() if name != key}
    return metadata | {"parameters": parameters}


async def written(gateway: Gateway, node: Node, asked: Plan) -> tuple[Measurement, Path]:
    async with gateway.opened() as (measurements, _):
        m = await recorded(measurements, node, asked)
        return m, gateway.files / m.file


@pytest.mark.seed_row(21)
async def test_h5py_finds_the_documented_layout(gateway: Gateway, node: Node) -> None:
    node.configuration = AdcConfiguration(2, 16, 256, 1.8)
    odd = Sensor("µ" * 80, "n" * 120, "°C" * 6, "d", -1, 1, 0, 3.3)
    asked = Plan((Channel(1, SENSORS[0]), None, Channel(7, odd)), metadata=PRE)
    m, path = await written(gateway, node, asked)
    with h5py.File(path, "r") as file:
        assert file.attrs["TITLE"] == b"STH Measurement Data"
        table = file["acceleration"]
        assert {name: table.dtype[name].str for name in table.dtype.names} == {
            "counter": "|u1", "timestamp": "<u8", "x": "<f4", "z": "<f4",
        }  # fmt: skip
        assert (table.compression, table.compression_opts, table.shuffle) == ("gzip", 4, True)
        rows = file["sensors"][:]
        assert sorted(file) == ["acceleration", "pre__before_pictures", "sensors"]
        assert [bytes(each) for each in file["pre__before_pictures"]] == [PICTURE.encode(), b"x"]
    assert rows.dtype.names == (
        "name", "sensor_type", "sensor_id", "unit", "dimension", "phys_min", "phys_max", "volt_min",
        "volt_max", "scaling_factor", "offset",
    )  # fmt: skip
    assert rows.dtype["unit"].str == "|S10" and rows.dtype["name"].str == "|S100"
    assert rows["unit"].tolist() == [b"g", "°C°C°C".encode()], "cut between characters"
    assert rows["sensor_id"][1] == ("µ" * 50).encode() and rows["name"][1] == b"n" * 100
    np.testing.assert_allclose(rows["scaling_factor"], [200 / 2.64, 2 / 3.3], rtol=1e-6)
    np.testing.assert_allclose(rows["offset"], [100 - 200 / 2.64 * 2.97, 1 - 2], rtol=1e-6)
    there = attributes(path)
    assert there["conversion"] == "true" and there["adc_reference_voltage"] == "1.8"
    assert there["Sample_Rate"] == "1724.14 Hz (Prescaler: 2, Acquisition Time: 16, Oversampling Rate: 256)"
    start = datetime.fromisoformat(there["Start_Time"])
    assert start.utcoffset() is not None and start.timestamp() == pytest.approx(START_US / 1e6, abs=1e-5)
    assert json.loads(there["pre_metadata"]) == without(PRE, "before_pictures")
    assert "post_metadata" not in there and "interrupted" not in there
    assert there["node"] == m.node and there["node_mac"] == m.mac and there["gateway"] == "gw-1"


@pytest.mark.seed_row(21)
@pytest.mark.filterwarnings("ignore:Exception ignored in.*proc/stat")  # a library that icotronic imports
@pytest.mark.parametrize("mask", MASKS)
async def test_the_icotronic_library_and_pytables_read_it(
    gateway: Gateway, node: Node, mask: tuple[bool, bool, bool]
) -> None:
    from icotronic.measurement import Storage

    m, path = await written(gateway, node, plan(mask, metadata=PRE))
    with tables.open_file(path) as file:
        assert file.title == "STH Measurement Data"
        table = file.root.acceleration
        assert isinstance(table, tables.Table) and table.title == "STH Acceleration Data"
        assert table.colnames == [
            "counter",
            "timestamp",
            *(a for a, on in zip("xyz", mask, strict=True) if on),
        ]
        assert table.filters.complib == "zlib" and table.filters.complevel == 4 and table.filters.shuffle
        assert table.nrows == m.received * (3 if sum(mask) == 1 else 1)
        assert table.attrs["conversion"] == "true"
        assert json.loads(table.attrs["pre_metadata"]) == without(PRE, "before_pictures")
        assert file.root.sensors.read_where("phys_max > 39")["name"].size == sum(mask)
        assert file.root.pre__before_pictures.read().tolist() == [PICTURE.encode(), b"x"]
    with Storage(path) as data:
        assert data.axes == [axis for axis, on in zip("xyz", mask, strict=True) if on]
        if sum(mask) > 1:  # it takes the rows of one frame for frames that were lost
            assert data.dataloss_stats() == (m.received, 0)
        assert data.sampling_frequency() > 0 and data.measurement_time() > 0
        assert data["conversion"] == "true"


@pytest.mark.seed_row(22)
async def test_metadata_comes_before_the_file_or_long_after(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, _):
        m = await measurements.start(DEVICE, plan(metadata=PRE, wait_for_post_metadata=True))
        assert m.waits_for_metadata
        await measurements.post_metadata(m.name, POST)
        assert not m.waits_for_metadata
        await measurements.stop(DEVICE)
        await measurements.finished(m.name)
        path = gateway.files / m.file
        assert json.loads(attributes(path)["post_metadata"]) == without(POST, "picture")
        late = await recorded(measurements, node, plan(wait_for_post_metadata=True))
        assert late.state == "written" and late.waits_for_metadata, "the file does not wait"
        assert not [*gateway.files.glob(".*")]
    async with gateway.opened() as (measurements, _):
        (late,) = [each for each in measurements.listed() if each.waits_for_metadata]
        path = gateway.files / late.file
        before = path.stat().st_ino, attributes(path), h5py.File(path)["acceleration"][:]
        await measurements.post_metadata(late.name, POST)
        await measurements.finished(late.name)
        there = attributes(path)
        assert path.stat().st_ino != before[0], "another file took its place"
        assert json.loads(there.pop("post_metadata")) == without(POST, "picture")
        assert {name: str(value) for name, value in there.items()} == {
            name: str(value) for name, value in before[1].items()
        }
        with h5py.File(path) as file:
            assert np.array_equal(file["acceleration"][:], before[2])
            assert [bytes(each) for each in file["post__picture"]] == [PICTURE[:100].encode()]
        again = await measurements.post_metadata(late.name, {"version": "2", "parameters": {}})
        await measurements.finished(again.name)
        assert json.loads(attributes(path)["post_metadata"])["version"] == "2"
        with h5py.File(path) as file:
            assert sorted(file) == ["acceleration", "sensors"], "pictures go with what they belonged to"
    async with gateway.opened() as (measurements, _):
        assert not any(each.waits_for_metadata for each in measurements.listed())


async def test_metadata_that_was_taken_is_not_lost_with_the_process(gateway: Gateway, node: Node) -> None:
    async with gateway.opened() as (measurements, _):
        m = await recorded(measurements, node, plan())
        measurements._due.set = lambda: None  # type: ignore[method-assign]  # killed before it goes to the file
        await measurements.post_metadata(m.name, POST)
    async with gateway.opened() as (measurements, _):
        await measurements.finished(m.name)
        path = gateway.files / m.file
        assert json.loads(attributes(path)["post_metadata"]) == without(POST, "picture")


async def test_large_metadata_is_kept_or_refused(gateway: Gateway, node: Node) -> None:
    large = {"version": "1", "parameters": {"text": "ä" * 200_000}}
    async with gateway.opened() as (measurements, _):
        m = await recorded(measurements, node, plan(metadata=large))
        assert json.loads(attributes(gateway.files / m.file)["pre_metadata"]) == large
        with pytest.raises(ValueError, match=r"MB, at most 12\.6 MB are kept: send smaller"):
            await measurements.post_metadata(m.name, {"picture": "x" * MOST_BYTES})
        with pytest.raises(ValueError, match="no JSON"):
            await measurements.start(DEVICE, plan(metadata={"a": object()}))
        with pytest.raises(MeasurementRefused, match="no file of a measurement nobody"):
            await measurements.post_metadata("nobody", POST)
        skipped = await recorded(measurements, node, plan(wait_for_post_metadata=True))
        await measurements.post_metadata(skipped.name, None)
        assert not skipped.waits_for_metadata
    assert await asyncio.to_thread(lambda: len(list(gateway.files.iterdir()))) == 2


ODD = {
    "picture\ud800": "cut in the middle of a character", "picture\0a": "a", "picture\0b": "b",
    "a/picture": "slash", "a_picture": "line", "picture\0": "nul", "picture_": "line",
    "picture" + "ü" * 200: "long", "picture" + "ü" * 201: "longer",
}  # fmt: skip


async def test_parameters_with_odd_names_are_kept_all(gateway: Gateway, node: Node) -> None:
    given = {"version": "1", "parameters": {key: {"0": text} for key, text in ODD.items()}}
    given["parameters"] |= {"note": "half \ud83d", "b/picture": "no picture", "b_picture": {"0": "one"}}
    async with gateway.opened() as (measurements, store):
        m = await recorded(measurements, node, plan(metadata=given))
        path = gateway.files / m.file
        with h5py.File(path) as file:
            kept = {name: file[name][0].decode() for name in file if name.startswith("pre__")}
        assert sorted(kept.values()) == sorted([*ODD.values(), "one"])
        assert kept["pre__a_picture"] == "slash" and kept["pre__a_picture_2"] == "line"
        found = await Catalogue(measurements, store).metadata(m.file)
        assert {key: value for key, value in found["pre"]["parameters"].items() if "picture" not in key} == {
            "note": "half ?"
        }
        assert found["pre"]["parameters"]["b/picture"] == "no picture"


async def test_pictures_that_a_file_cannot_hold_are_refused_at_once(gateway: Gateway, node: Node) -> None:
    many = {f"picture {n}": {"0": "x"} for n in range(1001)}
    uneven = {"picture": {"0": "x" * 1_000_000} | {str(n): "" for n in range(1, 100)}}
    async with gateway.opened() as (measurements, _):
        for parameters, what in (
            (many, "has 1001 parameters with pictures"),
            (uneven, "would take 100.0 MB"),
        ):
            with pytest.raises(ValueError, match=what):
                await measurements.start(DEVICE, plan(metadata={"parameters": parameters}))


def test_what_cannot_be_is_said_in_a_sentence() -> None:
    for sensor, what in (((0, 0), "no range of volts"), ((0, float("inf")), "no range of volts")):
        with pytest.raises(ValueError, match=what):
            Sensor("a", "a", "g", "", 0, 1, *sensor)
    for channels, more, what in (
        ((None, None, None), {}, "no channel is active"),
        ((Channel(0), None, None), {}, "is 1 to 255"),
        ((Channel(1), None, None), {"duration_s": 0}, "cannot last 0 s"),
        ((Channel(1), None, None), {"duration_s": float("nan")}, "cannot last nan s"),
    ):
        with pytest.raises(ValueError, match=what):
            Plan(channels, **more)  # type: ignore[arg-type]
    assert RAW.scaling == pytest.approx(200 / 3.3) and RAW.offset == pytest.approx(-100)
