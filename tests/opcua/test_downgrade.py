"""Who stands between us and the server gets no weaker session than the server would give."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_to_binary, struct_from_binary, struct_to_binary

from gateway.model import WaitingForTrust
from gateway.protocols import opcua
from gateway.protocols.opcua.security import NONE, Choice, Offer, downgraded
from tests.opcua.recording import RecordingLink, failure
from tests.opcua.test_security import flowing, trust_the_server
from tests.peers.opcua_peer import NODE_OPCUA, Peer, running

Port = Callable[[], int]
_HEADER = 8
_PLAIN = 24
_GET_ENDPOINTS = nodeid_to_binary(ua.FourByteNodeId(ua.ObjectIds.GetEndpointsResponse_Encoding_DefaultBinary))
ENCRYPTED = ua.MessageSecurityMode.SignAndEncrypt
BEST, SIGNED = "Aes256_Sha256_RsaPss/SignAndEncrypt", "Aes256_Sha256_RsaPss/Sign"


class Attacker:
    """Reads and changes what is not protected: the list of endpoints, and refusals."""

    def __init__(self, server: Peer, url: str) -> None:
        self.server, self.url = server, url
        self.hides: Callable[[ua.EndpointDescription], bool] = lambda _: False
        self.refuses = 0
        """How many secured channels it refuses in the server's name."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, towards = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, towards, writer, self._asked))
                group.create_task(self._pass(there, writer, towards, self._answered))
        except* (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for each in (writer, towards):
                each.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        change: Callable[[bytes], tuple[bytes, bytes]],
    ) -> None:
        while True:
            head = await reader.readexactly(_HEADER)
            frame = head + await reader.readexactly(struct.unpack("<I", head[4:])[0] - _HEADER)
            forward, answer = change(frame)
            writer.write(forward)
            back.write(answer)
            await writer.drain()

    def _asked(self, frame: bytes) -> tuple[bytes, bytes]:
        if not frame.startswith(b"OPN") or b"SecurityPolicy#None" in frame[:200] or not self.refuses:
            return frame, b""
        self.refuses -= 1
        return b"", struct.pack("<4sIIi", b"ERRF", 16, ua.StatusCodes.BadSecurityPolicyRejected, -1)

    def _answered(self, frame: bytes) -> tuple[bytes, bytes]:
        if frame.startswith(b"MSG") and frame[_PLAIN:].startswith(_GET_ENDPOINTS):
            response = struct_from_binary(ua.GetEndpointsResponse, Buffer(frame, _PLAIN))
            response.Endpoints = [each for each in response.Endpoints if not self.hides(each)]
            body = struct_to_binary(response)
            frame = b"MSGF" + struct.pack("<I", _PLAIN + len(body)) + frame[_HEADER:_PLAIN] + body
        return frame, b""


@asynccontextmanager
async def attacked(free_port: Port, *options: str) -> AsyncIterator[Attacker]:
    """Enter a server that accepts everybody, and is reached only through an attacker."""
    port = free_port()
    url = f"opc.tcp://127.0.0.1:{port}/node"
    options = ("--advertised", url, "--accept", "yes", *options)
    async with running(NODE_OPCUA, free_port(), *options) as server:
        attacker = Attacker(server, url)
        async with await asyncio.start_server(attacker.connected, "127.0.0.1", port):
            yield attacker


def encrypted(endpoint: ua.EndpointDescription) -> bool:
    return bool(endpoint.SecurityMode == ENCRYPTED)


@pytest.mark.timeout(60)
async def test_what_is_taken_out_of_the_list_of_endpoints_is_missed(tmp_path: Path, free_port: Port) -> None:
    async with attacked(free_port, "--security", "both") as attacker:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=attacker.url, publishing_interval_ms=50)
        assert isinstance(await failure(link, settings), WaitingForTrust)
        trust_the_server(tmp_path)

        attacker.hides = encrypted
        stripped = str(await failure(link, settings))
        assert f"{BEST}, which the server offers, was missing in its list of endpoints" in stripped
        assert f"write `security: {SIGNED}`" in stripped
        attacker.hides = lambda endpoint: endpoint.SecurityMode != ua.MessageSecurityMode.None_
        everything = str(await failure(link, settings))
        assert f"{BEST}, which the server offers, was missing" in everything
        assert "write `security: none`" in everything
        asked = (await attacker.server.ask("requests", answer="requests"))["counts"]
        assert asked["CreateSessionRequest"] == 2 and "ActivateSessionRequest" not in asked

        attacker.hides = encrypted
        named = opcua.Settings(url=attacker.url, security=SIGNED, publishing_interval_ms=50)
        assert (await flowing(link, named)).security == SIGNED

        attacker.hides = lambda _: False
        link = RecordingLink("mill", tmp_path)
        assert (await flowing(link, settings)).security == BEST


