"""The daemon in this process: a start and reloads where something fails or comes in between."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import control_socket, listeners
from gateway.clock import SystemClock
from gateway.daemon import Daemon
from gateway.model import RunRecord
from gateway.store import Store, StoreProblem

pytestmark = [pytest.mark.timeout(30)]
HTTP = "http: {listen: '127.0.0.1:0', tls: off}\n"


@asynccontextmanager
async def begun(tmp_path: Path, text: str) -> AsyncIterator[Daemon]:
    """Start the daemon; it may not be ready yet."""
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    daemon = await asyncio.to_thread(Daemon, file, state, {}, SystemClock())
    running = asyncio.create_task(daemon.run())
    try:
        async with asyncio.timeout(10):
            while not await _answers(daemon):
                assert not running.done(), running
                await asyncio.sleep(0.01)
        yield daemon
    finally:
        daemon.stop()
        await running


async def _answers(daemon: Daemon) -> bool:
    with contextlib.suppress(control_socket.NotRunning):
        return bool(await told(daemon, "are you there?"))
    return False


async def told(daemon: Daemon, command: str) -> Any:
    return await control_socket.ask(daemon.state, {"command": command})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_store_that_cannot_be_read_costs_a_device_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collected, failures = Store.last_collected, 0

    async def failing(self: Store, device: str) -> RunRecord | None:
        nonlocal failures
        if failures % 2 == 0:
            failures += 1
            raise StoreProblem("the disk refuses")
        failures += 1
        return await collected(self, device)

    monkeypatch.setattr(Store, "last_collected", failing)
    caplog.set_level(logging.INFO)
    async with begun(tmp_path, HTTP + "devices: {press: {push: {max_batch: 10}}}\n") as daemon:
        await until(lambda: "running as" in caplog.text)
        await until(lambda: daemon.devices["press"].health.state == "running")
        assert "device press: failed: the disk refuses" in caplog.text
        daemon.file.write_text(HTTP + "devices: {press: {push: {max_batch: 20}}}\n")
        assert (await told(daemon, "reload"))["changed"] == ["device press"]
        await until(lambda: daemon.devices["press"].health.state == "running")
    assert failures == 4


async def test_a_reload_during_the_start_is_what_runs_afterwards(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_UP_S", 1.0)
    taken, before, after = free_port(), free_port(), free_port()
    with socket.create_server(("127.0.0.1", taken)):  # the start waits for it
        compat = "{{icoapi: {{listen: '127.0.0.1:{}', tls: off}}}}"
        http = f"http: {{{{listen: '127.0.0.1:{{}}', tls: off, compat: {compat}}}}}\n"
        async with begun(tmp_path, http.format(taken, before)) as daemon:
            daemon.file.write_text(http.format(0, after))
            assert (await told(daemon, "reload"))["ok"]
            await until(lambda: [each.state for each in daemon.compat().values()] == ["running"])
            assert daemon.compat()["icoapi"].detail.endswith(f":{after}")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", before)


async def test_what_waits_for_a_restart_is_not_forgotten(tmp_path: Path) -> None:
    notes = ["store: changes there take effect when the service is restarted"]
    async with begun(tmp_path, HTTP) as daemon:
        for text, expected in (
            (HTTP + "store: {max: 1GB}\n", notes),
            (HTTP + "store: {max: 1GB}\nlogs: {level: WARNING}\n", notes),
            (HTTP, []),
        ):
            daemon.file.write_text(text)
            assert (await told(daemon, "reload"))["warnings"] == expected
            assert daemon.config().warnings == expected
