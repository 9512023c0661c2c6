"""ICOapi's WebSockets where they have to end: a token that is revoked, a client that is too slow."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

from gateway.api import sockets
from gateway.api.tokens import Role
from gateway.logs.feed import LogFeed
from gateway.measurements import LiveFrames, live
from tests.icoapi.bench import TOOLS, contract, until

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("path", ["/state", "/measurement/stream", "/logs/stream"])
async def test_a_revoked_token_ends_its_conversations(path: str, tmp_path: Path) -> None:
    async with contract(tmp_path, anonymous="off") as ico:
        ico.plant.logs = SimpleNamespace(feed=LogFeed())  # type: ignore[assignment]
        made, token = await asyncio.to_thread(ico.plant.tokens.make, "wall", Role.OPERATE)
        headers = {"Authorization": f"Bearer {made}"}
        async with ico.client.ws_connect(f"/api/v1{path}", headers=headers) as socket:
            await asyncio.to_thread(ico.plant.tokens.revoke, token.id)
            async with asyncio.timeout(20):
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
            assert socket.close_code == sockets.LOGIN_FAILED


def frames(measurement: str, ts: int) -> LiveFrames:
    return LiveFrames(measurement, [ts], b"\0", [ts], ([1.0], None, None))


async def test_a_client_that_missed_frames_is_closed_and_a_new_measurement_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ICOapi's messages have no word for a hole. The end of `a` is among what the client did not get."""
    async with contract(tmp_path) as ico, ico.socket("/measurement/stream") as socket:
        await until(lambda: ico.plant.measurements._taps.get(TOOLS))
        taps = ico.plant.measurements._taps[TOOLS]
        taps.tell(frames("a", 1_000_000))
        assert [point["timestamp"] for point in await socket.receive_json()] == [0]
        await asyncio.sleep(0.5)
        taps.tell(frames("b", 9_000_000))
        assert [point["timestamp"] for point in await socket.receive_json()] == [0]
        monkeypatch.setattr(live, "_MOST_FRAMES", 1)
        for n in range(3):
            taps.tell(frames("b", 9_000_001 + n))
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE and socket.close_code == sockets.TOO_SLOW
