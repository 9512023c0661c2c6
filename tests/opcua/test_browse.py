"""The control Browse over a live session."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.controls.devices import Browse, Node
from gateway.protocols import opcua
from gateway.protocols.opcua import browsing
from tests.opcua.recording import RecordingLink, collecting
from tests.peers.opcua_peer import NODE_OPCUA, running

Port = Callable[[], int]


async def everything(browser: Browse, node: str | None, limit: int) -> list[Node]:
    nodes: list[Node] = []
    cursor = None
    while True:
        page = await browser.browse(node, limit, cursor)
        assert len(page.nodes) <= limit
        nodes.extend(page.nodes)
        cursor = page.next
        if cursor is None:
            return nodes


@pytest.mark.seed_row("L2")
async def test_browse_in_pages(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--tags", "50", "--types", "yes") as server:
        link = RecordingLink("mill", tmp_path)
        async with collecting(link, opcua.Settings(url=server.url, publishing_interval_ms=50)):
            await link.until(lambda: bool(link.controls))
            (browser,) = [control for control in link.controls if isinstance(control, Browse)]
            top = {node.name: node for node in await everything(browser, None, 2)}
            assert top["Line1"].kind == "object" and top["Line1"].has_children
            line = await everything(browser, top["Line1"].id, 7)
            assert [node.name for node in line] == [f"Tag{n}" for n in range(50)]
            tag = line[3]
            assert (tag.type, tag.value, tag.kind, tag.has_children) == ("Double", 3.0, "variable", False)
            assert "r" in tag.access
            assert tag.id.startswith("nsu=") and tag.id.endswith(";s=Line1.Tag3")
            with pytest.raises(KeyError):
                await browser.browse("ns=1;s=Nothing", 10, None)
            with pytest.raises(KeyError):
                await browser.browse("Line1/Nothing", 10, None)
            with pytest.raises(ValueError, match="cursor"):
                await browser.browse(None, 10, "AAAA")


async def test_browse_tells_what_values_are(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--space", "yes") as server:
        link = RecordingLink("mill", tmp_path)
        async with collecting(link, opcua.Settings(url=server.url, publishing_interval_ms=50)):
            await link.until(lambda: bool(link.controls))
            (browser,) = [control for control in link.controls if isinstance(control, Browse)]
            found = {node.name: node for node in await everything(browser, "Space", 3)}
            warm, mode, door, point = (found[name] for name in ("Temperature", "Mode", "Door", "Point"))
            assert (warm.type, warm.unit, warm.meaning) == ("Double", "°C", "")
            assert (mode.type, mode.value, mode.meaning) == ("Mode", 7, "Run")
            assert (door.value, door.meaning) == (True, "open")
            assert json.loads(point.value) == {"X": 1.5, "Y": -2}  # type: ignore[arg-type]


@pytest.mark.seed_row("L2")
async def test_discovery_follows_continuation_points(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "_REFERENCES_A_PAGE", 3)
    async with running(NODE_OPCUA, free_port(), "--tags", "20") as server:
        link = RecordingLink("mill", tmp_path)
        async with collecting(link, opcua.Settings(url=server.url, publishing_interval_ms=50)):
            await link.until(lambda: bool(link.controls))
        assert {f"Line1/Tag{n}" for n in range(20)} <= set(link.names)


async def test_whatever_is_asked_for_the_answer_is_one_of_the_contract(
    tmp_path: Path, free_port: Port
) -> None:
    odd = [
        "i=-1",
        "i=99999999999",
        "ns=70000;i=1",
        "nsu=;s=a",
        "s=",
        "g=",
        "b=",
        "ns=1;s=\0",
        "9:a",
        "70000:a",
    ]
    odd += ["/", "//", "..", "&", "a" * 5000, "\U0001f527", "i=2253;x", "ns=0;s=\udcff", "\ud800", "i=61"]
    async with running(NODE_OPCUA, free_port()) as server:
        link = RecordingLink("mill", tmp_path)
        async with collecting(link, opcua.Settings(url=server.url, publishing_interval_ms=50)) as task:
            await link.until(lambda: bool(link.controls))
            (browser,) = [control for control in link.controls if isinstance(control, Browse)]
            for node in odd:
                with suppress(KeyError, ValueError):
                    await browser.browse(node, 10, None)
            for cursor in ("x", "====", "\u00fc", "MQ==", "A" * 4000):
                with pytest.raises(ValueError, match="cursor"):
                    await browser.browse(None, 10, cursor)
            assert not task.done()
