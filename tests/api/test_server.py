"""The listener: TLS, deadlines, limits on connections, an end in time."""

import asyncio
import logging
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from gateway.api import bodies, connections, server, tls
from gateway.api.app import build_app
from gateway.api.server import serve
from gateway.api.settings import HttpSettings, TlsFiles, split_address
from gateway.api.tokens import Role
from gateway.controls.devices import Push, PushedSample
from gateway.model import GatewayError
from tests.api.plant import Plant


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def closed(reader: asyncio.StreamReader, within_s: float) -> float:
    """Return after how many seconds the server closed."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
    return time.monotonic() - began


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_head_that_does_not_come_is_cut(
    url: str, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADERS_S", 0.5)
    reader, writer = await connect(url)
    writer.write(sent)
    assert 0.4 < await closed(reader, 3) < 2
    writer.close()


async def test_dripping_bytes_do_not_extend_the_deadline(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADERS_S", 0.5)
    reader, writer = await connect(url)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")

    async def drip() -> None:
        while not writer.is_closing():
            writer.write(b"X: 1\r\n")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert await closed(reader, 3) < 2
    writer.close()
    dripping.cancel()


async def test_the_deadline_also_holds_for_the_second_request_of_a_connection(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADERS_S", 0.5)
    reader, writer = await connect(url)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b'alive"}')
    await asyncio.sleep(1)  # idle: kept alive
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b'alive"}')
    writer.write(b"GET /heal")
    assert 0.4 < await closed(reader, 3) < 2
    writer.close()


async def test_a_slow_body_is_408(url: str, gateway: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.3)
    reader, writer = await connect(url)
    token = gateway.texts[Role.OPERATE].encode()
    writer.write(
        b"POST /v1/devices/box/samples HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        b"Content-Type: application/json\r\nAuthorization: Bearer " + token + b"\r\n\r\n[{"
    )
    assert b"408" in (await asyncio.wait_for(reader.readline(), 3))
    writer.close()


@pytest.mark.parametrize("path", ["/v1/devices/box/samples", "/v1/session"])
async def test_a_client_that_goes_away_leaves_no_error_in_the_log(
    url: str, gateway: Plant, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can pull a plug: that must not fill the log with tracebacks."""
    token = gateway.texts[Role.OPERATE].encode()
    head = (
        b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
        b"Authorization: Bearer " + token + b"\r\n\r\n"
    )
    for abort in (False, True):
        for body in (b"", b"[{"):
            _, writer = await connect(url)
            writer.write(b"POST " + path.encode() + head + body)
            await asyncio.sleep(0.1)
            writer.transport.abort() if abort else writer.close()
            await asyncio.sleep(0.1)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_nor_does_one_that_goes_away_in_the_middle_of_an_answer(
    url: str, gateway: Plant, admin: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(6):
        sample = {"tag": "big", "ts": n, "value": "x" * 900_000}
        async with admin.post("/v1/devices/box/samples", json=[sample]) as answer:
            assert answer.status == 200
    token = gateway.texts[Role.READ].encode()
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    for path, more in (
        (b"/v1/devices/box/samples", b""),
        (b"/v1/stream", upgrade + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
    ):
        for abort in (False, True):
            reader, writer = await connect(url)
            head = b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + b"\r\n"
            writer.write(b"GET " + path + head + more + b"\r\n")
            assert await reader.read(1000)
            writer.transport.abort() if abort else writer.close()
            async with admin.post("/v1/devices/box/samples", json=[{"tag": "n", "value": 1}]):
                await asyncio.sleep(0.1)  # something to write to those who left
    await asyncio.sleep(0.3)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def settings() -> HttpSettings:
    return HttpSettings(listen="127.0.0.1:0", tls="off", max_connections=12, max_connections_per_address=8)


async def test_no_address_takes_all_connections(url: str) -> None:
    held = [await connect(url) for _ in range(8)]
    await asyncio.sleep(0.1)
    reader, writer = await connect(url)
    assert await closed(reader, 2) < 1
    writer.close()
    held.pop()[1].close()
    await asyncio.sleep(0.1)
    async with aiohttp.ClientSession(url) as client, client.get("/healthz") as answer:
        assert answer.status == 200
    for _, writer in held:
        writer.close()


async def answers_again(url: str) -> None:
    """Wait until a client gets in."""
    async with asyncio.timeout(8), aiohttp.ClientSession(url) as client:
        while True:
            try:
                async with client.get("/healthz", ssl=False) as answer:
                    assert answer.status == 200
                return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def test_connections_count_before_their_tls_handshake(
    gateway: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 60)
    settings = HttpSettings(listen="127.0.0.1:0", max_connections=8, max_connections_per_address=3)
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        silent = [await connect(f"http://{host}:{port}") for _ in range(3)]
        reader, writer = await connect(f"http://{host}:{port}")
        await closed(reader, 5)
        writer.close()
        silent.pop()[1].close()
        await answers_again(f"https://{host}:{port}")
        for _, writer in silent:
            writer.close()


async def test_a_handshake_that_fails_takes_no_place_for_good(
    gateway: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.3)
    settings = HttpSettings(listen="127.0.0.1:0", max_connections=8, max_connections_per_address=2)
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b""):
            for _ in range(3):
                reader, writer = await connect(f"http://{host}:{port}")
                writer.write(sent)
                await closed(reader, 5)
                writer.close()
        await answers_again(f"https://{host}:{port}")


async def test_localhost_is_a_listen_address(gateway: Plant) -> None:
    settings = HttpSettings(listen="localhost:0", tls="off")
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        assert host in ("127.0.0.1", "::1")
        await answers_again(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


async def test_a_hundred_slow_loris_do_not_hold_up_a_good_client(
    gateway: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADERS_S", 1.0)
    settings = HttpSettings(listen="127.0.0.1:0", tls="off", max_connections_per_address=150)
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        slow = [await connect(f"http://{host}:{port}") for _ in range(100)]
        for _, writer in slow:
            writer.write(b"GET / HTTP/1.1\r\n")
        times = []
        async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
            for _ in range(50):
                began = time.monotonic()
                async with client.get("/healthz") as answer:
                    assert answer.status == 200
                times.append(time.monotonic() - began)
        assert sorted(times)[48] < 0.2
        assert max(await asyncio.gather(*(closed(reader, 3) for reader, _ in slow))) < 3
        for _, writer in slow:
            writer.close()


async def test_a_client_that_reads_nothing_of_a_large_answer_is_cut(
    url: str, gateway: Plant, admin: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.api import answers

    monkeypatch.setattr(answers, "WRITE_S", 0.5)
    for n in range(8):
        async with admin.post(
            "/v1/devices/box/samples", json=[{"tag": "big", "ts": n, "value": "x" * 900_000}]
        ):
            pass
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    token = gateway.texts[Role.READ].encode()
    writer.write(
        b"GET /v1/devices/box/samples HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        + token
        + b"\r\n\r\n"
    )
    await asyncio.sleep(1.5)
    text = b""
    async with asyncio.timeout(3):
        try:
            while piece := await reader.read(1_000_000):
                text += piece
        except ConnectionError:
            pass
    assert b"200 OK" in text
    assert not text.endswith(b"0\r\n\r\n")  # cut, and a client can tell
    writer.close()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("path", ["/static/swagger-ui-bundle.js", "/v1/devices/box/samples"])
async def test_who_reads_nothing_of_an_answer_keeps_no_place(
    gateway: Plant, monkeypatch: pytest.MonkeyPatch, path: str, encrypted: bool
) -> None:
    monkeypatch.setattr(connections, "UNREAD_S", 1)
    control = gateway.devices["box"].control(Push)
    assert control is not None
    await control.push([PushedSample("big", "x" * 900_000, n) for n in range(8)])
    settings = HttpSettings(
        listen="127.0.0.1:0", tls="self-signed" if encrypted else "off", max_connections_per_address=2
    )
    trust = ssl._create_unverified_context() if encrypted else None
    token = gateway.texts[Role.READ]
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        held = []
        for _ in range(2):
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(narrow, (host, port))
            reader, writer = await asyncio.open_connection(
                sock=narrow, ssl=trust, server_hostname="localhost" if encrypted else None, limit=16
            )
            writer.write(head)
            held.append((reader, writer))
        await answers_again(f"{'https' if encrypted else 'http'}://{host}:{port}")
        for _, writer in held:
            writer.transport.abort()


@pytest.fixture
async def secure(gateway: Plant, caplog: pytest.LogCaptureFixture) -> AsyncIterator[str]:
    settings = HttpSettings(listen="127.0.0.1:0")
    with caplog.at_level(logging.INFO):
        async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
            yield f"https://{host}:{port}"


async def test_a_self_signed_certificate_is_made_and_kept(
    gateway: Plant, secure: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = gateway.state / "tls" / "self-signed.pem"
    assert stat.S_IMODE((await asyncio.to_thread(file.stat)).st_mode) == 0o600
    trust = await asyncio.to_thread(ssl.create_default_context, cafile=str(file))
    said = " ".join(record.getMessage() for record in caplog.get_records("setup"))
    fingerprint = said.partition("SHA-256 fingerprint ")[2][:95]
    shown = bytes.fromhex(fingerprint.replace(":", ""))
    async with aiohttp.ClientSession(secure) as client:
        for check in (trust, aiohttp.Fingerprint(shown)):
            async with client.get("/healthz", ssl=check) as answer:
                assert answer.status == 200
        token = {"token": gateway.texts[Role.READ]}
        async with client.post("/v1/session", json=token, ssl=trust) as answer:
            assert "Secure" in answer.headers["Set-Cookie"]
            assert "max-age" in answer.headers["Strict-Transport-Security"]
    before = await asyncio.to_thread(file.read_bytes)
    await asyncio.to_thread(tls.context, HttpSettings(), gateway.state)
    assert await asyncio.to_thread(file.read_bytes) == before


def self_signed(folder: Path, *hosts: str) -> x509.Certificate:
    assert tls.context(HttpSettings(hosts=hosts), folder) is not None
    return x509.load_pem_x509_certificate((folder / "tls" / "self-signed.pem").read_bytes())


def test_a_self_signed_certificate_is_made_anew_for_a_new_name(tmp_path: Path) -> None:
    first = self_signed(tmp_path, "hall-3.example")
    assert self_signed(tmp_path, "hall-3.example") == self_signed(tmp_path) == first
    second = self_signed(tmp_path, "hall-3.example", "press.example")
    names = second.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"hall-3.example", "press.example"} <= {*names.get_values_for_type(x509.DNSName)}
    assert second.public_key() == first.public_key()
    assert self_signed(tmp_path, "hall-3.example") == second


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "other key"])
def test_a_damaged_self_signed_certificate_is_made_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = self_signed(tmp_path)
    self_signed(tmp_path / "other")
    file = tmp_path / "tls" / "self-signed.pem"
    pem, other = file.read_bytes(), (tmp_path / "other" / "tls" / "self-signed.pem").read_bytes()
    at = pem.index(b"-----BEGIN CERT")
    mixed = pem[:at] + other[other.index(b"-----BEGIN CERT") :]
    left = {"empty": b"", "half": pem[: at + 100], "noise": b"\0" * 500, "other key": mixed}
    file.write_bytes(left[damage])
    assert self_signed(tmp_path) != first
    assert f"{file} is damaged" in caplog.text
    assert self_signed(tmp_path) == self_signed(tmp_path)


async def test_old_tls_is_refused(secure: str) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    host, _, port = secure.removeprefix("https://").partition(":")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(host, int(port), ssl=old)


async def test_own_certificate_and_its_mistakes(tmp_path: Path) -> None:
    made = await asyncio.to_thread(tls.context, HttpSettings(), tmp_path)
    assert made is not None
    file = str(tmp_path / "tls" / "self-signed.pem")
    own = HttpSettings(tls=TlsFiles(certificate=Path(file), key=Path(file)))
    assert await asyncio.to_thread(tls.context, own, tmp_path / "other") is not None
    assert not (tmp_path / "other").exists()
    (tmp_path / "empty.pem").touch()
    for certificate, key in (
        ("nowhere.pem", file),
        (file, "nowhere.pem"),
        (file, str(tmp_path / "empty.pem")),
    ):
        wrong = HttpSettings(tls=TlsFiles(certificate=Path(certificate), key=Path(key)))
        with pytest.raises(GatewayError, match=r"http\.tls: .* cannot be used"):
            await asyncio.to_thread(tls.context, wrong, tmp_path)


async def served(host: str, port: int) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect; return the certificate in DER, and the connection."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=trusting)
    return writer.get_extra_info("ssl_object").getpeercert(True), reader, writer


async def test_a_renewed_certificate_is_taken_by_the_next_connection(gateway: Plant, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two", "three"):
        await asyncio.to_thread(tls.context, HttpSettings(), tmp_path / name)
        made.append(await asyncio.to_thread((tmp_path / name / "tls" / "self-signed.pem").read_bytes))
    one, two, three = made
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    async def write(certificates: bytes, keys: bytes) -> None:
        await asyncio.to_thread(certificate.write_bytes, certificates)
        await asyncio.to_thread(key.write_bytes, keys)

    await write(one, one)
    files = TlsFiles(certificate=certificate, key=key)
    settings = HttpSettings(listen="127.0.0.1:0", tls=files)
    async with serve(build_app(gateway, settings), settings, gateway.state) as (host, port):
        first, reader, writer = await served(host, port)
        assert not await tls.renew(files)
        await write(two, two)
        assert await tls.renew(files)
        assert not await tls.renew(files)
        second, _, other = await served(host, port)
        assert second == ssl.PEM_cert_to_DER_cert(two[two.index(b"-----BEGIN CERT") :].decode())
        assert second != first
        await write(three, two)
        with pytest.raises(GatewayError, match="cannot be used"):
            await tls.renew(files)
        again, _, third = await served(host, port)
        assert again == second
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b'alive"}')
        for each in (writer, other, third):
            each.close()


async def test_a_browser_login_over_plain_http_from_the_network_is_refused(gateway: Plant) -> None:
    """A session cookie must not travel readable: 127.0.0.1 is the only exception."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address of ours faces the network
        own = probe.getsockname()[0]
    if own.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    settings = HttpSettings(listen=f"{own}:0", tls="off")
    async with (
        serve(build_app(gateway, settings), settings, gateway.state) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
        client.post("/v1/session", json={"token": gateway.texts[Role.READ]}) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (403, "tls_required")


async def test_an_address_in_use_is_an_oserror(gateway: Plant, url: str) -> None:
    taken = HttpSettings(listen=url.removeprefix("http://"), tls="off")
    with pytest.raises(OSError, match="in use"):
        async with serve(build_app(gateway, taken), taken, gateway.state):
            pass


@pytest.mark.parametrize("text", ["8443", "host:8443", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:70000", "::1:80x"])
def test_a_wrong_listen_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        split_address(text)


def test_listen_addresses() -> None:
    assert split_address("0.0.0.0:8443") == ("0.0.0.0", 8443)
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("localhost:80") == ("localhost", 80)


def test_what_is_insecure_is_said() -> None:
    assert HttpSettings().insecure() == []
    assert HttpSettings(listen="127.0.0.1:8080", tls="off").insecure() == []
    assert "plain HTTP" in HttpSettings(tls="off").insecure()[0]
    assert "without a token" in HttpSettings(public_read=True).insecure()[0]
