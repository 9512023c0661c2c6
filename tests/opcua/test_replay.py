"""The replaying server gives what node-opcua gave, with the numbers of the live connection."""

from collections.abc import Callable
from pathlib import Path

import pytest
from asyncua import Client

from gateway.protocols import opcua
from tests.opcua.capture import captured
from tests.opcua.recording import RecordingLink, collecting, tags
from tests.peers.opcua_peer import NODE_OPCUA, REPLAY, running

Port = Callable[[], int]
TAGS = 200
LISTED = {f"Tag{n}": f"ns=1;s=Line1.Tag{n}" for n in range(TAGS)}


@pytest.mark.timeout(40)
async def test_ours_and_the_stock_client_get_from_it_what_node_opcua_gives(
    tmp_path: Path, free_port: Port
) -> None:
    file, port = tmp_path / "capture", free_port()
    settings = {"publishing_interval_ms": 50, "sampling_interval_ms": 0, "poll_interval_ms": 50}
    async with (
        running(NODE_OPCUA, free_port(), "--tags", str(TAGS)) as server,
        captured(port, server.port) as capture,
    ):
        url = f"opc.tcp://127.0.0.1:{port}/node"
        for mode in ("subscribe", "poll"):
            link = RecordingLink("mill", tmp_path)
            async with collecting(link, opcua.Settings(url=url, mode=mode, **settings), tags(LISTED)):
                await link.until(lambda link=link: len(link.committed) >= TAGS, timeout=20)
            assert link.rows() == set(server.ledger[:TAGS])
        capture.save(file)
    async with running(REPLAY, free_port(), "--capture", str(file)) as replay:
        link = RecordingLink("mill", tmp_path)
        async with collecting(link, opcua.Settings(url=replay.url, **settings), tags(LISTED)):
            await link.until(lambda: bool(link.runs))
            told = await replay.ask("write", 20, 50, answer="done")
            await link.until(lambda: len(link.committed) >= 20 * TAGS)
            await link.until(lambda: len(link.batches) >= 20)
        assert told["peers"][0]["sent"] == 20 and told["peers"][0]["refused acknowledgements"] == 0
        assert told["peers"][0]["unacknowledged"] <= 3
        values = sorted(value for _, _, value in link.rows())
        assert values == [number * 1000.0 + place for number in range(1, 21) for place in range(TAGS)]
        assert not link.gaps
        async with Client(replay.url) as client:
            nodes = [client.get_node(node) for node in LISTED.values()]
            assert await client.read_values(nodes) == [1000.0 + place for place in range(TAGS)]
