"""A bus of another machine: a server that speaks socketcand's protocol as its doc/protocol.md has it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import canbus
from gateway.canbus import EXTENDED, REMOTE, Bus, BusProblem, Frames
from gateway.clock import SystemClock
from gateway.model import Flag
from tests.can.plant import plant, ram, settings


class Server:
    """A socketcand with one bus."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.answers = {"< open can0 >": "< ok >", "< rawmode >": "< ok >"}
        self.greeting = "< hi >"
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(self.greeting.encode())
        try:
            while True:
                command = (await reader.readuntil(b">")).decode().strip()
                self.heard.append(command)
                writer.write(self.answers.get(command, "").encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def say(self, text: str) -> None:
        self.writers[-1].write(text.encode())


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield server, listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for writer in server.writers:
            writer.close()


def opened(port: int, **kwargs: Any) -> Any:
    settings = canbus.Settings(interface="socketcand", host="127.0.0.1", port=port)
    return canbus.opened(settings, device="press", clock=SystemClock(), **kwargs)


async def receive(bus: Bus, count: int) -> Frames:
    frames = Frames()
    async with asyncio.timeout(5):
        while len(frames) < count:
            frames.extend(await bus.receive())
    return frames


async def test_frames_both_ways() -> None:
    async with serving() as (server, port), opened(port) as bus:
        now_s = time.time()
        for text in [f"< frame 123 {now_s:.6f} 11223344 >", f"< frame 18FEF100 {now_s:.6f} 0A 0b >",
                     f"< frame 001 {now_s:.6f}  >", "< error 004 23.424242 >", "< echo >", "nonsense",
                     f"< fdframe 456 01 {now_s:.6f} {bytes(range(12)).hex()} >"]:  # fmt: skip
            server.say(text)
        frames = await receive(bus, 4)
        assert frames.ids == [0x123, 0x18FEF100 | EXTENDED, 1, 0x456]
        assert frames.data == [b"\x11\x22\x33\x44", b"\x0a\x0b", b"", bytes(range(12))]
        assert {round(now_s * 1e6) - ts for ts in frames.ts} <= {-1, 0, 1}
        assert bus.health.error_frames == 1
        assert server.heard == ["< open can0 >", "< rawmode >"]
        for can_id, data in [
            (0x123, b"\x01\xff"),
            (0x1 | EXTENDED, b""),
            (2 | REMOTE, b"12"),
            (3, bytes(12)),
        ]:
            await bus.send(can_id, data)
        async with asyncio.timeout(5):
            while len(server.heard) < 6:
                await asyncio.sleep(0.01)
        assert server.heard[2:] == [
            "< send 123 2 01 FF >", "< send 00000001 0 >", "< sendrtr 002 2 >",
            f"< fdsend 003 01 12{' 00' * 12} >",
        ]  # fmt: skip


async def test_frames_in_pieces() -> None:
    async with serving() as (server, port), opened(port, batch_ms=1) as bus:
        said = "".join(f"< frame {n:03X} {time.time():.6f} {n:04X} >" for n in range(100))
        for start in range(0, len(said), 7):
            server.say(said[start : start + 7])
            await asyncio.sleep(0)
        assert (await receive(bus, 100)).ids == list(range(100))


async def test_filters_hold_though_the_server_knows_none() -> None:
    async with serving() as (server, port), opened(port, filters=[(0x100, 0x7F0)]) as bus:
        for number in (0x0FF, 0x100, 0x10F, 0x110):
            server.say(f"< frame {number:03X} {time.time():.6f} 00 >")
        assert (await receive(bus, 2)).ids == [0x100, 0x10F]


@pytest.mark.parametrize(("ahead_s", "flag"), [(3.0, Flag.SERVER_TIME), (-1.7e9, Flag.OWN_TIME)])
async def test_the_servers_clock(ahead_s: float, flag: Flag) -> None:
    """A clock near ours is taken as it is; of one that is not set the times between frames are."""
    async with serving() as (server, port), opened(port) as bus:
        first = time.time() + ahead_s
        server.say(f"< frame 001 {first:.6f} >< frame 001 {first + 0.5:.6f} >")
        frames = await receive(bus, 2)
        assert frames.flags == flag
        assert abs(frames.ts[1] - frames.ts[0] - 500_000) <= 1
        assert abs(frames.ts[1] / 1e6 - time.time() - (3.5 if flag == Flag.SERVER_TIME else 0)) < 2


async def test_a_server_that_closes_is_lost_at_once() -> None:
    """python-can's own client spins at full CPU then, and tells nobody."""
    async with serving() as (server, port), opened(port) as bus:
        server.say(f"< frame 001 {time.time():.6f} 00 >")
        server.writers[-1].close()
        assert (await receive(bus, 1)).ids == [1]
        async with asyncio.timeout(5):
            with pytest.raises(BusProblem, match=f"can0 on 127.0.0.1:{port} was lost") as problem:
                await bus.receive()
            with pytest.raises(BusProblem):
                await bus.send(1, b"")
        assert problem.value.bus_state == "lost"


async def test_nobody_listens(free_port: Callable[[], int]) -> None:
    with pytest.raises(BusProblem, match=r"no socketcand answers.*systemctl status socketcand"):
        async with opened(free_port()):
            pass


async def _no_bus(server: Server) -> None:
    server.answers["< open can0 >"] = "< error could not open bus >"


async def _another(server: Server) -> None:
    server.greeting = "SSH-2.0 <x>"


async def _garbage(server: Server) -> None:
    server.greeting = "x" * 10_000


@pytest.mark.parametrize(
    ("make", "words"),
    [(_no_bus, "does it have the bus can0"), (_another, "'SSH-2.0 <x>'"), (_garbage, "is no socketcand")],
)
async def test_a_server_that_will_not_do(make: Callable[[Server], Awaitable[None]], words: str) -> None:
    async with serving() as (server, port):
        await make(server)
        with pytest.raises(BusProblem, match=words):
            async with opened(port):
                pass


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.canbus import socketcand

    monkeypatch.setattr(socketcand, "_PATIENCE_S", 0.2)
    async with serving() as (server, port):
        server.greeting = ""
        with pytest.raises(BusProblem, match="no socketcand answers"):
            async with opened(port):
                pass


async def test_a_flood_waits_in_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not fetched is not taken off the connection without end, and nothing of it is lost."""
    from gateway.canbus import socketcand

    monkeypatch.setattr(socketcand, "_MOST_FRAMES", 1000)
    async with serving() as (server, port), opened(port, batch_ms=1) as bus:
        text = f"< frame 001 {time.time():.6f} 0011223344556677 >"
        server.say(text * 50_000)
        await asyncio.sleep(0.3)
        first = await bus.receive()
        assert len(first) < 20_000
        assert len(first) + len(await receive(bus, 50_000 - len(first))) == 50_000


async def test_the_other_machines_bus_goes_off_and_comes_back() -> None:
    async with serving() as (server, port), opened(port, batch_ms=1) as bus:
        health, seen = bus.health, []
        for said in ["error 204 {} 00200000000082FF", "error 040 {}", "error 100 {}", "error 040 {}"]:
            errors = health.error_frames
            server.say(f"< {said.format(f'{time.time():.6f}')} >")
            receiving = asyncio.create_task(bus.receive())
            async with asyncio.timeout(5):
                while health.error_frames == errors:
                    await asyncio.sleep(0.005)
            receiving.cancel()
            await asyncio.wait([receiving])
            seen.append((health.state, health.transmit_errors, health.receive_errors, health.returns))
        assert seen == [
            ("error-passive", 0x82, 0xFF, 0), ("bus-off", 0x82, 0xFF, 0), ("error-active", 0x82, 0xFF, 1),
            ("bus-off", 0x82, 0xFF, 1),
        ]  # fmt: skip
        server.say(f"< frame 001 {time.time():.6f} 00 >")
        await receive(bus, 1)
        assert (health.state, health.returns) == ("up", 2)


async def test_a_bus_off_of_another_machine_is_told_and_a_gap(tmp_path: Path) -> None:
    async with serving() as (server, port):
        device = settings(tmp_path, interface="socketcand", host="127.0.0.1", port=port)
        async with plant(tmp_path, device) as site:

            async def degraded() -> bool:
                return "can0 on 127.0.0.1" in (said := site.keeper.health.detail) and "is bus-off" in said

            async def gap() -> bool:
                return ["came back" in gap.reason for gap in await site.gaps()] == [True]

            await site.until(site.running)
            server.say(f"< error 040 {time.time():.6f} >")
            await site.until(degraded)
            server.say(f"< frame 100 {time.time():.6f} {bytes(8).hex()} >")
            await site.until(gap)


async def test_a_change_waits_by_the_frames_clock(tmp_path: Path) -> None:
    """The server's clock is eight seconds ahead of ours, and the second change has a minute to wait."""
    async with serving() as (server, port):
        device = settings(
            tmp_path, interface="socketcand", host="127.0.0.1", port=port, keep_interval_ms=60_000
        )
        async with plant(tmp_path, device) as site:

            async def values(tag: str) -> list[Any]:
                return [each.value for each in await site.samples() if each.series == site.session.tags[tag]]

            async def heard() -> bool:
                return "Oil.Pressure" in site.session.tags and await values("Oil.Pressure") == [1.0]

            await site.until(site.running)
            ahead_s = time.time() + 8
            for force in (1, 2):
                server.say(f"< frame 100 {ahead_s + force:.6f} {ram(force).hex()} >")
            await asyncio.sleep(2.5)  # so that it was looked at what waits
            server.say(f"< frame 18FEF100 {time.time() + 8:.6f} {(100).to_bytes(2, 'little').hex()} >")
            await site.until(heard)
            assert await values("Ram.Force") == [1.0]
