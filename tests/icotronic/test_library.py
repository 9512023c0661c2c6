"""A foreign client at our simulated STU, so that it and our own client do not only agree with each other."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.canbus.frames import matching
from gateway.controls.sensor_nodes import AdcConfiguration, SensorMap
from gateway.protocols.icotronic import messages
from gateway.protocols.icotronic.messages import bluetooth
from tests.icotronic.library import FRAMES
from tests.icotronic.plant import CHUCK, MAC_OF, OLD_TOOL, SPINDLE, expected


async def _started(*module: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module, stdout=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})}
    )


@pytest.mark.timeout(60)
async def test_the_icotronic_library_works_with_the_simulated_stu(tmp_path: Path) -> None:
    simulator = await _started("gateway.demo.bus", "--port", "0")
    assert simulator.stdout is not None
    try:
        port = (await simulator.stdout.readline()).decode().split()[1].strip(",")
        library = await _started("tests.icotronic.library", port, env={"HOME": str(tmp_path)})
        output, _ = await library.communicate()
    finally:
        simulator.terminate()
        await simulator.wait()
    assert library.returncode == 0
    said = json.loads(output)
    assert said["stu"] == ["STU", "08-6B-D7-01-DE-10", "2.1.10"] and said["connected"] is False
    names = (SPINDLE, CHUCK, OLD_TOOL)
    assert said["found"] == [
        [n, name, MAC_OF[name], rssi]
        for n, (name, rssi) in enumerate(zip(names, (-51, -64, -72), strict=True))
    ]
    for n, (name, node) in enumerate(zip(names, said["nodes"], strict=True), 1):
        assert (node["name"], node["renamed"], node["mac"]) == (name, f"{name}X"[:8], MAC_OF[name])
        assert node["voltage"] == pytest.approx((11_000 - 500 * n) * 5.7 * 3.3 / 65_535)
        assert node["rate"] == pytest.approx(38_400_000 / (3 * 21 * 256))
        assert node["sensors"] == ("unsupported" if name == OLD_TOOL else [3, 2, 1])
        sensors = (1, 2, 3) if name == OLD_TOOL else (3, 2, 1)
        for stream in node["streams"]:
            assert stream["lost"] == 0 and stream["loss"] == 0
            assert stream["counters"] == [k % 256 for k in range(FRAMES)]
            assert stream["values"] == expected(stream["channels"], sensors, range(FRAMES))


# -- our messages beside the library's, byte for byte -----------------------------------------------------


@pytest.fixture
def quiet_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def _identifier(**fields: Any) -> Any:
    from icotronic.can.protocol.identifier import Identifier

    return Identifier(**fields)


@pytest.mark.filterwarnings("ignore")  # what the library leaves open when it is imported
@pytest.mark.usefixtures("quiet_home")
def test_identifiers_are_those_of_the_library() -> None:
    cases = [
        (bluetooth("x", messages.STU, 1), "System", "Bluetooth", "STU 1"),
        (bluetooth("x", messages.STH, 5), "System", "Bluetooth", "STH 1"),
        (
            messages.Request("x", 0x28, 0x00, messages.STH),
            "Configuration",
            "Get/Set ADC Configuration",
            "STH 1",
        ),
        (messages.Request("x", 0x04, 0x00, messages.STH), "Streaming", "Data", "STH 1"),
        (messages.Request("x", 0x04, 0x20, messages.STH), "Streaming", "Voltage", "STH 1"),
        (messages.Request("x", 0x3E, 0x02, messages.STU), "Product Data", "Firmware Version", "STU 1"),
        (messages.Request("x", 0x00, 0x02, messages.STU), "System", "Get/Set State", "STU 1"),
    ]
    for ours, block, command, receiver in cases:
        theirs = _identifier(
            block=block, block_command=command, sender="SPU 1", receiver=receiver, request=True
        )
        assert ours.can_id == messages.EXTENDED | theirs.value
        assert ours.ack_id == messages.EXTENDED | theirs.acknowledge().value
        assert ours.error_id == messages.EXTENDED | theirs.acknowledge(error=True).value
    # The examples of the protocol's document.
    assert (cases[0][0].can_id, cases[0][0].ack_id, cases[0][0].error_id) == (
        0x8002E3D1,
        0x8002C44F,
        0x8002D44F,
    )
    assert messages.DATA_ID == 0x8100004F


@pytest.mark.filterwarnings("ignore")  # what the library leaves open when it is imported
@pytest.mark.usefixtures("quiet_home")
def test_adc_configurations_and_stream_formats_are_those_of_the_library() -> None:
    from icotronic.can.adc import ADCConfiguration
    from icotronic.can.streaming import StreamingConfiguration, StreamingFormat

    for cycles in AdcConfiguration.ACQUISITION_TIMES:
        for oversampling in AdcConfiguration.OVERSAMPLING_RATES:
            for voltage in AdcConfiguration.REFERENCE_VOLTAGES_V:
                ours = AdcConfiguration(100, cycles, oversampling, voltage)
                theirs = ADCConfiguration(
                    set=True, prescaler=100, acquisition_time=cycles, oversampling_rate=oversampling,
                    reference_voltage=voltage,
                )  # fmt: skip
                assert messages.adc_bytes(ours) == bytes(theirs.data)
                assert messages.adc_configuration(bytes(theirs.data)) == ours
                assert ours.sample_rate_hz == theirs.sample_rate()
    for channels in ((True, False, False), (False, True, True), (True, True, True)):
        sets = 3 if sum(channels) == 1 else 1
        theirs = StreamingFormat(channels=StreamingConfiguration(*channels), streaming=True, sets=sets)
        assert messages.stream_format(channels) == theirs.value


def test_a_mac_is_taken_as_people_write_it() -> None:
    for text in ("08-6B-D7-01-DE-81", "08:6b:d7:01:de:81", "086bd701de81"):
        assert messages.as_mac(text) == "08-6B-D7-01-DE-81"
    for text in ("Spindle", "08-6B:D7-01-DE-81", "08-6B-D7-01-DE", "08-6B-D7-01-DE-8G", ""):
        assert messages.as_mac(text) is None
    assert messages.mac_text(bytes((17, 0, 0x81, 0xDE, 0x01, 0xD7, 0x6B, 0x08))) == "08-6B-D7-01-DE-81"


def test_the_payload_of_a_sensor_map() -> None:
    sensors: SensorMap = (4, 0, 255)
    assert messages.sensor_map_bytes(sensors) == bytes((0x80, 4, 0, 255, 0, 0, 0, 0))


# -- what comes by radio is not to be trusted -------------------------------------------------------------


def test_a_name_cannot_write_into_the_log() -> None:
    assert messages.text(b"a\nb\x1b[0m") == "a\ufffdb\ufffd[0m"
    assert messages.text(b"\xff\xfeSTH\0rest") == "\ufffd\ufffdSTH"
    assert messages.text("Fräse".encode()) == "Fräse" and messages.text(bytes(8)) == ""


def test_an_acknowledgement_that_is_too_short_or_too_long_is_none() -> None:
    mac, rssi = (bluetooth("x", messages.STU, sub, 1) for sub in (messages.MAC, messages.RSSI))
    assert mac.answered_by(bytes((17, 9, 1, 2, 3, 4, 5, 6))) and not mac.answered_by(
        bytes((17, 9, 1, 2, 3, 4, 5))
    )
    assert rssi.answered_by(bytes((12, 1, 200))) and not rssi.answered_by(bytes((12, 1)))
    assert not rssi.answered_by(bytes((12, 2, 200))) and not rssi.answered_by(b"")
    stop = messages.Request("x", 0x04, 0x00, messages.STH, b"\x80", (0x80,), most=1)
    assert stop.answered_by(b"\x80") and not stop.answered_by(b"\x80\0\0\0") and not stop.answered_by(b"")


def test_the_filters_pass_what_is_for_us_and_nothing_else() -> None:
    passes = matching(messages.FILTERS)
    for request in (bluetooth("x", messages.STU, 1), messages.Request("x", 0x04, 0x00, messages.STH)):
        assert passes(request.ack_id) and passes(request.error_id)
        assert not passes(request.can_id), "our own requests, from another socket"
        assert not passes(request.ack_id & ~messages.EXTENDED), "an 11-bit id"
        assert not passes(request.ack_id ^ 1), "an answer to another SPU"
        assert not passes(request.ack_id ^ 1 << 6), "an answer of another node"
    assert passes(messages.DATA_ID)
    assert not passes(messages.EXTENDED | 0x18FEF100) and not passes(messages.EXTENDED | 0x1CEBFF4F)
