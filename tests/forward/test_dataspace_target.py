"""The uploader dataspace against a real server of the Trident dialect."""

import asyncio
import contextlib
import gzip
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.clock import SystemClock
from gateway.controls.files import RemoteFile, RemoteFiles
from gateway.model import Batch, Encoding, Outlet, Sample, SeriesInfo, Unit, UploadProblem
from gateway.settings import Secret
from gateway.store import Store
from gateway.uploaders import columns, dataspace
from gateway.uploaders.account import Account
from gateway.uploaders.listings import entries
from tests.forward.plant import Plant, check_ledger, dataspace_settings, delivered, forwarding, until
from tests.peers.receiver import Receiver


def unit(number: int = 1, size: int = 4) -> Unit:
    samples = Batch.of(Sample(n % 2, number * 1000 + n, float(n)) for n in range(size))
    series = {n: SeriesInfo("press", f"t{n}", "") for n in range(2)}
    key = f"hall 3/e/cloud/{number}-{number}"
    return Unit(key, "hall 3", "cloud", "live", number, number, Encoding("columns", 1), samples, series)


@asynccontextmanager
async def opened(peer: Receiver, **settings: Any) -> AsyncIterator[Outlet]:
    async with dataspace.open("cloud", dataspace_settings(peer, **settings), SystemClock()) as outlet:
        yield outlet


def remote(outlet: Outlet) -> RemoteFiles:
    (control,) = outlet.controls
    assert isinstance(control, RemoteFiles)
    return control


async def there(outlet: Outlet) -> list[RemoteFile]:
    return [file async for file in remote(outlet).files()]


async def asked(peer: Receiver, path: str) -> int:
    return sum(request["path"].startswith(path) for request in await peer.requests())


async def test_an_object_is_named_by_its_key_and_holds_the_unit(peer: Receiver) -> None:
    made = unit()
    async with opened(peer, folder="hall", virtual_group="root/default") as outlet:
        await outlet.send(made)
        (file,) = await there(outlet)
    body = columns.encode(made)
    assert file.name == dataspace.object_name(made.key)
    assert file.name.startswith("hall_3_e_cloud_1-1.")
    assert file.listed["objectname"] == f"hall/{file.name}"
    assert file.listed["virtual_group"] == "root/default"
    assert file.metadata["samples"] == 4
    assert file.size == len(gzip.compress(body, 6, mtime=0))
    assert (await peer.counts())["samples"] == 4


