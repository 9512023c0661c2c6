"""Print what large reads leave in the daemon's memory: `python -m tests.bench.memory [SECONDS [FOLDER]]`.

The store holds SECONDS (2000) of a plant of 1000 tags; four clients at a time read it through /v1.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import aiohttp
import orjson

from tests.bench.idle import free_port
from tests.bench.plant_store import DEVICE, SERIES, build
from tests.bench.process import taken
from tests.e2e.gateway_process import GatewayProcess, gateway

SECONDS = 2000
CLIENTS = 4
CONFIG = "store: {{path: '{store}', max: 40GB}}\ndevices: {{{device}: {{push: {{}}}}}}\n"
Read = Callable[[aiohttp.ClientSession, int], Coroutine[None, None, int]]


async def taken_in(client: aiohttp.ClientSession, **query: str | int) -> int:
    """Read an answer to its end, and keep nothing of it; return its bytes."""
    count = 0
    async with client.get(f"/v1/devices/{DEVICE}/samples", params=query) as answer:
        assert answer.status == 200, await answer.text()
        async for part in answer.content.iter_any():
            count += len(part)
    return count


async def whole_windows(client: aiohttp.ClientSession, turn: int) -> int:
    return await taken_in(client, limit=1_000_000)


async def pages_of_all_tags(client: aiohttp.ClientSession, turn: int) -> int:
    """As a program does that copies a time of its own, page by page."""
    count, cursor = 0, {}
    for _ in range(20):
        query = {"limit": 20_000, "from": -(2**40) * turn, **cursor}
        async with client.get(f"/v1/devices/{DEVICE}/samples", params=query) as answer:
            page = await answer.read()
        cursor = {"cursor": orjson.loads(page)["next"]}
        count += len(page)
    return count


async def the_newest_of_some_tags(client: aiohttp.ClientSession, turn: int) -> int:
    since, count = (time.time_ns() // 1000 - 30 * 86_400_000_000), 0
    for first in range(turn * 50, SERIES, 60 * CLIENTS):
        tags = ",".join(f"tag{n}" for n in range(first, min(first + 60, SERIES)))
        count += await taken_in(client, tags=tags, limit=100_000, **{"from": since})
    return count


async def tag_by_tag(client: aiohttp.ClientSession, turn: int) -> int:
    return sum([await taken_in(client, tags=f"tag{tag}") for tag in range(turn, SERIES, 7 * CLIENTS)])


async def as_many_buckets_as_there_may_be(client: aiohttp.ClientSession, turn: int) -> int:
    device = f"/v1/devices/{DEVICE}"
    async with client.get(device) as answer:
        newest = max(tag["last"]["ts"] for tag in (await answer.json())["tags"])
    async with client.get(f"{device}/samples", params={"limit": 1}) as answer:
        oldest = (await answer.json())["samples"][0]["ts"]
    width_s = (newest - oldest) // 19_000_000 + 1
    return await taken_in(client, to=newest, bucket=f"{width_s}s", **{"from": oldest})


async def measure(seconds: int, folder: Path) -> None:
    store = folder / "store"
    if not (store / "hot.db").exists():
        store.mkdir()
        await build(store, seconds)
    async with gateway(folder / "gw", free_port()) as process:
        process.write(CONFIG.format(store=store, device=DEVICE))
        await process.start()
        _say(process, "at the start")
        for _ in range(2):
            for read in (
                whole_windows,
                pages_of_all_tags,
                the_newest_of_some_tags,
                tag_by_tag,
                as_many_buckets_as_there_may_be,
            ):
                await _each(process, read)
        await asyncio.sleep(15)
        _say(process, "a while later")


async def _each(process: GatewayProcess, read: Read) -> None:
    token = (process.state / "admin-token").read_text().strip()
    url, headers = f"http://127.0.0.1:{process.port}", {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as client:
        read_bytes = sum(await asyncio.gather(*(read(client, turn) for turn in range(CLIENTS))))
    _say(process, f"{read.__name__.replace('_', ' ')}, {read_bytes / 1e6:.0f} MB")


def _say(process: GatewayProcess, what: str) -> None:
    assert process.process is not None
    found = taken(process.process.pid)
    sys.stdout.write(f"{what}: RSS {found.rss_mib:.0f} MiB, {found.most_mib:.0f} at most\n")
    sys.stdout.flush()


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(seconds, Path(sys.argv[2] if len(sys.argv) > 2 else folder)))


if __name__ == "__main__":
    main()
