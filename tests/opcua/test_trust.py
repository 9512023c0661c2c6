"""Whom the gateway trusts, against servers of another make: by authority, by a person, and no more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.__main__ import main
from gateway.clock import SystemClock
from gateway.controls.devices import Channel
from gateway.model import DeviceProblem, WaitingForTrust
from gateway.protocols import opcua
from gateway.protocols.opcua import trust_watch
from gateway.protocols.opcua.pki import Pki
from gateway.protocols.opcua.trust import thumbprint
from gateway.protocols.opcua.trusting import expiring, user_login
from gateway.settings import Secret
from tests.opcua.certificates import DAY, NOW, UNREADABLE_USAGE, Pair, made, revocations, unreadable
from tests.opcua.recording import RecordingLink, collecting, failure
from tests.peers.opcua_peer import NODE_OPCUA, Peer, running

Port = Callable[[], int]
URI_OF_NODE = "urn:edge-gateway:node"
ROOT = made("plant authority", authority=True, start=NOW - 1000 * DAY)


class SetClock(SystemClock):
    """A machine's clock that something has set."""

    def synchronised(self) -> bool:
        return True


def linked(folder: Path) -> RecordingLink:
    link = RecordingLink("mill", folder)
    link.clock = SetClock()
    return link


@asynccontextmanager
async def server_with(
    folder: Path, port: int, pair: Pair, *options: str, chain: str = "", accept: str = "yes"
) -> AsyncIterator[Peer]:
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "server.pem", folder / "server-key.pem"
    certificate.write_text(pair.pem + chain)
    key.write_text(pair.key_pem)
    shown = (
        "--certificate",
        str(certificate),
        "--key",
        str(key),
        "--security",
        "secure",
        "--accept",
        accept,
        "--uri",
        URI_OF_NODE,
    )
    async with running(NODE_OPCUA, port, *shown, *options) as server:
        yield server


def settings_for(server: Peer, **more: Any) -> opcua.Settings:
    return opcua.Settings(url=server.url, publishing_interval_ms=50, **more)


async def flowing(link: RecordingLink, settings: opcua.Settings) -> Channel:
    before = len(link.emitted)
    async with collecting(link, settings):
        await link.until(lambda: len(link.emitted) >= before + 5 and link.reports)
        (channel,) = [control for control in link.controls if isinstance(control, Channel)]
    return channel


async def test_an_authority_is_trusted_and_then_no_more(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_watch, "_LOOK_S", 0.05)
    line = made("line authority", ROOT, authority=True, start=NOW - 900 * DAY)
    pair = made("plc", line, uri=URI_OF_NODE)
    async with server_with(tmp_path / "server", free_port(), pair, chain=line.pem) as server:
        link, settings = linked(tmp_path), settings_for(server)
        pki = Pki(tmp_path / "pki")
        assert isinstance(await failure(link, settings), WaitingForTrust)
        (rejected,) = [entry for entry in await asyncio.to_thread(pki.entries) if entry.place == "rejected"]
        assert (rejected.device, rejected.thumbprint) == ("mill", thumbprint(pair.certificate))
        await asyncio.to_thread(pki.add, ROOT.pem.encode())
        assert (await flowing(link, settings)).thumbprint == thumbprint(pair.certificate)
        assert [entry.place for entry in await asyncio.to_thread(pki.entries)] == ["own", "trusted"]
        with pytest.raises(WaitingForTrust, match="neither is a chain to its issuer 'line authority'"):
            async with collecting(link, settings) as running_task:
                await link.until(lambda: any(isinstance(each, Channel) for each in link.controls))
                await asyncio.to_thread(pki.distrust, thumbprint(ROOT.certificate))
                await running_task


