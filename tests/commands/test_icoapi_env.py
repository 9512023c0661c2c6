"""The settings that a `.env` of ICOapi stands for: what is printed is a configuration that says the same."""

import asyncio
from pathlib import Path

import pytest

from gateway.config import load
from tests.commands.conftest import command

ENV = """\
# ICOapi
VITE_API_PROTOCOL=http
VITE_API_HOSTNAME="192.168.7.1"
export VITE_API_PORT=33216
VITE_API_VERSION=v1
VITE_API_ORIGINS="http://localhost,http://localhost:5173"
VITE_API_WS_PROTOCOL=ws
WEBSOCKET_UPDATE_RATE=120
VITE_APPLICATION_FOLDER=ICOdaq
LOG_LEVEL=CRITICAL
LOG_USE_JSON=1
TRIDENT_PASSWORD=geheim
"""


@pytest.mark.seed_row(43)
async def test_what_is_printed_is_a_configuration_that_says_the_same(tmp_path: Path) -> None:
    env, made = tmp_path / ".env", tmp_path / "gateway.yaml"
    env.write_text(ENV)
    said = await command("icoapi-env", env)
    assert said.code == 0, said.err
    assert "geheim" not in said.out + said.err and "TRIDENT_PASSWORD has no setting here" in said.err
    made.write_text("devices: {}\n" + said.out)
    config = await asyncio.to_thread(load, made)
    assert config.http.compat is not None
    icoapi = config.http.compat.icoapi
    assert icoapi is not None
    assert (icoapi.listen, icoapi.tls, icoapi.anonymous) == ("192.168.7.1:33216", "off", "operate")
    assert icoapi.cors == ("http://localhost", "http://localhost:5173") and icoapi.updates_per_s == 120
    assert (config.logs.level, config.logs.format) == ("ERROR", "json")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no line of NAME=VALUE"), (b"\xff", "no UTF-8 text"), (None, "No such file")],
)
async def test_what_is_no_env_is_said(tmp_path: Path, content: bytes | None, words: str) -> None:
    env = tmp_path / ".env"
    if content is not None:
        env.write_bytes(content)
    said = await command("icoapi-env", env)
    assert said.code == 1 and words in said.err and "Traceback" not in said.err


async def test_secure_protocols_stay_secure(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("VITE_API_PROTOCOL=https\n")
    said = await command("icoapi-env", env)
    assert 'tls: "self-signed"' in said.out and "logs" not in said.out