@pytest.mark.timeout(60)
async def test_a_refusal_that_nobody_signed_takes_no_encryption_away(tmp_path: Path, free_port: Port) -> None:
    async with attacked(free_port, "--security", "secure") as attacker:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=attacker.url, publishing_interval_ms=50)
        assert isinstance(await failure(link, settings), WaitingForTrust)
        trust_the_server(tmp_path)
        attacker.refuses = 3
        refused = str(await failure(link, settings))
        assert f"{BEST}, which the server offers, was refused by an answer that nobody signed" in refused
        attacker.refuses = 1
        assert (await flowing(link, settings)).security == "Basic256Sha256/SignAndEncrypt"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("told", "works"), [("none", SIGNED), ("elsewhere", "")])
async def test_a_server_that_tells_other_endpoints_or_none(
    tmp_path: Path, free_port: Port, told: str, works: str
) -> None:
    async with attacked(free_port, "--security", "secure", "--session-endpoints", told) as attacker:
        link = RecordingLink("mill", tmp_path)
        settings = opcua.Settings(url=attacker.url, publishing_interval_ms=50)
        assert isinstance(await failure(link, settings), WaitingForTrust)
        trust_the_server(tmp_path)
        assert (await flowing(link, settings)).security == BEST
        attacker.hides = encrypted
        link = RecordingLink("mill", tmp_path)
        if works:  # there is nothing to compare with
            assert (await flowing(link, settings)).security == works
        else:
            assert "was missing in its list of endpoints" in str(await failure(link, settings))


ANONYMOUS, BY_NAME = ua.UserTokenType.Anonymous, ua.UserTokenType.UserName


def endpoint(way: str, url: str = "opc.tcp://plc:4840", tokens: Sequence[Any] = (ANONYMOUS,)) -> Any:
    policy, _, mode = way.partition("/")
    made = ua.EndpointDescription(EndpointUrl=url, ServerCertificate=b"x")
    made.SecurityPolicyUri = f"http://opcfoundation.org/UA/SecurityPolicy#{policy}"
    made.SecurityMode = ua.MessageSecurityMode[mode or "None_"]
    made.UserIdentityTokens = [ua.UserTokenPolicy(TokenType=kind) for kind in tokens]
    return made


STRONG, WEAK = endpoint(BEST), endpoint(SIGNED)
WEAK_WAY = Choice("Aes256_Sha256_RsaPss", "Sign", b"x")
MISSED = f"{BEST}, which the server offers, was missing in its list of endpoints, which nobody signs"


@pytest.mark.parametrize(
    ("shown", "signed", "missed"),
    [
        pytest.param([WEAK], [WEAK, STRONG], MISSED, id="it was taken out"),
        pytest.param([WEAK], [WEAK], "", id="there is nothing stronger"),
        pytest.param([WEAK], [], "", id="nothing to compare with"),
        pytest.param([], [WEAK, STRONG], "", id="nobody asked: the session of before"),
        pytest.param(
            [WEAK], [WEAK, endpoint(BEST, "https://plc:443")], "", id="stronger over another transport"
        ),
        pytest.param(
            [WEAK], [WEAK, endpoint(BEST, "opc.tcp://plc:4841")], "", id="stronger at another port"
        ),
        pytest.param(
            [WEAK], [endpoint(SIGNED, "opc.tcp://10.0.0.7:14840"), endpoint(BEST, "opc.tcp://plc:14840")],
            MISSED, id="by other names and another port",
        ),
        pytest.param([WEAK], [WEAK, endpoint(BEST, tokens=[BY_NAME])], "", id="stronger, but not for us"),
        pytest.param(
            [WEAK, endpoint(BEST, tokens=[BY_NAME])], [WEAK, STRONG], MISSED, id="our login was taken out"
        ),
        pytest.param(
            [WEAK, endpoint(BEST, tokens=[BY_NAME])], [WEAK, endpoint(BEST, tokens=[])], "",
            id="the signed list leaves all logins out",
        ),
        pytest.param([WEAK], [WEAK, endpoint(BEST, tokens=[])], MISSED, id="taken out, no logins told"),
        pytest.param([WEAK], [WEAK, endpoint("Basic256/SignAndEncrypt")], "", id="stronger, but outdated"),
    ],
)  # fmt: skip
def test_the_signed_endpoints_are_compared(shown: list[Any], signed: list[Any], missed: str) -> None:
    offer = Offer([WEAK_WAY], shown, None)
    assert downgraded(opcua.Settings(url="opc.tcp://plc"), offer, WEAK_WAY, signed) == missed


def test_an_open_session_is_not_compared_where_it_was_asked_for() -> None:
    plain = endpoint("None")
    offer = Offer([NONE], [plain], None)
    signed = [plain, STRONG]
    assert downgraded(opcua.Settings(url="opc.tcp://plc"), offer, NONE, signed) == MISSED
    assert downgraded(opcua.Settings(url="opc.tcp://plc", security="none"), offer, NONE, signed) == ""