@pytest.mark.timeout(30)
async def test_a_revocation_list_that_is_overwritten_is_obeyed_and_one_that_is_broken_told(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_watch, "_LOOK_S", 0.05)
    pair = made("plc", ROOT, uri=URI_OF_NODE)
    async with server_with(tmp_path / "server", free_port(), pair) as server:
        link, settings = linked(tmp_path), settings_for(server)
        pki = Pki(tmp_path / "pki")
        await asyncio.to_thread(pki.identity, "g")
        await asyncio.to_thread(pki.add, ROOT.pem.encode())
        file = pki.trusted / "plant.crl"
        file.write_bytes(revocations(ROOT).public_bytes(Encoding.DER))
        with pytest.raises(DeviceProblem, match="was revoked by 'plant authority'"):
            async with collecting(link, settings) as running_task:
                await link.until(lambda: any(isinstance(each, Channel) for each in link.controls))
                (channel,) = [control for control in link.controls if isinstance(control, Channel)]
                file.write_bytes(b"half a list")
                await link.until(lambda: any(str(file) in warning for warning in channel.warnings))
                file.write_bytes(revocations(ROOT, pair).public_bytes(Encoding.DER))
                await running_task


async def test_an_expired_certificate_is_taken_when_a_person_says_so(
    tmp_path: Path, free_port: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = made("plc", uri=URI_OF_NODE, end=NOW - DAY)
    state = ["--state", str(tmp_path)]
    async with server_with(tmp_path / "server", free_port(), pair) as server:
        link, settings = linked(tmp_path), settings_for(server)
        assert "`edge-gateway trust mill`" in str(await failure(link, settings))
        assert await asyncio.to_thread(main, ["trust", "mill", *state]) == 0
        expired = await failure(link, settings)
        assert isinstance(expired, WaitingForTrust)
        assert f"expired on {(NOW - DAY).date()}: renew it at the server" in str(expired)
        assert await asyncio.to_thread(main, ["trust", "--expired", "mill", *state]) == 0
        channel = await flowing(link, settings)
        assert channel.warnings == (f"the server's certificate expired on {(NOW - DAY).date()}",)
    assert await asyncio.to_thread(main, ["trust", *state]) == 0
    listed = [line.split("\t")[:2] for line in capsys.readouterr().out.splitlines()[-2:]]
    assert ["trusted_expired", thumbprint(pair.certificate)] in listed


async def test_a_login_by_certificate(tmp_path: Path, free_port: Port) -> None:
    pair, user = made("plc", uri=URI_OF_NODE), made("operator")
    login = Secret("file operator.pem", user.pem + user.key_pem)
    options = ("--anonymous", "no", "--users-by-certificate", "yes")
    async with server_with(tmp_path / "server", free_port(), pair, *options) as server:
        link = linked(tmp_path)
        await asyncio.to_thread(Pki(tmp_path / "pki").add, pair.pem.encode())
        assert "set `user` and `password`" in str(await failure(link, settings_for(server)))
        await flowing(link, settings_for(server, user_certificate=login))


async def test_a_stranger_does_not_get_in_by_certificate(tmp_path: Path, free_port: Port) -> None:
    pair, user = made("plc", uri=URI_OF_NODE), made("operator")
    login = Secret("file operator.pem", user.pem + user.key_pem)
    async with server_with(tmp_path / "server", free_port(), pair) as server:
        link = linked(tmp_path)
        await asyncio.to_thread(Pki(tmp_path / "pki").add, pair.pem.encode())
        refused = await failure(link, settings_for(server, user_certificate=login))
        assert "refuses the certificate of `user_certificate`" in str(refused)


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(7200, "the server's clock is 02:00:00 ahead of"), (-7200, "the server's clock is 02:00:00 behind")],
)
async def test_a_clock_that_differs_is_shown(
    tmp_path: Path, free_port: Port, ahead_s: int, said: str
) -> None:
    options = ("--clock-ahead", str(ahead_s))
    async with running(NODE_OPCUA, free_port(), *options) as server:
        channel = await flowing(linked(tmp_path), settings_for(server))
        assert channel.clock_offset_us == pytest.approx(ahead_s * 1e6, abs=2e6)
        assert any(said in warning for warning in channel.warnings), channel.warnings


