"""What ICOapi 0.2.1 got wrong, by the numbers of its defects, through the contract here.

1 and 2 (frames and conversions that were missing), 10 (a lost node), 12 (the live log), 14 (mistakes answered
500) and 15 (path traversal, no login) stand in test_contract_nodes and test_contract_files; 8 and 9 (a slow
dataspace, uploads that lied) in test_contract_cloud.
"""

import asyncio

import aiohttp
import pytest

from tests.icoapi.bench import TOOLS, Contract, until
from tests.icoapi.test_contract_nodes import connect, instructions, measuring
from tests.icotronic.plant import CHUCK, MAC_OF, OLD_TOOL, SPINDLE

pytestmark = pytest.mark.timeout(60)


@pytest.mark.seed_row(14)
async def test_3_all_channels_off_leaves_nothing_running(ico: Contract) -> None:
    await connect(ico)
    await ico.ask("POST", "/measurement/start", instructions(0, 0, 0), status=422)
    assert (await ico.ask("GET", "/measurement"))["running"] is False
    assert await ico.ask("POST", "/measurement/stop") is None
    async with measuring(ico):
        pass


@pytest.mark.seed_row(17)
async def test_4_a_client_that_dies_ends_its_own_stream_alone(ico: Contract) -> None:
    await connect(ico)
    async with ico.socket("/measurement/stream") as one, ico.socket("/measurement/stream") as dying:
        async with measuring(ico) as name:
            await dying.receive_json()
            assert dying._response.connection is not None and dying._response.connection.transport is not None
            dying._response.connection.transport.abort()
            found = ico.plant.measurements.find(name)
            assert found is not None
            before = found.received
            await until(lambda: found.received > before + 2000)
        points = 0
        while (message := await one.receive()).type is aiohttp.WSMsgType.TEXT:
            points += sum(point["counter"] is not None for point in message.json())
    assert points == 3 * found.received and not found.interrupted


@pytest.mark.seed_row(41)
async def test_5_malformed_text_harms_its_own_socket_alone(ico: Contract) -> None:
    for text in ("{", "nonsense", "[" * 5000, "\U0001f600"):
        async with ico.socket("/state") as wrong, ico.socket("/state") as other:
            await wrong.receive_json()
            await other.receive_json()
            await wrong.send_str(text)
            while (await wrong.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert wrong.closed
            await other.send_json({"message": "get_state"})
            assert (await other.receive_json())["message"] == "state"
    assert await ico.ask("PUT", "/reset-can") is None
    assert len(await ico.ask("GET", "/sth")) == 3


@pytest.mark.seed_row(1)
async def test_6_a_bus_that_comes_late_is_used_without_a_restart(ico: Contract) -> None:
    async with ico.socket("/state") as socket:
        assert (await socket.receive_json())["data"]["can_ready"] is True
        ico.stage.stu.faults.mute = True
        assert (await socket.receive_json())["data"]["can_ready"] is False
        await ico.ask("GET", "/stu", status=502)
        ico.stage.stu.faults.mute = False
        assert (await socket.receive_json())["data"]["can_ready"] is True
    await ico.ask("GET", "/stu")


@pytest.mark.seed_row(6)
async def test_7_parallel_requests_all_answer(ico: Contract) -> None:
    await connect(ico)
    paths = ("/stu", "/sth", "/sth/read-adc", "/sth/supply-voltage", "/stu/connected", "/files", "/state")
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ico.ask("GET", path)) for path in paths * 4]
    answers = [task.result() for task in asked]
    for voltage in answers[3 :: len(paths)]:
        del voltage["timestamp_utc_iso"]
    for n in range(5):
        assert answers[n :: len(paths)] == [answers[n]] * 4


@pytest.mark.seed_row(8)
async def test_11_a_link_left_over_from_a_crash_is_no_obstacle(ico: Contract) -> None:
    """The session ends while nobody hears it, so the STU holds the link on; ICOapi needed /stu/reset then."""
    await connect(ico)
    ico.stage.stu.faults.mute = True
    await until(lambda: ico.plant.devices[TOOLS].health.state == "failed")
    assert ico.stage.stu.connected is not None and ico.stage.stu.connected.name == SPINDLE.encode()
    ico.stage.stu.faults.mute = False
    await until(lambda: ico.plant.devices[TOOLS].health.state == "running")
    assert await ico.ask("GET", "/stu/connected") is False
    await connect(ico)
    assert await ico.ask("GET", "/stu/connected") is True and ico.stage.stu.resets == 0


async def test_16_order_names_and_times(ico: Contract) -> None:
    for _ in range(2):
        assert [node["name"] for node in await ico.ask("GET", "/sth")] == [SPINDLE, CHUCK, OLD_TOOL]
    assert [node["mac_address"] for node in await ico.ask("GET", "/sth")] == list(MAC_OF.values())
    await connect(ico)
    names = set()
    for _ in range(3):  # most of them within one second
        async with measuring(ico) as name:
            names.add(name)
    assert len(names) == 3
    assert len((await ico.ask("GET", "/config/backup"))["files"]) == 3, "though none was ever stored"
