"""What the OPC UA logger before did, asked of the running gateway and of its server: rows L1 to L8."""

import asyncio
import base64
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, Node, ua

from tests.e2e.gateway_process import GatewayProcess, gateway
from tests.opcua.test_another_make import EXPECTED
from tests.peers.opcua_peer import NODE_OPCUA, Peer, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
Port = Callable[[], int]
WITHIN_S = 20
TAGS = 20
T0 = 1_763_690_000_000_000


async def sessions(server: Peer) -> list[str]:
    names: list[str] = (await server.ask("sessions", answer="sessions"))["names"]
    return names


async def newest(box: GatewayProcess, device: str) -> dict[str, Any]:
    """Return the last sample of each tag that has one."""
    tags = (await box.get(f"/v1/devices/{device}"))["tags"]
    return {tag["tag"]: tag["last"] for tag in tags if tag["last"]}


async def stored(box: GatewayProcess, device: str) -> list[tuple[str, int, Any]]:
    samples = await box.pages(f"/v1/devices/{device}/samples", "samples")
    return [(sample["tag"], sample["ts"], sample["value"]) for sample in samples]


async def until_written(box: GatewayProcess, device: str, wanted: set[tuple[str, int, Any]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not wanted <= set(await stored(box, device)):
            await asyncio.sleep(0.2)


def plain(sample: dict[str, Any]) -> Any:
    """Return the value that a sample's JSON stands for."""
    if sample.get("type") == "float":
        return float(sample["value"])
    return base64.b64decode(sample["value"]) if sample.get("type") == "bytes" else sample["value"]


@pytest.mark.seed_row("L1", "L2", "L6", "L8")
async def test_two_lines_of_yaml_bring_every_type_and_named_tags_nothing_else(
    tmp_path: Path, free_port: Port
) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--tags", str(TAGS), "--types", "yes") as server,
        gateway(tmp_path / "gw", free_port()) as box,
    ):
        box.write("devices:\n")
        await box.start()
        assert (await box.get("/v1/devices"))["devices"] == []
        with box.file.open("a") as file:
            file.write(f"  mill:\n    opcua: {server.url}\n")
        assert (await box.reload())[0] == 0
        wanted = {f"Types/{name}" for name in EXPECTED} | {f"Line1/Tag{n}" for n in range(TAGS)}
        async with asyncio.timeout(WITHIN_S):
            while not wanted <= (last := await newest(box, "mill")).keys():
                await asyncio.sleep(0.2)
        for name, value in EXPECTED.items():
            got = plain(last[f"Types/{name}"])
            assert (got, type(got)) == (value, type(value)), name
        assert math.isnan(plain(last["Types/NaN"]))
        assert math.copysign(1, plain(last["Types/NegativeZero"])) == -1
        assert json.loads(plain(last["Types/Range"])) == {"Low": 1, "High": 2}
        addresses = {
            tag["tag"]: tag["state"]["address"] for tag in (await box.get("/v1/devices/mill"))["tags"]
        }
        assert addresses["Line1/Tag3"].endswith(";s=Line1.Tag3")
        assert len(await sessions(server)) == 1

        with box.file.open("a") as file:
            file.write(f"  named:\n    opcua: {server.url}\n    tags: {{one: Line1/Tag3, two: Line1/Tag4}}\n")
        assert (await box.reload())[0] == 0
        async with asyncio.timeout(WITHIN_S):
            while (await newest(box, "named")).keys() != {"one", "two"}:
                await asyncio.sleep(0.2)
        await server.ask("write", 3, 700, answer="done")
        names = {"Tag3": "one", "Tag4": "two"}
        written = [(names[tag], ts, value) for tag, ts, value in server.ledger if tag in names]
        await until_written(box, "named", set(written[-6:]))
        assert Counter(await stored(box, "named")) <= Counter(written), "other nodes, or one twice"
        assert len(set(await sessions(server))) == len(await sessions(server)) == 2, "one for each device"


About = tuple[str, str, str, float | None, dict[str, Any]]
"""Of a node: class, type, access, value where it is a finite number with a fraction, and what is below it."""


async def walked(node: Node) -> dict[str, About]:
    """Return what a client of others finds below a node, by name."""
    found: dict[str, About] = {}
    for child in await node.get_children():
        name = (await child.read_browse_name()).Name
        if await child.read_node_class() is ua.NodeClass.Variable:
            kind = (await Node(child.session, await child.read_data_type()).read_browse_name()).Name
            rights = await child.get_user_access_level()
            access = "".join(letter for letter, bit in (("r", 0), ("w", 1)) if ua.AccessLevel(bit) in rights)
            found[name] = ("variable", kind, access, fraction(await child.read_value()), {})
        else:
            found[name] = ("object", "", "", None, await walked(child))
    return found


async def browsed(box: GatewayProcess, node: str) -> dict[str, About]:
    """Return the same as `/v1` has it, in pages of five."""
    found: dict[str, About] = {}
    for each in await box.pages("/v1/devices/mill/browse", "nodes", node=node, limit=5):
        about = each["kind"], each["type"], each["access"], fraction(each["value"])
        found[each["name"]] = *about, await browsed(box, each["id"]) if each["kind"] == "object" else {}
    return found


def fraction(value: Any) -> float | None:
    return value if type(value) is float and math.isfinite(value) else None


@pytest.mark.seed_row("L1", "L2", "L3")
async def test_it_is_browsed_and_polled_in_its_one_session(tmp_path: Path, free_port: Port) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--tags", str(TAGS), "--types", "yes") as server,
        gateway(tmp_path / "gw", free_port()) as box,
    ):
        how = f"{{url: '{server.url}', mode: poll, poll_interval: 10m}}"
        box.write(f"devices: {{mill: {{opcua: {how}, tags: {{one: Line1/Tag3}}}}}}\n")
        await box.start()
        async with asyncio.timeout(WITHIN_S):
            while not await newest(box, "mill"):
                await asyncio.sleep(0.2)

        async with Client(server.url) as client:
            for folder in ("Line1", "Types"):
                node = await client.nodes.objects.get_child([f"1:{folder}"])
                theirs = await walked(node)
                assert len(theirs) >= TAGS
                assert await browsed(box, folder) == theirs
        assert (await newest(box, "mill")).keys() == {"one"}, "what was looked at is not kept"

        before = (await server.ask("requests", answer="requests"))["counts"]["ReadRequest"]
        await server.ask("write", 1, 10, answer="done")
        server.pause()  # so that all of them ask while one is under way
        asked = [asyncio.create_task(box.ask("POST", "/v1/devices/mill/poll", None)) for _ in range(10)]
        await asyncio.sleep(1)
        assert not any(task.done() for task in asked)
        server.resume()
        answers = await asyncio.gather(*asked)
        (run_id,) = {answer["run_id"] for answer in answers}
        run = answers[0]["run"]
        assert (run["id"], run["status"], run["samples"], run["error"]) == (run_id, "ok", 1, None)
        assert run["duration_us"] > 0
        async with asyncio.timeout(WITHIN_S):  # it rides on the next commit
            while run not in await box.pages("/v1/runs", "runs", device="mill", status="ok"):
                await asyncio.sleep(0.2)
        counts = (await server.ask("requests", answer="requests"))["counts"]
        assert counts["ReadRequest"] - before <= 3, "the values once, and signs of life"
        written = [(ts, value) for tag, ts, value in server.ledger if tag == "Tag3"]
        last = (await newest(box, "mill"))["one"]
        assert (last["ts"], last["value"]) == written[-1]
        assert len(await sessions(server)) == 1


