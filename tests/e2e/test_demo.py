"""`make demo` does the main job: values of the simulated PLC on the API and in the simulated dataspace."""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.demo import plant
from gateway.model import GatewayError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two demos that begin at the same moment find the same ports free."""
    with (tmp_path_factory.getbasetemp().parent / "demo.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


async def test_the_demo_brings_values_from_the_plc_to_the_dataspace(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "demo", "--folder", str(tmp_path / "demo"), "--seconds", "15"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 80)
    said = output.decode()
    assert process.returncode == 0, said
    assert re.search(r"dashboard +http://127\.0\.0\.1:\d+/", said)
    stored, delivered = map(int, re.findall(r"(\d+) samples stored +(\d+) in the dataspace", said)[-1])
    assert stored > 100, said
    assert delivered > 50, said
    for device, tags in (
        ("press", {"PressStatus.Force", "PressTemperatures.Oil"}),
        ("tools", {"vibration", "battery"}),
    ):
        exported = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "export", "--device", device),
            *("--state", str(tmp_path / "demo" / "state")),
            stdout=asyncio.subprocess.PIPE,
        )
        rows, _ = await asyncio.wait_for(exported.communicate(), 30)
        assert tags <= {row.split(",")[1] for row in rows.decode().splitlines()}, said
    assert "ERROR" not in (tmp_path / "demo" / "gateway.log").read_text()


@contextlib.asynccontextmanager
async def demo(folder: Path, *more: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "demo", "--folder", str(folder), *more), stdout=PIPE, stderr=STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def said(process: Process, sentence: str) -> str:
    """Return what it says up to a sentence."""
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(80):
        while sentence not in text:
            line = await process.stdout.readline()
            assert line, text
            text += line.decode()
    return text


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def all_gone(pids: Sequence[int]) -> None:
    def left() -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    try:
        async with asyncio.timeout(30):
            while left():
                await asyncio.sleep(0.1)
    finally:
        for pid in left():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("way", [signal.SIGHUP, signal.SIGKILL])
async def test_nothing_of_a_demo_outlives_it(tmp_path: Path, way: signal.Signals) -> None:
    """A closed terminal, a dropped ssh; and no second demo disturbs one that runs."""
    folder = tmp_path / "my demo, 2: {x}"
    async with demo(folder) as process:
        await said(process, "Ctrl-C ends it")
        before = {file: file.read_bytes() for file in folder.iterdir() if file.suffix in (".yaml", ".json")}
        async with demo(folder) as second:
            out, _ = await second.communicate()
        assert second.returncode == 1 and f"already (process {process.pid})" in out.decode()
        assert before == {file: file.read_bytes() for file in before} and len(before) == 2
        parts = children(process.pid)
        assert len(parts) == 4
        process.send_signal(way)
        await process.wait()
        await all_gone(parts)
        assert process.returncode == (0 if way == signal.SIGHUP else -signal.SIGKILL)


async def test_a_part_that_ends_is_told(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        await said(process, "Ctrl-C ends it")
        os.kill(children(process.pid)[0], signal.SIGKILL)
        out, _ = await process.communicate()
    assert (process.returncode, "gateway.demo.plc ended by itself" in out.decode()) == (1, True)


async def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        async with asyncio.timeout(60):
            while not (tmp_path / "gateway.demo.plc.log").exists():
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert (process.returncode, out.strip()) == (0, b"")


def test_a_configuration_that_was_edited_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gateway.yaml"
    ports = plant._prepared(tmp_path, config)
    made = config.read_text()
    config.write_text(made + "# mine\n")
    assert plant._prepared(tmp_path, config) == ports
    assert config.read_text() == made + "# mine\n" and "was edited: it stays" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", ports["bus"])):
        with pytest.raises(GatewayError, match=f"somebody else has its port {ports['bus']}"):
            plant._prepared(tmp_path, config)
        config.write_text(made)
        assert plant._prepared(tmp_path, config)["bus"] != ports["bus"]
        assert config.read_text() != made, "what nobody edited takes other ports"


async def test_a_configuration_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("devices: {}\n")
    async with demo(tmp_path) as process:
        out, _ = await process.communicate()
    assert process.returncode == 1 and "is of no demo" in out.decode()
    assert (tmp_path / "gateway.yaml").read_text() == "devices: {}\n"
    assert {file.name for file in tmp_path.iterdir()} == {"gateway.yaml", "demo.lock"}
