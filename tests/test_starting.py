"""Starts that the disk holds up: they wait, say so, and end in no loop."""

import asyncio
import errno
import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import daemon as daemon_module
from gateway import starting
from gateway.api.tokens import Tokens
from gateway.clock import SystemClock
from gateway.daemon import Daemon
from gateway.store.hotfile import HotFile
from tests.test_daemon import HTTP, begun, told, until

pytestmark = [pytest.mark.timeout(30), pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


class Disk:
    """Refuses a step until it is mended."""

    def __init__(self, number: int) -> None:
        self.error: OSError | None = OSError(number, os.strerror(number))
        self.refusals = 0

    def before(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **more: Any) -> Any:
            if self.error is not None:
                self.refusals += 1
                raise self.error
            return step(*arguments, **more)

        return stepped


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = os.path.relpath(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.settimeout(0)
        taker.bind(path)
        yield taker
    gc.collect()  # the notifier has its socket as long as the process lives


def heard(systemd: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines += systemd.recv(4096).decode().splitlines()
        except BlockingIOError:
            return lines


async def test_a_disk_that_refuses_at_the_start_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: socket.socket
) -> None:
    monkeypatch.setattr(starting, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(starting, "_LOOK_S", 0.05)
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    disk, lines = Disk(errno.EROFS), list[str]()
    making = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **more: Any) -> None:
        if self == tmp_path / "data" / "store" and disk.error is not None:
            raise disk.error
        making(self, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)

    def all_heard() -> list[str]:
        lines.extend(heard(systemd))
        return lines

    store = f"store: {{path: {tmp_path}/data/store}}\n"
    async with begun(tmp_path, HTTP + store) as daemon:  # the socket answers while the store refuses
        await until(lambda: all_heard().count("WATCHDOG=1") > 3)
        before = lines.index("READY=1")
        assert any(each.startswith("EXTEND_TIMEOUT_USEC=") for each in lines[:before])
        assert not any(each.startswith("EXTEND_TIMEOUT_USEC=") for each in lines[before:])
        refusal = (
            f"the store's folder {tmp_path}/data/store: Read-only file system; there is no such folder: "
        )
        assert lines[-1].startswith(f"STATUS={refusal}")
        assert "install -d -o edge-gateway" in lines[-1]
        for command in ("status", "health", "reload"):
            answer = await told(daemon, command)
            assert not answer["ok"]
            assert answer["problems"][0].startswith(f"not started yet: {refusal}")
        disk.error = None
        await until(lambda: daemon.address is not None)
        assert (await told(daemon, "status"))["ok"]
        await until(lambda: any("0 of 0 devices running" in each for each in all_heard()))


async def test_a_start_that_works_is_not_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: socket.socket
) -> None:
    monkeypatch.setattr(starting, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(starting, "_LOOK_S", 0.05)
    lines: list[str] = []
    lock = HotFile.lock

    def slow(self: HotFile) -> None:  # a migration, say
        while lines.count("EXTEND_TIMEOUT_USEC=30000000") < 4:
            lines.extend(heard(systemd))
        assert "READY=1" not in lines
        lock(self)

    monkeypatch.setattr(HotFile, "lock", slow)
    async with begun(tmp_path, HTTP):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_first_start_on_a_full_disk_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(starting, "_AGAIN_S", 0.05)
    name, tokens = Disk(number), Disk(number)
    monkeypatch.setattr(daemon_module, "gateway_id", name.before(daemon_module.gateway_id))
    monkeypatch.setattr(Tokens, "open", tokens.before(Tokens.open))
    (tmp_path / "state").mkdir()
    (tmp_path / "gateway.yaml").write_text(HTTP)
    daemon = await asyncio.to_thread(Daemon, tmp_path / "gateway.yaml", tmp_path / "state", {}, SystemClock())
    running = asyncio.create_task(daemon.run())
    for disk in (name, tokens):
        await until(lambda disk=disk: running.done() or disk.refusals > 2)  # type: ignore[misc]
        assert not running.done()
        disk.error = None
    await until(lambda: daemon.address is not None)
    assert caplog.text.count("it is tried again each second") == 2
    daemon.stop()
    await running


async def test_what_waiting_cannot_mend_ends_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(errno.EACCES)
    monkeypatch.setattr(daemon_module, "gateway_id", disk.before(daemon_module.gateway_id))
    (tmp_path / "state").mkdir()
    (tmp_path / "gateway.yaml").write_text(HTTP)
    daemon = await asyncio.to_thread(Daemon, tmp_path / "gateway.yaml", tmp_path / "state", {}, SystemClock())
    with pytest.raises(PermissionError):
        await daemon.run()


async def test_what_the_state_directory_and_the_measurements_refuse_ends_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "data"
    # Folders in their places cannot be removed, as nothing can on a disk that is read-only.
    for folder in (state / "control.sock", state / ".store", state / "measurements" / ".a.incoming"):
        folder.mkdir(parents=True)
    (tmp_path / "gateway.yaml").write_text(HTTP + f"store: {{path: {elsewhere}}}\n")
    daemon = await asyncio.to_thread(Daemon, tmp_path / "gateway.yaml", state, {}, SystemClock())
    running = asyncio.create_task(daemon.run())
    await until(lambda: running.done() or daemon.address is not None)
    daemon.stop()
    await running
    for sentence in (
        f"{state}/control.sock cannot be made",
        f"{state} cannot note that the store is {elsewhere}",
        f"{state}/measurements refuses",
    ):
        assert sentence in caplog.text


async def test_a_control_socket_that_cannot_be_removed_spoils_no_stop(tmp_path: Path) -> None:
    async with begun(tmp_path, HTTP) as daemon:
        (daemon.state / "control.sock").unlink()
        (daemon.state / "control.sock").mkdir()