async def test_a_clock_is_named_where_it_is_why_the_server_refuses(tmp_path: Path, free_port: Port) -> None:
    pair = made("plc", uri=URI_OF_NODE, end=NOW + 20_000 * DAY)
    ahead = ("--clock-ahead", str(30 * 365 * 86_400))
    async with server_with(tmp_path / "server", free_port(), pair, *ahead, accept="no") as server:
        link = linked(tmp_path)
        await asyncio.to_thread(Pki(tmp_path / "pki").add, pair.pem.encode())
        refused = await failure(link, settings_for(server))
        assert "the server's clock is 10950 d 0 h ahead of the gateway's; set the clock" in str(refused)


@pytest.mark.parametrize(("days", "threshold"), [(61, None), (59, 60), (29, 30), (6, 7), (-1, 0)])
def test_what_expires_is_told_in_time(days: int, threshold: int | None) -> None:
    certificate = made("plc", end=NOW + days * DAY).certificate
    found = expiring({"the server's": certificate}, NOW - DAY / 24)
    assert [warned.days for warned in found] == ([] if threshold is None else [threshold])


def test_rejected_certificates_do_not_fill_the_disk(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    pki.identity("g")
    for number in range(105):
        pki.rejected.joinpath(f"mill-{number:040}.der").write_bytes(b"")
    pki.reject(made("plc").certificate, "mill")
    assert len(list(pki.rejected.iterdir())) == 100
    assert [entry.device for entry in pki.entries()[1:]] == ["mill"]


def test_several_certificates_of_a_device_have_to_be_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pki, pairs = Pki(tmp_path / "pki"), [made("plc"), made("plc")]
    pki.identity("g")
    for pair in pairs:
        pki.reject(pair.certificate, "mill")
    state = ["--state", str(tmp_path)]
    assert main(["trust", "mill", *state]) == 1
    assert thumbprint(pairs[0].certificate) in capsys.readouterr().err
    assert main(["trust", "", *state]) == 1
    assert main(["trust", thumbprint(pairs[0].certificate).lower(), *state]) == 0
    assert main(["trust", "--remove", thumbprint(pairs[1].certificate).lower(), *state]) == 0
    assert [entry.place for entry in pki.entries()] == ["own", "trusted"]
    assert main(["trust", "mill", *state]) == 1
    assert "no server showed a certificate as device or thumbprint 'mill'" in capsys.readouterr().err


EMPTY = revocations(ROOT)
FULL = revocations(ROOT, made("plc", ROOT))
DER = EMPTY.public_bytes(Encoding.DER)
PEM = EMPTY.public_bytes(Encoding.PEM)
HALF = PEM[: len(PEM) // 2]


@pytest.mark.parametrize(
    ("data", "certificates", "lists", "passed_over"),
    [
        pytest.param(DER, 0, 1, "", id="a list, DER"),
        pytest.param(PEM, 0, 1, "", id="a list, PEM"),
        pytest.param(PEM + FULL.public_bytes(Encoding.PEM), 0, 2, "", id="two lists"),
        pytest.param(ROOT.pem.encode() + PEM, 1, 1, "", id="an authority and its list"),
        pytest.param(b"Plant authority:\n" + ROOT.pem.encode(), 1, 0, "", id="with a comment"),
        pytest.param(ROOT.der, 1, 0, "", id="an authority, DER"),
        pytest.param(HALF, 0, 0, "holds no certificate and no revocation list", id="half a list"),
        pytest.param(DER[:-3], 0, 0, "holds no certificate and no revocation list", id="half a list, DER"),
        pytest.param(b"", 0, 0, "holds no certificate and no revocation list", id="an empty file"),
        pytest.param(HALF + ROOT.pem.encode() + PEM, 1, 1, "a part of", id="half a list before others"),
        pytest.param(DER.replace(b"plant", b"\xff" * 5), 0, 0, "holds no", id="a list of nobody"),
        pytest.param(bytes(2**20 + 1), 0, 0, "is larger than 1 MiB", id="too large"),
    ],
)
def test_what_a_file_of_trust_holds(
    tmp_path: Path, data: bytes, certificates: int, lists: int, passed_over: str
) -> None:
    pki = Pki(tmp_path)
    pki.identity("g")
    before = pki.version()
    pki.trusted.joinpath("file").write_bytes(data)
    assert pki.version() != before
    found = pki.lists()
    assert (len(found.trusted), len(found.revocations)) == (certificates, lists)
    assert [passed_over in sentence for sentence in found.passed_over] == ([True] if passed_over else [])


@pytest.mark.parametrize(
    ("target", "said"), [("nowhere", "is no file that can be read"), ("/proc/self/mem", "cannot be read (")]
)
def test_a_file_of_trust_that_cannot_be_read_is_told(tmp_path: Path, target: str, said: str) -> None:
    pki = Pki(tmp_path)
    pki.identity("g")
    pki.trusted.joinpath("ca.crl").symlink_to(target)
    pki.trusted.joinpath("folder").mkdir()
    pki.trusted.joinpath(".hidden").write_bytes(b"")
    (told,) = pki.lists().passed_over
    assert said in told and str(pki.trusted / "ca.crl") in told


@pytest.mark.parametrize("part", ["extension", "name", "key"])
def test_a_broken_certificate_of_a_stranger_stops_no_trust(
    tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pki, good = Pki(tmp_path / "pki"), made("good")
    stranger = made("stranger", usage=UNREADABLE_USAGE)
    broken = stranger.certificate if part == "extension" else unreadable(stranger, part)
    pki.identity("g")
    pki.reject(broken, "evil")
    pki.reject(good.certificate, "mill")
    state = ["--state", str(tmp_path)]
    assert main(["trust", "mill", *state]) == 0
    listed = {entry.thumbprint: entry for entry in pki.entries()}
    assert listed[thumbprint(good.certificate)].place == "trusted"
    assert listed[thumbprint(broken)].subject == ("" if part == "name" else "CN=stranger")
    assert main(["trust", *state]) == 0
    assert thumbprint(broken) in capsys.readouterr().out
    assert main(["trust", "--remove", thumbprint(broken), *state]) == 0
    assert [entry.place for entry in pki.entries()] == ["own", "trusted"]


def test_no_certificate_writes_to_the_terminal_what_it_likes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pki = Pki(tmp_path / "pki")
    pki.identity("g")
    pki.reject(made("plc\x1b]0;owned\x07\x1b[2K\rtrusted\tAAAA\n").certificate, "mill")
    assert main(["trust", "--state", str(tmp_path)]) == 0
    own, rejected = capsys.readouterr().out.splitlines()
    assert own.startswith("own\t") and rejected.startswith("rejected\t") and "owned" in rejected
    assert not any(word in rejected for word in "\x1b\x07\r") and rejected.count("\t") == 4


@pytest.mark.parametrize("text", ["", "-----BEGIN", made("operator").pem, made("operator").key_pem])
def test_half_a_login_is_named(text: str) -> None:
    with pytest.raises(DeviceProblem, match="no PEM text with a certificate and its private key"):
        user_login("mill", Secret("file operator.pem", text))


def test_a_key_of_another_certificate_is_named() -> None:
    with pytest.raises(DeviceProblem, match="belongs to another certificate"):
        user_login("mill", Secret("x", made("operator").pem + made("somebody").key_pem))


def test_a_login_is_by_user_or_by_certificate() -> None:
    with pytest.raises(ValueError, match="the server takes one of them"):
        opcua.Settings(url="opc.tcp://a", user="u", user_certificate=Secret("x", ""))
