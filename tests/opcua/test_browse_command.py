"""`edge-gateway browse`, the command itself, against servers."""

import asyncio
import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.__main__ import main
from gateway.commands import foreign_text
from gateway.config import load
from tests.peers.opcua_peer import NODE_OPCUA, PLC, running

Port = Callable[[], int]
pytestmark = pytest.mark.timeout(30)


async def browse(state: Path, *words: str) -> tuple[int, str, str]:
    """Return exit code, output and complaints."""
    state.mkdir(exist_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = await asyncio.to_thread(main, ["browse", *words, "--state", str(state)])
    return code, out.getvalue(), err.getvalue()


async def test_a_tree_with_types_values_and_access(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--types", "yes", "--per-call", "7") as server:
        code, out, err = await browse(tmp_path / "state", server.url)
        assert code == 0
        lines = out.splitlines()
        at = lines.index("Line1")
        assert [line.split() for line in lines[at + 1 : at + 3]] == [
            ["Tag0", "Double", "rw", "0.0"],
            ["Tag1", "Double", "rw", "1.0"],
        ]
        assert any(line.split() == ["Array", "Int32", "rw", "[1,", "2,", "3]"] for line in lines)
        assert not any("ServerStatus" in line for line in lines)
        assert "insecure" in err
        _, top, _ = await browse(tmp_path / "state", server.url, "--depth", "1")
        assert {"Line1", "Types"} <= set(top.split()) and "Tag0" not in top
        _, below, _ = await browse(tmp_path / "state", server.url, "--root", "i=2253", "--match", "State")
        assert {"ServerStatus", "State"} <= set(below.split()) and "BuildInfo" not in below


async def test_yaml_to_paste_is_a_configuration(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port()) as server:
        file = tmp_path / "gateway.yaml"
        file.write_text(f'devices:\n  mill:\n    opcua: "{server.url}"\n')
        named = ("mill", "--config", str(file))
        code, out, _ = await browse(
            tmp_path / "state", *named, "--yaml", "--match", "Line?/Tag[0]", "--match", "Tag3"
        )
        assert code == 0
        file.write_text(file.read_text() + out)
        tags = (await asyncio.to_thread(load, file, {})).devices["mill"].device.tags
        assert list(tags) == ["Line1/Tag3"]
        assert tags["Line1/Tag3"].node.startswith("nsu=") and tags["Line1/Tag3"].node.endswith(
            ";s=Line1.Tag3"
        )
        code, _, err = await browse(tmp_path / "state", *named, "--match", "Nothing*")
        assert (code, "nothing is there that matches" in err) == (1, True)


async def test_a_server_that_nobody_trusts_yet(tmp_path: Path, free_port: Port) -> None:
    async with running(NODE_OPCUA, free_port(), "--security", "secure") as server:
        code, out, err = await browse(tmp_path / "state", server.url)
        assert (code, out) == (1, "")
        assert f"edge-gateway trust 127.0.0.1:{server.port}" in err
        assert list((tmp_path / "state" / "pki" / "rejected").iterdir())


async def test_what_cannot_be_browsed_is_said_in_a_sentence(tmp_path: Path, free_port: Port) -> None:
    state, file = tmp_path / "state", tmp_path / "gateway.yaml"
    file.write_text('devices:\n  mill: {opcua: "opc.tcp://127.0.0.1:1"}\n')
    cases = {
        ("http://plc",): "opc.tcp://",
        ("saw", "--config", str(file)): "no OPC UA device 'saw' (it has: mill)",
        ("mill", "--config", str(file)): "nothing listens there",
        ("mill", "--config", str(tmp_path / "none")): "there is no such file",
    }
    for words, sentence in cases.items():
        code, _, err = await browse(state, *words)
        assert (code, sentence in err, "Traceback" in err) == (1, True, False), err
    async with running(PLC, free_port()) as server:
        code, _, err = await browse(state, server.url, "--root", "Line9")
        assert (code, "root 'Line9'" in err) == (1, True)


async def test_a_server_without_a_session_left(tmp_path: Path, free_port: Port) -> None:
    from asyncua import Client

    async with running(NODE_OPCUA, free_port(), "--max-sessions", "1") as server, Client(server.url):
        code, _, err = await browse(tmp_path / "state", server.url)
        assert code == 1
        assert "all sessions of the server are taken" in err and "a running gateway has one" in err


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example('"\\\u00a0\x1b[2J\U000e0001')
def test_what_the_server_says_is_one_printable_line_of_yaml(name: str) -> None:
    quoted = foreign_text.quoted(name)
    assert quoted.isprintable() and foreign_text.printable(name).isprintable()
    assert yaml.safe_load(quoted) == name
