"""100 MB at each operation that takes a body: refused early or kept, and nobody else notices."""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.icoapi.bench import Contract, contract, until
from tests.icoapi.test_contract_files import measured
from tests.measurements.machine import rss_mb

pytestmark = pytest.mark.timeout(120)

SIZE = 100_000_000
PIECE = bytes(100_000)
MOST_MORE_MB = 48
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
TAIL = b"\r\n--b--\r\n"


def head(field: str, name: str, kind: str) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'
    return f"--b\r\n{disposition}\r\nContent-Type: {kind}\r\n\r\n".encode()


@dataclass
class Large:
    """A body made as it is sent; looks at this process's memory, and asks for something else meanwhile."""

    ico: Contract
    begin: bytes
    piece: bytes = PIECE
    end: bytes = b""
    sent: int = 0
    most_mb: float = 0
    answered: int = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self.begin
        for n in itertools.count(1):
            yield self.piece
            self.sent += len(self.piece)
            if n % 50 == 0:
                await self.ico.ask("GET", "/state")
                self.answered += 1
            self.most_mb = max(self.most_mb, await asyncio.to_thread(rss_mb))
            if self.sent >= SIZE:
                yield self.end
                return


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.name[:5] != "store"}


REFUSED = [
    ("POST", "/files/analyze", head("file", "x.hdf5", "application/octet-stream"), FORM, 422),
    *[("POST", f"/config/{name}", head("file", "x.yaml", "text/yaml"), FORM, 413) for name in (
        "meta", "sensors", "dataspace",
    )],
    ("POST", "/config/env", head("file", ".env", "text/plain"), FORM, 413),
    ("POST", "/files/none.hdf5/embedded", head("files", "x.png", "image/png"), FORM, 404),
    *[(method, path, b'{"name": "', JSON, 413) for method, path in (
        ("POST", "/measurement/start"), ("POST", "/measurement/post_meta"),
        ("POST", "/files/pre_meta/x.hdf5"), ("POST", "/files/post_meta/x.hdf5"),
        ("PUT", "/sth/connect"), ("PUT", "/sth/rename"),
        ("PUT", "/sth/write-adc"), ("POST", "/stu/connected"), ("POST", "/cloud/upload"),
        ("POST", "/cloud/update"), ("PUT", "/config/restore"),
    )],
]  # fmt: skip


async def test_what_nobody_sends_is_refused_before_it_is_all_there(tmp_path: Path) -> None:
    async with contract(tmp_path) as ico:
        await ico.ask("GET", "/config/sensors")
        before, before_mb = await asyncio.to_thread(files, tmp_path), await asyncio.to_thread(rss_mb)
        for n, (method, path, begin, headers, status) in enumerate(REFUSED):
            body = Large(ico, begin, b"x" * 100_000)
            told = {"Content-Length": str(len(begin) + SIZE)} if n % 2 else {}  # else in chunks
            said = await ico.ask(method, path, data=body.pieces(), headers=headers | told, status=status)
            assert said["detail"] and body.sent < SIZE / 2, (path, body.sent)
            assert body.most_mb < before_mb + MOST_MORE_MB, (path, body.most_mb - before_mb)
        squeezed = zlib.compressobj(wbits=31)
        bomb = b"".join(squeezed.compress(PIECE) for _ in range(SIZE // len(PIECE))) + squeezed.flush()
        for path in ("/measurement/start", "/sth/connect", "/config/sensors"):
            method = "PUT" if path == "/sth/connect" else "POST"
            kind = {"Content-Type": "text/yaml" if "config" in path else "application/json"}
            await ico.ask(method, path, data=bomb, headers=kind | {"Content-Encoding": "gzip"}, status=413)
        assert await asyncio.to_thread(rss_mb) < before_mb + MOST_MORE_MB
        assert await asyncio.to_thread(files, tmp_path) == before


async def test_a_file_of_that_size_is_kept_and_given_back(tmp_path: Path) -> None:
    async with contract(tmp_path) as ico:
        folder, name = ico.plant.measurements.folder, await measured(ico)
        data, before_mb = await ico.ask("GET", f"/files/{name}"), await asyncio.to_thread(rss_mb)
        foreign = Large(ico, head("file", "large.hdf5", "application/x-hdf5") + data, end=TAIL)
        assert await ico.ask("POST", "/files/analyze", data=foreign.pieces(), headers=FORM) == b"large.hdf5"
        assert (folder / "large.hdf5").stat().st_size == SIZE + len(data)
        inside = Large(ico, head("files", "film.mp4", "video/mp4"), end=TAIL)
        (row,) = await ico.ask("POST", f"/files/{name}/embedded", data=inside.pieces(), headers=FORM)
        assert row["size"] == SIZE
        for path, size in (
            ("large.hdf5", SIZE + len(data)),
            (f"{name}/embedded/{row['dataset_name']}", SIZE),
        ):
            async with ico.client.get(f"/api/v1/files/{path}") as answer:
                assert sum([len(piece) async for piece in answer.content.iter_chunked(65_536)]) == size
        after_mb = await asyncio.to_thread(rss_mb)
        assert max(foreign.most_mb, inside.most_mb, after_mb) < before_mb + MOST_MORE_MB
        assert min(foreign.answered, inside.answered) > 10
        await ico.ask("DELETE", "/files/large.hdf5")
        assert sorted(path.name for path in folder.iterdir()) == [name], "no draft"


@pytest.mark.parametrize("path", ["/files/analyze", "/files/{name}/embedded"])
async def test_one_that_breaks_off_leaves_nothing(tmp_path: Path, path: str) -> None:
    async with contract(tmp_path) as ico:
        folder, name = ico.plant.measurements.folder, await measured(ico)
        data = await ico.ask("GET", f"/files/{name}")
        field = "file" if path == "/files/analyze" else "files"
        body = Large(ico, head(field, "large.hdf5", "application/x-hdf5") + data)
        async with aiohttp.ClientSession(ico.url) as client:
            url = f"/api/v1{path.format(name=name)}"
            sending = asyncio.create_task(client.post(url, data=body.pieces(), headers=FORM))
            await until(lambda: len(list(folder.iterdir())) == 2 and body.sent > SIZE / 4)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await until(lambda: len(list(folder.iterdir())) == 1)
        assert [each["name"] for each in (await ico.ask("GET", "/files"))["files"]] == [name]
