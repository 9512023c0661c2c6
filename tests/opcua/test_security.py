"""Certificates and trust, login, and what is never sent in the clear."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from gateway.controls.devices import Channel
from gateway.model import DeviceProblem, WaitingForTrust
from gateway.protocols import opcua
from gateway.protocols.opcua.pki import Pki
from gateway.settings import Secret
from tests.opcua.recording import RecordingLink, collecting, failure
from tests.peers.opcua_peer import NODE_OPCUA, PLC, Peer, running

Port = Callable[[], int]
PASSWORD = Secret("env PLC", "opensesame")


def trust_the_server(state: Path) -> None:
    """Do what the sentence tells the technician to do."""
    (refused,) = (state / "pki" / "rejected").iterdir()
    shutil.move(refused, state / "pki" / "trusted" / refused.name)


async def flowing(link: RecordingLink, settings: opcua.Settings) -> Channel:
    """Collect until the first values came; return how the channel was secured."""
    async with collecting(link, settings):
        await link.until(lambda: len(link.emitted) >= 5 and link.reports)
        (channel,) = [control for control in link.controls if isinstance(control, Channel)]
    return channel


async def both_trusted(server: Peer, link: RecordingLink, settings: opcua.Settings) -> None:
    await failure(link, settings)
    trust_the_server(link.state)
    await failure(link, settings)
    await server.ask("trust", answer="trusted")


async def test_trust_has_to_be_given_both_ways(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--security", "both") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)

        theirs = await failure(link, settings)
        assert isinstance(theirs, WaitingForTrust)
        (refused,) = (tmp_path / "pki" / "rejected").iterdir()
        assert str(refused) in str(theirs) and "security: none" in str(theirs)
        assert refused.stem.rpartition("-")[2] in str(theirs)
        trust_the_server(tmp_path)

        ours = await failure(link, settings)
        assert isinstance(ours, WaitingForTrust)
        assert "certificate.der" in str(ours) and "security: none" in str(ours)
        await server.ask("trust", answer="trusted")

        channel = await flowing(link, settings)
        assert (channel.security, channel.insecure) == ("Aes256_Sha256_RsaPss/SignAndEncrypt", "")
        assert link.report_now == ("running", "")
        assert not list((tmp_path / "pki" / "rejected").iterdir())


async def test_no_fall_to_none_after_one_secured_session(tmp_path: Path, free_port: Port) -> None:
    port = free_port()
    link = RecordingLink("mill", tmp_path)
    settings = opcua.Settings(url=f"opc.tcp://127.0.0.1:{port}/node", publishing_interval_ms=50)
    async with running(NODE_OPCUA, port, "--security", "both") as server:
        await both_trusted(server, link, settings)
        await flowing(link, settings)
    async with running(NODE_OPCUA, port, "--security", "none"):
        refused = await failure(link, settings)
        assert "reached securely before" in str(refused)
        # Another device never was: it may.
        other = RecordingLink("other", tmp_path)
        channel = await flowing(other, settings)
        assert channel.security == "none" and "offers nothing else" in channel.insecure
        # Forced, it is used and shown.
        forced = RecordingLink("mill", tmp_path)
        plain = opcua.Settings(url=settings.url, security="none", publishing_interval_ms=50)
        channel = await flowing(forced, plain)
        assert "`security: none` is configured" in channel.insecure
        assert "insecure" in forced.report_now[1]


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ("Basic256Sha256", "Basic256Sha256/SignAndEncrypt"),
        ("Aes128_Sha256_RsaOaep/Sign", "Aes128_Sha256_RsaOaep/Sign"),
    ],
)
async def test_a_named_policy_is_used(tmp_path: Path, free_port: Port, security: str, expected: str) -> None:
    async with running(NODE_OPCUA, free_port(), "--security", "secure", "--accept", "yes") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, security=security, publishing_interval_ms=50)
        await failure(link, settings)
        trust_the_server(tmp_path)
        assert (await flowing(link, settings)).security == expected


async def test_a_pem_in_trusted_will_do(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--security", "secure", "--accept", "yes") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, publishing_interval_ms=50)
        await failure(link, settings)
        (refused,) = (tmp_path / "pki" / "rejected").iterdir()
        pem = ssl_pem(refused.read_bytes())
        (tmp_path / "pki" / "trusted" / "mill.pem").write_text(pem)
        assert (await flowing(link, settings)).insecure == ""


def ssl_pem(der: bytes) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("offered", ["both", "sign"])
async def test_user_and_password(tmp_path: Path, free_port: Port, offered: str) -> None:
    options = ("--security", offered, "--accept", "yes", "--user", "gateway:opensesame", "--anonymous", "no")
    async with running(NODE_OPCUA, free_port(), *options) as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(
            url=server.url, user="gateway", password=PASSWORD, publishing_interval_ms=50
        )
        await failure(link, settings)
        trust_the_server(tmp_path)
        await flowing(link, settings)

        wrong = await failure(
            link, opcua.Settings(url=server.url, user="gateway", password=Secret("env X", "guess"))
        )
        assert "refuses user 'gateway'" in str(wrong)
        assert "guess" not in str(wrong)
        anonymous = await failure(link, opcua.Settings(url=server.url))
        assert "set `user` and `password`" in str(anonymous)
        assert (await server.ask("sessions", answer="sessions"))["count"] == 0


@pytest.mark.parametrize("security", ["auto", "none"])
async def test_a_password_never_goes_over_none(tmp_path: Path, free_port: Port, security: str) -> None:
    async with running(NODE_OPCUA, free_port(), "--user", "gateway:opensesame") as server:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=server.url, security=security, user="gateway", password=PASSWORD)
        refused = await failure(link, settings)
        assert "never sent over an unencrypted session" in str(refused)
        asked = (await server.ask("requests", answer="requests"))["counts"]
        assert asked == {"GetEndpointsRequest": 1}


async def test_the_own_certificate_is_made_once_and_kept_private(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port()) as plc:
        link = RecordingLink("press", tmp_path)
        settings = opcua.Settings(url=plc.url, publishing_interval_ms=50)
        await flowing(link, settings)
        again = RecordingLink("press", tmp_path)
        own = tmp_path / "pki" / "own"
        first = {file.name: file.read_bytes() for file in own.iterdir()}
        assert set(first) == {"certificate.der", "key.pem"}
        assert (own / "key.pem").stat().st_mode & 0o777 == 0o600
        await flowing(again, settings)
        assert {file.name: file.read_bytes() for file in own.iterdir()} == first
    certificate = x509.load_der_x509_certificate(first["certificate.der"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier)[0].endswith(":edge-gateway:test-gateway")


async def test_a_policy_that_is_not_offered_is_named(tmp_path: Path, free_port: Port) -> None:
    async with running(PLC, free_port()) as plc:
        link = RecordingLink("press", tmp_path)
        refused = await failure(link, opcua.Settings(url=plc.url, security="Basic256Sha256/Sign"))
        assert "does not offer security Basic256Sha256/Sign" in str(refused)
        assert "it offers none" in str(refused)


def test_many_threads_make_one_certificate(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Pki(tmp_path).identity("g").thumbprint, range(8)))
    assert len(set(made)) == 1


@pytest.mark.parametrize("name", ["key.pem", "certificate.der"])
def test_a_broken_file_of_ours_is_named(tmp_path: Path, name: str) -> None:
    Pki(tmp_path).identity("g")
    (tmp_path / "own" / name).write_bytes(b"broken")
    with pytest.raises(DeviceProblem, match=f"certificates in {tmp_path} cannot be used"):
        Pki(tmp_path).identity("g")


def test_the_certificate_is_valid_for_a_clock_that_was_never_set(tmp_path: Path) -> None:
    certificate = Pki(tmp_path).identity("g").certificate
    assert certificate.not_valid_before_utc == datetime(2024, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=20 * 365)
