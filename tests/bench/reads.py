"""Print what reads of a large store cost, each beside the stock way.

`python -m tests.bench.reads [SECONDS [FOLDER]]`: the store holds SECONDS of a plant of 1000 tags (default
2000, two million samples; 50000 are fifty million, made in about eight minutes; a FOLDER keeps it).
Beside it stands a table clustered by series and time.
"""

import asyncio
import os
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import aiohttp
import orjson

from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tokens import Role
from gateway.model import Device
from gateway.protocols import push
from gateway.store import Store
from tests.api.plant import Plant, plant
from tests.bench.loop_lag import lag
from tests.bench.plant_store import DEVICE, ROW, TABLE, build

SECONDS = 2000
HOUR_US = 3_600_000_000
TIMES = 15
Cost = tuple[float, float]
"""Milliseconds of wall time and of CPU: medians."""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def cost(what: Callable[[int], Awaitable[object]], times: int = TIMES) -> Cost:
    """Measure something a few times; it is told how often it ran before."""
    wall, cpu = [], []
    await what(0)
    for turn in range(times):
        began, began_cpu = time.perf_counter(), time.process_time()
        await what(turn)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return statistics.median(wall) * 1e3, statistics.median(cpu) * 1e3


def ratio(one: Cost, other: Cost) -> str:
    return (
        f"{one[0]:.2f} ms (CPU {one[1]:.2f}) beside {other[0]:.2f} (CPU {other[1]:.2f}): "
        f"{one[0] / other[0]:.2f} (CPU {one[1] / other[1]:.2f})"
    )


