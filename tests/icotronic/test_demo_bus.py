"""The simulated bus itself, judged by others: cantools reads its press, python-can its socketcand server."""

import asyncio
import struct
from collections.abc import AsyncIterator

import can
import cantools
import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.demo.bus.__main__ import control
from gateway.demo.bus.bus import SimulatedBus
from gateway.demo.bus.frames import EXTENDED
from gateway.demo.bus.press import DATABASE, Press, force_kn, position_mm
from gateway.demo.bus.socketcand import serve
from gateway.demo.bus.stu import Stu


def test_the_press_sends_what_its_database_says() -> None:
    database = cantools.database.load_file(DATABASE)
    press = Press()
    frames = (
        press.due(100.0)
        + press.due(101.0)
        + [frame for n in range(1, 300) for frame in press.due(101 + n / 100)]
    )
    counts: dict[str, int] = {}
    zones = set()
    for at_s, can_id, data in frames:
        message = database.get_message_by_frame_id(can_id & 0x1FFFFFFF)
        assert message.is_extended_frame == bool(can_id & EXTENDED) and len(data) == message.length
        values = message.decode(data, decode_choices=False)
        counts[message.name] = counts.get(message.name, 0) + 1
        t_s = at_s - 100
        if message.name == "PressStatus":
            assert values["Force"] == pytest.approx(force_kn(t_s), abs=0.06)
            assert values["Position"] == pytest.approx(position_mm(t_s), abs=0.006)
            assert values["Alive"] == round(t_s * 100) % 16
            assert values["State"] == (3 if values["Force"] else 2 if t_s / 1.5 % 1 < 0.5 else 1)
        if message.name == "PressDrive":
            assert values["Torque"] == pytest.approx(12 + force_kn(t_s) / 10, rel=1e-6)
            assert values["Speed"] in (1410, 1450)
        if message.name == "PressTemperatures":
            zones |= values.keys() - {"Zone"}
    assert counts == {"PressStatus": 400, "PressDrive": 80, "PressTemperatures": 8, "PressCounters": 4}
    assert zones == {"Bearing", "Oil", "Motor", "Ambient"}


@pytest.fixture
async def bus() -> AsyncIterator[SimulatedBus]:
    bus = SimulatedBus([Stu(), Press()])
    passing = asyncio.create_task(bus.run())
    yield bus
    passing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await passing


async def test_python_can_reads_and_writes_the_bus_through_socketcand(bus: SimulatedBus) -> None:
    wanted = {0x120, 0x121, 0x18FEFF01, 0x0002C44F}

    def talk(port: int) -> set[int]:
        heard: set[int] = set()
        at = {"interface": "socketcand", "host": "127.0.0.1", "port": port, "channel": "can0"}
        with can.Bus(ignore_config=True, **at) as opened:
            opened.send(can.Message(arbitration_id=0x0002E3D1, data=[8, 0, 0, 0, 0, 0, 0, 0]))
            while not wanted <= heard:
                message = opened.recv(5.0)
                assert message is not None, f"nothing comes but {heard}"
                heard.add(message.arbitration_id)
        return heard

    async with serve(bus, 0) as port:
        assert wanted <= await asyncio.to_thread(talk, port)


async def test_the_server_answers_what_it_does_not_understand(bus: SimulatedBus) -> None:
    async with serve(bus, 0, "can7") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def answer(said: str) -> str:
            writer.write(said.encode())
            return (await reader.readuntil(b">")).decode()

        assert await answer("") == "< hi >"
        assert "error" in await answer("< open can0 >")
        assert "error" in await answer("< rawmode >")
        assert await answer("< echo >") == "< echo >"
        assert await answer("< open can7 >") == "< ok >"
        assert await answer("< rawmode >") == "< ok >"
        writer.write(b"< send 123 9 1 2 3 >< nonsense >")
        said = [await answer("") for _ in range(20)]
        assert any("error" in each for each in said) and any("frame 120" in each for each in said)
        writer.close()


async def test_every_listener_hears_the_others_but_not_itself(bus: SimulatedBus) -> None:
    first: list[int] = []
    second: list[int] = []

    def one(frames: object, _wall_us: int) -> None:
        first.extend(frame.can_id for frame in frames)  # type: ignore[attr-defined]

    bus.attach(one)
    detach = bus.attach(lambda frames, _wall_us: second.extend(frame.can_id for frame in frames))
    bus.send(0x7AB, b"\1", one)
    assert 0x7AB not in first and 0x7AB in second
    detach()
    bus.send(0x7AC, b"\1", one)
    assert 0x7AC not in second


async def test_faults_are_set_over_http() -> None:
    stu = Stu()
    async with TestClient(TestServer(control(stu))) as client:
        assert (await client.post("/faults", json={"frame_loss": 0.5, "mute": True})).status == 200
        assert stu.faults.frame_loss == 0.5 and stu.faults.mute
        assert (await client.post("/faults", json={"reset": True, "hang": True})).status == 200
        assert (stu.faults.frame_loss, stu.faults.mute, stu.faults.hang) == (0.0, False, True)
        refused = await client.post("/faults", json={"nonsense": 1})
        assert refused.status == 400 and "there are connect_s" in await refused.text()
        state = await (await client.get("/state")).json()
        assert list(state["nodes"]) == ["Spindle", "Chuck", "OldTool"] and state["connected"] is None


def test_a_request_of_the_protocols_document_is_answered_as_it_says() -> None:
    """Bluetooth, activate: request 0x0002E3D1, acknowledgement 0x0002C44F, error 0x0002D44F."""
    stu = Stu()
    stu.receive(1.0, EXTENDED | 0x0002E3D1, struct.pack("<BB6x", 1, 0))
    ((_, can_id, data),) = stu.due(1.0)
    assert (can_id, data) == (EXTENDED | 0x0002C44F, b"\1" + bytes(7))
    stu.faults.error_acks = 1
    stu.receive(1.1, EXTENDED | 0x0002E3D1, struct.pack("<BB6x", 1, 0))
    ((_, can_id, data),) = stu.due(1.1)
    assert (can_id, data) == (EXTENDED | 0x0002D44F, b"\2")