async def test_a_repeat_is_recognised_by_its_name_on_any_page(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        for number in range(1, 6):
            await outlet.send(unit(number))
        before = await asked(peer, "/storage")
        for number in range(1, 6):
            await outlet.send(replace(unit(number), repeat=True))
        assert await asked(peer, "/storage") == before, "a repeat was stored again"
        assert len(await there(outlet)) == 5
    assert (await peer.counts())["repeated"] == 0


@pytest.mark.seed_row(37)
async def test_all_pages_are_read(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        await asyncio.gather(*(outlet.send(unit(number)) for number in range(1, 103)))
        assert len(await there(outlet)) == 102
        await outlet.send(replace(unit(102), repeat=True))
    assert (await peer.counts())["repeated"] == 0


async def test_a_page_that_is_too_long_is_read_in_halves_and_the_size_is_remembered(peer: Receiver) -> None:
    peer.fill(150, {"note": "x" * 40_000})
    async with opened(peer) as outlet:
        assert {file.id for file in await there(outlet)} == {f"f{n}" for n in range(150)}
        before = await asked(peer, "/management/files")
        await there(outlet)
        assert await asked(peer, "/management/files") - before <= 10


async def test_a_listing_ends_where_the_file_is_found(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        await outlet.send(unit())
        peer.fill(3, {"note": "x" * 700_000})  # one page each
        name = dataspace.object_name(unit().key)
        with contextlib.closing(sqlite3.connect(peer.folder / "ledger.db")) as conn, conn:
            conn.execute("UPDATE file SET created = '2000' WHERE name = ?", (name,))
        await there(outlet)
        before = await asked(peer, "/management/files")
        await outlet.send(replace(unit(), repeat=True))
        assert await asked(peer, "/management/files") - before == 1
    assert (await peer.counts())["repeated"] == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", []),
        (' [{"Key": "a"} ,\n{"Key": "b"}] ', ["a", "b"]),
        ('{"count": 2, "files": [{"Key": "a"}]}', ["a"]),
        ('{"Contents": [{"Key": "[]"}], "more": [1]}', ["[]"]),
        ('{"at": "1, 2", "a\\"b": null , "files" : [{"Key": "a"}]}', ["a"]),
        ('{"none": 1}', []),
        ("{" + ", ".join(f'"k{n}": {n}' for n in range(27)) + "}", []),
        ('[{"Key": "a"}', None),
        ('[{"Key": "a"},', None),
        ("[", None),
        ("<html>", None),
    ],
)
async def test_a_long_listing_is_read_by_entries(text: str, found: list[str] | None) -> None:
    keys: list[str] = []
    if found is None:
        with pytest.raises(ValueError):
            [keys.append(entry) async for some in entries(text.encode()) for entry in some]
    else:
        assert [entry["Key"] async for some in entries(text.encode()) for entry in some] == found


async def test_an_object_that_was_announced_and_not_stored_is_stored_by_the_repeat(peer: Receiver) -> None:
    await peer.faults(answers=[{"status": 503, "path": "/storage"}])
    async with opened(peer) as outlet:
        with pytest.raises(UploadProblem, match="503"):
            await outlet.send(unit())
        assert (await there(outlet))[0].listed["last_status"] == "created"
        await outlet.send(replace(unit(), repeat=True))
        assert (await there(outlet))[0].listed["last_status"] == "available"
    assert (await peer.counts())["samples"] == 4


@pytest.mark.seed_row(34)
async def test_an_expired_token_is_refreshed_once_however_many_ask(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        await outlet.send(unit(1))
        await peer.faults(token_requests=1, delay_s=0.05)
        await asyncio.gather(*(outlet.send(unit(number)) for number in range(2, 10)), return_exceptions=True)
        await peer.faults(reset=True)
        for number in range(2, 10):
            await outlet.send(replace(unit(number), repeat=True))
    assert await asked(peer, "/auth/login") == 1
    assert (await peer.counts())["samples"] == 36


async def test_one_expiry_gives_one_refresh(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        await outlet.send(unit(1))
        await expire(peer)
        await asyncio.gather(*(outlet.send(unit(number)) for number in range(2, 10)))
    assert await asked(peer, "/auth/refresh") == 1
    assert await asked(peer, "/auth/login") == 2  # ours, and the one of `expire`


async def expire(peer: Receiver) -> None:
    """Log in from elsewhere: this dataspace keeps one access token an account."""
    async with aiohttp.ClientSession() as session:
        credentials = {"username": "x", "password": "y"}
        async with session.post(f"{peer.url}/auth/login", json=credentials) as answer:
            assert answer.status == 200


@pytest.mark.seed_row(34)
async def test_refused_refresh_tokens_lead_to_a_new_log_in(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        await outlet.send(unit(1))
        await peer.faults(revoked=True)
        await expire(peer)
        await outlet.send(unit(2))
    assert await asked(peer, "/auth/refresh") == 1
    assert await asked(peer, "/auth/login") == 3
    assert (await peer.counts())["samples"] == 8


async def test_a_refresh_that_fails_leads_to_a_new_log_in(peer: Receiver) -> None:
    async with opened(peer) as outlet:
        await outlet.send(unit(1))
        await expire(peer)
        await peer.faults(answers=[{"status": 500, "path": "/auth/refresh", "count": -1}])
        with pytest.raises(UploadProblem, match="500"):
            await outlet.send(unit(2))
        await outlet.send(replace(unit(2), repeat=True))
    assert await asked(peer, "/auth/refresh") == 1
    assert (await peer.counts())["samples"] == 8


async def test_a_target_that_answers_401_to_everything_is_not_stormed(peer: Receiver) -> None:
    await peer.faults(answers=[{"status": 401, "path": "/management", "count": -1}])
    async with opened(peer) as outlet:
        with pytest.raises(UploadProblem, match="401"):
            await outlet.send(unit())
    assert len(await peer.requests()) <= 6


async def test_a_wrong_password_is_said_without_it(peer: Receiver) -> None:
    async with opened(peer, password=Secret("file p", "wrong")) as outlet:
        with pytest.raises(UploadProblem, match=r"refuses the user 'hall-3' or the password") as caught:
            await outlet.send(unit())
        assert "wrong" not in str(caught.value)
        with pytest.raises(UploadProblem, match="refuses the user"):
            await remote(outlet).check()


@pytest.mark.parametrize("of", ["password", "access_token", "refresh_token"])
async def test_a_dataspace_that_says_our_secrets_again_is_quoted_without_them(of: str) -> None:
    secrets = {"password": "CANARY-1", "access_token": "CANARY-2", "refresh_token": "CANARY-3"}

    async def login(_: web.Request) -> web.Response:
        return web.json_response(secrets)

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=500, text=f"what is {secrets[of]}?")

    app = web.Application()
    app.router.add_post("/auth/login", login)
    app.router.add_route("*", "/{path:.*}", refuse)
    async with TestServer(app) as server, aiohttp.ClientSession() as client:
        account = Account(str(server.make_url("")), "u", secrets["password"], client, 5)
        for sent in (account.ask("GET", "/x"), account.put(server.make_url("/b"), b"bytes")):
            with pytest.raises(UploadProblem, match=r"500: what is <secret>\?"):
                await sent


async def test_presigned_addresses_never_appear_in_a_message(peer: Receiver) -> None:
    await peer.faults(hang=0, answers=[{"status": 500, "path": "/storage", "body": "broken"}])
    async with opened(peer) as outlet:
        with pytest.raises(UploadProblem) as caught:
            await outlet.send(unit())
    assert "/storage/" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/b/k?X-Amz-Signature=SECRET",
        "http://127.0.0.1:1/b/k?sig=SECRET",
        "http://:80/b?sig=SECRET",
        "http://[::1/b?sig=SECRET",
        "http://host:99999/b?sig=SECRET",
        "http://user:SECRET@127.0.0.1:{port}/b",
        "http://127.0.0.1:0/?sig=SECRET",
    ],
)
async def test_no_failure_tells_the_address_that_files_are_sent_to(address: str) -> None:
    """Here of a storage that speaks no HTTP, of one that is not there, and of addresses that are none."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    text = address.format(port=server.sockets[0].getsockname()[1])
    async with server, aiohttp.ClientSession() as client:
        account = Account("http://dataspace", "u", "p", client, 5)
        with pytest.raises(UploadProblem) as caught:
            await account.put(account.presigned({"presignedUrl": text}), b"bytes")
    assert "SECRET" not in str(caught.value) and "/b" not in str(caught.value).removeprefix("http://")


@pytest.mark.parametrize("url", ["https://dataspace", "HTTPS://dataspace"])
async def test_no_file_goes_unencrypted_where_the_dataspace_is_encrypted(url: str) -> None:
    async with aiohttp.ClientSession() as client:
        account = Account(url, "u", "p", client, 5)
        with pytest.raises(UploadProblem, match="unencrypted"):
            account.presigned({"presignedUrl": "http://storage/b?sig=x"})


async def test_a_presigned_address_is_sent_to_the_letter() -> None:
    """What is signed is its text: the usual quoting would make `%28` a bracket, and the signature void."""
    came: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as client:
        account = Account("http://dataspace", "u", "p", client, 5)
        text = f"http://127.0.0.1:{port}/a%2Fb%28x%29?s=a%2Bb%3D%2F&c=x%20y%7E"
        await account.put(account.presigned({"presignedUrl": text}), b"bytes")
    assert came == [b"PUT /a%2Fb%28x%29?s=a%2Bb%3D%2F&c=x%20y%7E HTTP/1.1\r\n"]


async def test_a_dataspace_that_hangs_is_left_after_the_deadline(peer: Receiver) -> None:
    await peer.faults(hang=1)
    async with opened(peer, timeout_s=1.0) as outlet:
        with pytest.raises(UploadProblem, match="within 1 s"):
            await outlet.send(unit())


async def test_samples_are_objects_of_the_older_dialect_as_well(peer: Receiver) -> None:
    async with opened(peer, dialect="s3", bucket="demo", folder="/hall/") as outlet:
        await outlet.send(unit(1))
        await outlet.send(replace(unit(1), repeat=True))
        await outlet.send(unit(2))
        assert await asked(peer, "/s3/list") == 0, "a bucket may be too full to be listed"
        names = [file.name for file in await there(outlet)]
        await remote(outlet).check()
    assert names == [dataspace.object_name(unit(number).key) for number in (1, 2)]
    assert [file["objectname"] for file in await peer.files()] == [f"hall/{name}" for name in names]
    assert (await peer.counts())["samples"] == 8 and (await peer.counts())["bodies_per_key"] == 1


def test_the_older_dialect_needs_a_bucket() -> None:
    with pytest.raises(ValueError, match="bucket"):
        dataspace.Settings(url="https://x", user="u", password=Secret("file p", "x"), dialect="s3")


async def test_a_token_that_expires_all_the_time_loses_nothing(store: Store, peer: Receiver) -> None:
    plant = Plant(store)
    await peer.faults(token_requests=2)

    async with forwarding(store, dataspace_settings(peer)):
        for _ in range(10):
            await plant.write(10)
            await asyncio.sleep(0.1)
        await until(lambda: delivered(peer, plant), "everything delivered")
    check_ledger(plant, await peer.samples())
    assert await asked(peer, "/auth/login") == 1