@pytest.mark.seed_row("L3")
async def test_runs_say_how_long_how_many_and_why_not(tmp_path: Path, free_port: Port) -> None:
    async with (
        running(NODE_OPCUA, free_port(), "--tags", str(TAGS)) as server,
        gateway(tmp_path / "gw", free_port()) as box,
    ):
        how = f"{{url: '{server.url}', root: Line1, mode: poll, poll_interval: 200ms}}"
        box.write(f"devices: {{mill: {{opcua: {how}}}, scale: {{push: {{}}}}}}\n")
        await box.start()

        async def runs(status: str, **more: str | int) -> list[dict[str, Any]]:
            found = await box.pages("/v1/runs", "runs", device="mill", status=status, **more)
            return [run for run in found if run["kind"] == "cycle"]

        async def until_one(status: str) -> dict[str, Any]:
            async with asyncio.timeout(WITHIN_S):
                while not (found := await runs(status)):
                    await asyncio.sleep(0.2)
            return found[-1]

        first = await until_one("ok")
        assert (first["samples"], first["error"]) == (TAGS, None) and first["duration_us"] > 0
        server.say("write", 1000, 100)
        await asyncio.sleep(1)
        await server.kill()
        broken = await until_one("error")
        assert "Traceback (most recent call last)" in broken["error"], broken
        began = broken["start_us"]
        ended = began + broken["duration_us"]
        assert began > first["start_us"]
        assert broken in await runs("error", **{"from": ended, "to": began})
        for outside in ({"from": ended + 1}, {"to": began - 1}):
            assert broken not in await runs("error", **outside)
        assert broken not in await runs("ok")
        assert await box.pages("/v1/runs", "runs", device="scale", status="error") == []


@pytest.mark.seed_row("L5")
async def test_a_window_sent_again_and_again_and_over_a_kill_is_there_once(
    tmp_path: Path, free_port: Port
) -> None:
    window = [{"tag": f"t{n % 7}", "ts": T0 + n * 1000, "value": n / 4} for n in range(8000)]
    async with gateway(tmp_path / "gw", free_port()) as box:
        box.write("store: {commit_interval: 100ms}\ndevices: {scale: {push: {}}}\n")
        await box.start()

        async def send() -> dict[str, int]:
            sent: dict[str, int] = await box.ask("POST", "/v1/devices/scale/samples", window)
            return sent

        assert await send() == {"added": len(window), "same": 0, "moved": 0}
        assert await send() == {"added": 0, "same": len(window), "moved": 0}
        for at_s in (0.02, 0.1, 0.3):
            dying = asyncio.create_task(send())
            await asyncio.sleep(at_s)
            await box.kill()
            await asyncio.gather(dying, return_exceptions=True)
            await box.start()
        assert await send() == {"added": 0, "same": len(window), "moved": 0}
        rows = await stored(box, "scale")
        assert sorted(rows) == sorted((row["tag"], row["ts"], row["value"]) for row in window)
        half, more = window[:4000], [row | {"ts": row["ts"] + 10**10} for row in window]
        dying = asyncio.create_task(box.ask("POST", "/v1/devices/scale/samples", half + more))
        await asyncio.sleep(0.2)
        await box.kill()
        await asyncio.gather(dying, return_exceptions=True)
        await box.start()
        sent = await box.ask("POST", "/v1/devices/scale/samples", half + more)
        assert sent["moved"] == 0 and sent["added"] + sent["same"] == len(half) + len(more)
        assert len(await stored(box, "scale")) == len(window) + len(more)