class Beside:
    """The clustered table, read on the loop's own thread: no hand-over."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self.first_us, self.last_us = conn.execute(
            "SELECT min(ts), max(ts) FROM sample WHERE series = 1"
        ).fetchone()

    async def rows(self, series: int, from_us: int, to_us: int) -> list[tuple[object, ...]]:
        query = f"SELECT {ROW} FROM sample WHERE series = ? AND ts BETWEEN ? AND ?"
        return self._conn.execute(query, (series, from_us, to_us)).fetchall()

    async def buckets(self, series: int, from_us: int, to_us: int, width_us: int) -> list[tuple[object, ...]]:
        query = (
            "SELECT ts - ts % :width, min(value), max(value), avg(value), count(*) FROM sample "
            "WHERE series = :series AND ts BETWEEN :from AND :to GROUP BY 1"
        )
        return self._conn.execute(
            query, {"width": width_us, "series": series, "from": from_us, "to": to_us}
        ).fetchall()

    async def newest(self) -> list[tuple[object, ...]]:
        query = f"SELECT {ROW} FROM sample WHERE series = ? ORDER BY ts DESC LIMIT 1"
        return [self._conn.execute(query, (series,)).fetchone() for series in range(1, 1001)]


async def hours(store: Store, table: Beside, from_us: int, name: str) -> None:
    """One hour of one series, another one each time."""
    to_us = from_us + HOUR_US - 1

    async def ours(turn: int) -> list[object]:
        return [batch async for batch in store.samples([1 + 37 * turn], from_us, to_us)]

    async def ours_as_rows(turn: int) -> list[tuple[object, ...]]:
        batches = [batch async for batch in store.samples([1 + 37 * turn], from_us, to_us)]
        return [row for batch in batches for row in zip(*batch.columns()[1:], strict=True)]

    async def theirs(turn: int) -> list[tuple[object, ...]]:
        return await table.rows(1 + 37 * turn, from_us, to_us)

    for turn in range(TIMES):
        assert await ours_as_rows(turn) == await theirs(turn)
    count, stock = len(await theirs(0)), await cost(theirs)
    say(f"{name}, {count} rows, as columns: {ratio(await cost(ours), stock)}")
    say(f"{name}, {count} rows, as tuples: {ratio(await cost(ours_as_rows), stock)}")


async def buckets(store: Store, table: Beside) -> None:
    """All of one series to 500 buckets, another one each time."""
    width_us = (table.last_us - table.first_us) // 500
    window = table.first_us, table.last_us

    async def ours(turn: int) -> list[tuple[object, ...]]:
        return [tuple(b[1:]) for b in await store.buckets([1 + 10 * turn], *window, width_us)]

    async def theirs(turn: int) -> list[tuple[object, ...]]:
        return await table.buckets(1 + 10 * turn, *window, width_us)

    for one, other in zip(await ours(1), await theirs(1), strict=True):
        assert (*one[:3], one[4]) == (*other[:3], other[4]), (one, other)
        assert abs(one[3] - other[3]) < 1e-6, (one, other)  # type: ignore[operator]
    found = ratio(await cost(ours), await cost(theirs))
    say(f"{(window[1] - window[0]) // 1_000_000} points to 500 buckets: {found}")


async def newest(store: Store, table: Beside) -> None:
    async def ours(_: int) -> list[object]:
        return [store.last(series) for series in range(1, 1001)]

    async def theirs(_: int) -> list[tuple[object, ...]]:
        return await table.newest()

    assert [tuple(x)[1:] for x in await ours(0)] == await theirs(0)  # type: ignore[call-overload]
    say(f"last values of 1000 series: {ratio(await cost(ours), await cost(theirs))}")


async def over_http(made: Plant, table: Beside) -> None:
    """100 000 samples to a client in a process of its own; beside it, `orjson.dumps` of the same content."""
    settings = HttpSettings(listen="127.0.0.1:0", tls="off")
    seconds = (table.last_us - table.first_us) // 1_000_000
    shapes = {tags: min(seconds, 100_000 // tags) for tags in (2, 28, 1000) if 100_000 // tags <= 2 * seconds}
    async with serve(build_app(made, settings), settings, made.state) as (host, port):
        for tags, span in shapes.items():
            for form in ("json", "ndjson", "csv"):
                until_us = table.first_us + span * 1_000_000 - 1
                url = (
                    f"http://{host}:{port}/v1/devices/{DEVICE}/samples?format={form}&limit=100000"
                    f"&from={table.first_us}&to={until_us}&tags=" + ",".join(f"tag{n}" for n in range(tags))
                )
                await _over_http(made, url, f"{tags} tags, {span} s as {form}")


async def _over_http(made: Plant, url: str, name: str) -> None:
    command = [sys.executable, "-m", "tests.bench.client", url]
    environment = {**os.environ, "TOKEN": made.bearer(Role.READ)["Authorization"]}
    child = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**28
    )
    assert child.stdin is not None and child.stdout is not None
    walls: list[float] = []

    async def ours(_: int) -> bytes:
        child.stdin.write(b"\n")  # type: ignore[union-attr]
        line = await child.stdout.readline()  # type: ignore[union-attr]
        walls.append(float(line.split()[0]))
        return line

    found = await cost(ours, 7)
    size = int((await ours(0)).split()[1])
    child.stdin.close()
    await child.wait()
    in_json = re.sub("format=[a-z]+", "format=json", url)
    async with (
        aiohttp.ClientSession(headers={"Authorization": environment["TOKEN"]}) as client,
        client.get(in_json) as answer,
    ):
        document = await answer.json()

    async def theirs(_: int) -> bytes:
        return orjson.dumps(document)

    both = statistics.median(walls) * 1e3, found[1]
    count = len(document["samples"])
    say(f"{count} samples over HTTP, {name}, {size / 1e6:.1f} MB: {ratio(both, await cost(theirs))}")


async def measure(folder: Path) -> None:
    say(f"load {os.getloadavg()[0]:.1f} before; medians of {TIMES}; wall (CPU of this process)")
    began = time.perf_counter()
    async with plant(folder, commit_interval_s=1) as made:
        say(f"start: {time.perf_counter() - began:.2f} s")
        made.add(DEVICE, "push", lambda link: push.run(Device(DEVICE), push.Settings(), link))
        with closing(sqlite3.connect(folder / TABLE)) as conn:
            table = Beside(conn)
            state = made.store.state()
            size_mb = (folder / TABLE).stat().st_size / 1e6
            history_mb = state.history_bytes / 1e6
            say(f"{history_mb:.0f} MB of history, {state.blocks} blocks, table of {size_mb:.0f} MB")
            middle_us = (table.first_us + table.last_us - HOUR_US) // 2
            await hours(
                made.store, table, max(table.first_us, middle_us), "an hour of one series in the history"
            )
            await hours(made.store, table, table.last_us - HOUR_US, "the newest hour of one series")
            await buckets(made.store, table)
            await newest(made.store, table)
            await over_http(made, table)
    await lag(say)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / TABLE).exists():
            began = time.perf_counter()
            asyncio.run(build(folder, count))
            say(f"made in {time.perf_counter() - began:.0f} s")
        asyncio.run(measure(folder))


if __name__ == "__main__":
    main()
