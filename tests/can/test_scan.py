"""What is on a bus: counted, compared with the databases, and as YAML to paste."""

import asyncio
import contextlib
import io
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import aiohttp
import can as python_can
import pytest

from gateway.__main__ import main
from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role
from gateway.canbus import EXTENDED, REMOTE, Frames
from gateway.config import load
from gateway.controls.devices import HeardId
from gateway.model import Device
from gateway.protocols import can
from gateway.protocols.can.census import Census
from gateway.protocols.can.hints import of_payloads
from gateway.protocols.can.loading import load as load_database
from gateway.protocols.can.matching import Matching
from tests.api.plant import Plant, plant
from tests.can.decoding import DATABASES, Bench, read
from tests.can.standin import Machine

pytestmark = pytest.mark.timeout(30)  # child processes on a busy machine
Pasted: TypeAlias = tuple[can.Settings, dict[str, can.TagSettings], str]
PLAIN = DATABASES / "plain.dbc"


def counted(*frames: tuple[int, int, bytes], database: str = "plain.dbc") -> dict[str, HeardId]:
    census = Census(Matching(read(database)))
    ts, ids, data = zip(*frames, strict=True)
    census.take(Frames(list(ts), list(ids), list(data)))
    return {each.id: each for each in census.heard()}


def test_rates_lengths_changes_and_values() -> None:
    frames = [(n * 20_000, 256, bytes([n // 5, 0x10, 0, 0, 0, 0, 0, 0])) for n in range(51)]
    frames += [(5, 257, b"\x01"), (6, 0x7F0, b"")]
    heard = counted(*frames)
    assert list(heard) == ["0x100", "0x101", "0x7F0"]
    engine = heard["0x100"]
    assert (engine.message, engine.frames, engine.rate_hz, engine.lengths, engine.changes) == (
        "EngineData", 51, pytest.approx(50.0), (8,), 10,
    )  # fmt: skip
    assert engine.values["Speed"] == (0x1000 + 10) * 0.25 and not engine.hints
    assert heard["0x101"].hints == ("1 bytes, the database says 3",)
    assert heard["0x101"].rate_hz is None
    assert heard["0x7F0"].message == ""


def test_pages_that_come_in_turn_are_all_shown() -> None:
    frames = [(n, 400, bytes([n % 2, 0, 100, 0, 0, 0, 0, 0])) for n in range(6)]
    values = counted(*frames, database="multiplexed.dbc")["0x190"].values
    assert {"Voltage", "Temperature", "Always"} <= values.keys()


def test_j1939_senders_and_canopen_nodes_are_recognised() -> None:
    heard = counted((0, 0x8CF00411, bytes(8)), (1, 0x98FECA03, bytes(8)), database="j1939.dbc")
    assert (heard["0x0CF00411"].message, heard["0x0CF00411"].source) == ("EEC1", 0x11)
    assert heard["0x18FECA03"].hints[0] == "if J1939: PGN 65226 (DM1, active faults) from 0x03"
    heard = counted((0, 0x185, bytes(8)), (1, 0x705, b"\x05"), (2, 0x081, bytes(8)), (3, 0x186, bytes(8)))
    assert heard["0x185"].hints == ("CANopen: TPDO1 of node 5",)
    assert heard["0x705"].hints == ("CANopen: heartbeat of node 5",)
    assert heard["0x081"].hints == heard["0x186"].hints == ()
    remote = counted((0, 0x100 | REMOTE, b""))["0x100"]
    assert remote.hints == ("remote frames: they ask for the frame of this id",) and not remote.message


def checksummed(n: int, rng: random.Random) -> bytes:
    body = bytes([0xAA, n % 256, (n * 3 % 16) << 4 | n % 16, 0, 0, 0, rng.randrange(256)])
    return body + bytes([sum(each * place for place, each in enumerate(body, 3)) & 0xFF])


def test_payloads_tell_what_moves() -> None:
    rng = random.Random(1)
    hints = list(of_payloads([checksummed(n, rng) for n in range(200)]))
    assert hints == [
        "moving bits: 8-23, 48-63", "counter: byte 1, byte 2 low half", "checksum? byte 7",
    ]  # fmt: skip
    assert not list(of_payloads([b"\x01\x02"] * 20))
    assert not list(of_payloads([b"\x01", b"\x02"]))
    assert "text?" in list(of_payloads([b"abcd", b"abce"] * 10))
    assert not [hint for hint in of_payloads([rng.randbytes(2) for _ in range(100)]) if "counter" in hint]


def test_a_flood_of_ids_is_counted_up_to_an_end() -> None:
    census = Census(Matching(read("plain.dbc")))
    census.take(Frames(list(range(5000)), [EXTENDED | n for n in range(5000)], [b""] * 5000))
    assert len(census.heard()) == 4096 and census.not_counted == 904


# -- the command --------------------------------------------------------------------------------------------


async def scan(*words: str) -> tuple[int, str, str]:
    """Return exit code, output and complaints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = await asyncio.to_thread(main, ["scan", *words])
    return code, out.getvalue(), err.getvalue()


@asynccontextmanager
async def talking(machine: Machine) -> AsyncIterator[None]:
    """Send to whoever listens, for as long as entered."""

    async def talk() -> None:
        n = 0
        while True:
            with contextlib.suppress(OSError):
                machine.send(256, bytes([n % 256, 0x10, 90, 1, 0, 0, 0, 0]))
                machine.send(0x5A5, bytes([n % 256, 7]))
                machine.send(0x98FEF111, bytes(8))
            n += 1
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(talk())
        yield
        task.cancel()


async def test_the_command_shows_a_bus(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    nowhere = str(tmp_path / "none.yaml")
    async with talking(machine):
        code, out, err = await scan("can0", "--seconds", "0.5", "--database", str(PLAIN), "--config", nowhere)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert list(lines) == ["0x100", "0x5A5", "0x18FEF111"]
    assert "EngineData" in lines["0x100"] and "Oil=5" in lines["0x100"] and "Gear=1" in lines["0x100"]
    assert "moving bits" in lines["0x5A5"] and "counter: byte 0" in lines["0x5A5"]
    assert "PGN 65265 (CCVS, vehicle speed) from 0x11" in lines["0x18FEF111"]
    assert "3 ids" in err and "2 ids that no database knows" in err
    assert "4 messages of the databases did not come: Extended, Short, Empty, NoSignals" in err
    assert machine.filters == []


async def test_yaml_to_paste_is_a_configuration(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    file = tmp_path / "gateway.yaml"
    async with talking(machine):
        words = "can0", "--seconds", "0.5", "--database", str(PLAIN), "--yaml", "--config", str(file)
        code, out, _ = await scan(*words)
    assert code == 0
    file.write_text(f"devices:\n{out}")
    device = (await asyncio.to_thread(load, file)).devices["can0"]
    bench = Bench(await load_database("can0", device.settings, {}), device.settings, device.device.tags)
    assert not bench.decoder.problems
    assert {"EngineData.Speed", "EngineData.Oil", "0x5A5.raw", "0x18FEF111.raw"} <= device.device.tags.keys()
    rows = bench.take((0, 256, bytes(8)), (1, 0x5A5, b"\x01"))
    assert ("EngineData.Oil", 0, -40.0, 0) in rows and ("0x5A5.raw", 1, b"\x01", 0) in rows


async def pasted(machine: Machine, file: Path, device: str, *frames: tuple[int, bytes]) -> Pasted:
    """Scan a device of a configuration while frames come; return what the YAML to paste is read as."""

    async def talk() -> None:
        while True:
            for can_id, data in frames:
                with contextlib.suppress(OSError):
                    machine.send(can_id, data)
            await asyncio.sleep(0.05)

    file.write_text(f"devices:\n  press:\n    can: {device}\n")
    before = (await asyncio.to_thread(load, file)).devices["press"].settings
    async with asyncio.TaskGroup() as group:
        talking = group.create_task(talk())
        code, out, err = await scan("press", "--seconds", "0.5", "--yaml", "--config", str(file))
        talking.cancel()
    assert code == 0, err
    file.write_text(f"devices:\n{out}")
    found = (await asyncio.to_thread(load, file)).devices["press"]
    assert found.settings == before
    return found.settings, found.device.tags, err


async def test_remote_frames_give_no_tag_beside_that_of_the_data(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    frames = (0x705 | REMOTE, b""), (0x705, b"\x05"), (0x123 | REMOTE, b"")
    _, tags, err = await pasted(
        machine, tmp_path / "gateway.yaml", "{channel: can0, raw_frames: unknown}", *frames
    )
    assert list(tags) == ["0x705.raw"]
    assert "1 ids that no database knows" in err


async def test_every_setting_of_a_scanned_device_is_kept(machine: Machine, tmp_path: Path) -> None:
    machine.plug("can7")
    eds = Path(__file__).parent / "axis.eds"
    device = (
        f"{{channel: can7, canopen: {{axis: {{node: 5, eds: {eds}}}}}, fd: true, data_bitrate: 2000000, "
        "bitrate: 500000, encoding: cp1252, keep_interval: 250ms, silence: 0s, raw_frames: all}"
    )
    _, tags, _ = await pasted(machine, tmp_path / "gateway.yaml", device, (0x705, b"\x05"))
    assert list(tags) == ["axis.Heartbeat.State"]
    bare = f"{{channel: can7, canopen: {{axis: {{node: 5, eds: {eds}}}}}}}"
    await pasted(machine, tmp_path / "gateway.yaml", bare, (0x705, b"\x05"))


def test_options_are_kept() -> None:
    from gateway.commands.scan import _flow

    settings = can.Settings(
        interface="slcan",
        channel="/dev/ttyACM0",
        raw_frames="all",
        options={"tty_baudrate": 115200, "a": "b"},
    )
    assert _flow(settings) == (
        '{interface: "slcan", channel: "/dev/ttyACM0", raw_frames: "all", '
        'options: {"tty_baudrate": 115200, "a": "b"}}'
    )


async def test_senders_and_messages_in_packets_of_j1939(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    database = DATABASES / "j1939.dbc"
    speed = [bytes([0xF0, 0xFF, 125, 0x80, high, 0, 0, 0]) for high in (0x3E, 0x1F)]
    vin = b"WDB9634031L123456*\x00\x00"
    packets = [bytes([n + 1]) + vin[7 * n : 7 * n + 7].ljust(7, b"\xff") for n in range(3)]
    frames = [
        (0x8CF00411, speed[0]), (0x8CF00400, speed[1]), (0x90F00400, speed[1]),
        (0x9CECFF10, bytes([32, 20, 0, 3, 0xFF, 0xEC, 0xFE, 0])), *((0x9CEBFF10, each) for each in packets),
    ]  # fmt: skip
    settings, tags, err = await pasted(
        machine, tmp_path / "gateway.yaml", f"{{channel: can0, database: {database}}}", *frames
    )
    assert "3 messages of the databases did not come: Request, Hours, Config" in err
    assert "0 ids that no database knows" in err
    assert not [tag for tag in tags if "raw" in tag]
    bench = Bench(read("j1939.dbc"), settings, tags)
    rows = bench.take(*((n, can_id, data) for n, (can_id, data) in enumerate(frames)))
    found = {tag: value for tag, _, value, _ in rows}
    assert (found["EEC1.EngineSpeed"], found["EEC1@0x11.EngineSpeed"]) == (1008.0, 2000.0)
    assert found["VIN.Text"] == vin
    assert not bench.decoder.sentences(0)


async def test_a_device_of_the_configuration_is_scanned_by_its_name(machine: Machine, tmp_path: Path) -> None:
    machine.plug("can7")
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"devices:\n  press:\n    can: {{channel: can7, database: {PLAIN}}}\n  box: {{push: {{}}}}\n"
    )
    async with talking(machine):
        code, out, _ = await scan("press", "--seconds", "0.3", "--config", str(file))
        assert code == 0 and "EngineData" in out
    code, _, err = await scan("box", "--config", str(file))
    assert code == 1 and "box is no CAN bus but push" in err


async def test_what_cannot_be_scanned_is_told(machine: Machine, tmp_path: Path) -> None:
    none = "--config", str(tmp_path / "none.yaml")
    code, _, err = await scan("can3", *none)
    assert code == 1 and "can3 does not exist" in err
    machine.plug()
    code, out, err = await scan("can0", "--seconds", "0.1", *none)
    assert code == 1 and not out.strip() and "nothing came in 0.1 s" in err
    code, _, err = await scan("can0", "--interface", "socketcand", *none)
    assert code == 1 and "socketcand wants `host`" in err
    (tmp_path / "bad.dbc").write_text("BO_ nonsense")
    code, _, err = await scan("can0", "--database", str(tmp_path / "bad.dbc"), *none)
    assert code == 1 and "bad.dbc:1:" in err


# -- beside a session ---------------------------------------------------------------------------------------


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path) as made:
        yield made


@pytest.fixture
async def client(gateway: Plant) -> AsyncIterator[aiohttp.ClientSession]:
    settings = HttpSettings(listen="127.0.0.1:0", tls="off")
    async with (
        serve(build_app(gateway, settings), settings, gateway.state) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as session,
    ):
        yield session


@pytest.fixture
def bus() -> Iterator[python_can.BusABC]:
    with python_can.Bus(interface="virtual", channel="scanned") as sender:
        yield sender


async def test_the_api_scans_beside_the_session(
    gateway: Plant, client: aiohttp.ClientSession, bus: python_can.BusABC
) -> None:
    settings = can.Settings(interface="virtual", channel="scanned", database=PLAIN)
    session = gateway.add("press", "can", lambda link: can.run(Device("press"), settings, link))
    async with asyncio.timeout(20):
        while session.health.state != "running":
            await asyncio.sleep(0.02)
    refused = await client.get("/v1/devices/press/scan", headers=gateway.bearer(Role.READ))
    assert refused.status == 403
    async with asyncio.TaskGroup() as group:
        task = group.create_task(send_for_ever(bus))
        answer = await client.get(
            "/v1/devices/press/scan", params={"seconds": "0.5"}, headers=gateway.bearer(Role.OPERATE)
        )
        task.cancel()
    assert answer.status == 200
    ids = {each["id"]: each for each in (await answer.json())["ids"]}
    assert ids["0x100"]["message"] == "EngineData" and ids["0x100"]["values"]["Gear"] == 1
    assert ids["0x123"]["message"] == "" and ids["0x123"]["payload"] == "0102"
    detail = await (await client.get("/v1/devices/press", headers=gateway.bearer(Role.READ))).json()
    assert "scan" in detail["controls"]
    assert {tag["tag"] for tag in detail["tags"]} >= {"EngineData.Gear", "EngineData.Speed"}
    messages = await client.get("/v1/devices/press/browse", headers=gateway.bearer(Role.READ))
    nodes = {node["id"]: node for node in (await messages.json())["nodes"]}
    assert list(nodes) == ["EngineData", "Extended", "Short", "Empty", "NoSignals"]
    assert nodes["EngineData"]["type"] == "0x100" and nodes["EngineData"]["has_children"]
    below = await client.get(
        "/v1/devices/press/browse", params={"node": "EngineData"}, headers=gateway.bearer(Role.READ)
    )
    gear = {node["id"]: node for node in (await below.json())["nodes"]}["EngineData.Gear"]
    assert (gear["type"], gear["value"], gear["meaning"]) == ("uint4", 1, "First")
    none = await client.get(
        "/v1/devices/press/browse", params={"node": "Engine"}, headers=gateway.bearer(Role.READ)
    )
    assert none.status == 404
    wrong = await client.get("/v1/devices/counter/scan", headers=gateway.bearer(Role.OPERATE))
    assert wrong.status == 409


async def send_for_ever(bus: python_can.BusABC) -> None:
    while True:
        bus.send(python_can.Message(arbitration_id=256, is_extended_id=False, data=[0, 0, 0, 1, 0, 0, 0, 0]))
        bus.send(python_can.Message(arbitration_id=0x123, is_extended_id=False, data=[1, 2]))
        await asyncio.sleep(0.01)
