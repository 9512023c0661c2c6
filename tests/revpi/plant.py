"""A simulated Revolution Pi: PiCtory's configuration, a process image, and what the piControl driver does.

The configuration follows the schema that PiCtory writes (App, Summary, Devices, Connections; an input or
output is [name, default, bits, byte, exported, index, comment, bit]). The driver is written after its man
pages and its sources' behaviour, not after revpimodio2: it is the second opinion.
"""

import asyncio
import errno
import json
import os
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Device, DeviceProblem
from gateway.protocols import revpi
from gateway.supervise import Backoff, Keeper, Supervisor
from tests.opcua.recording import RecordingLink

Io = tuple[str, int, int, str, bool]
"""Name, bits, byte within its module, bit ("" for a whole number), exported."""
RUNNING, EXTRA, MISSING, MISMATCH = 1, 2, 4, 8


def module(
    kind: str, product: int, position: int, name: str, inputs: Iterable[Io], outputs: Iterable[Io] = (),
    memory: Iterable[Io] = (),
) -> dict[str, Any]:  # fmt: skip
    def ios(listed: Iterable[Io]) -> dict[str, list[Any]]:
        return {
            str(n): [io, "0", str(bits), str(byte), exported, f"{n:04d}", f"of {name}", bit]
            for n, (io, bits, byte, bit, exported) in enumerate(listed)
        }

    return {
        "GUID": f"guid-{position}", "id": f"device_{name}_001", "type": kind, "productType": str(product),
        "position": str(position), "name": name, "bmk": name, "inpVariant": 0, "outVariant": 0,
        "comment": "", "inp": ios(inputs), "out": ios(outputs), "mem": ios(memory), "extend": {},
    }  # fmt: skip


def core(product: int = 95, name: str = "RevPi Core") -> dict[str, Any]:
    """A Core 3 (95) or a Connect (105): 11 bytes."""
    return module("BASE", product, 0, name, [
        ("RevPiStatus", 8, 0, "", True), ("RevPiIOCycle", 8, 1, "", True),
        ("RS485ErrorCnt", 16, 2, "", False),
        ("Core_Temperature", 8, 4, "", False), ("Core_Frequency", 8, 5, "", False),
    ], [
        ("RevPiLED", 8, 6, "", True), ("RS485ErrorLimit1", 16, 7, "", False),
        ("RS485ErrorLimit2", 16, 9, "", False),
    ])  # fmt: skip


def connect4() -> dict[str, Any]:
    made = core(136, "RevPi Connect 4")
    made["out"]["0"][0] = "RevPiOutput"
    made["out"]["3"] = ["RevPiLED", "0", "16", "11", True, "0008", "", ""]
    return made


def compact() -> dict[str, Any]:
    return module("BASE", 104, 0, "RevPi Compact", [
        ("Core_Temperature", 8, 0, "", False), ("Core_Frequency", 8, 1, "", False),
        *((f"DIn_{n + 1}", 1, 2, str(n), True) for n in range(8)),
        *((f"AIn_{n + 1}", 16, 3 + 2 * n, "", True) for n in range(8)),
        ("DIn_Status", 8, 19, "", False), ("AIn_Status", 8, 20, "", False),
        ("DOut_Status", 16, 21, "", False),
    ], [("RevPiLED", 8, 23, "", True), ("DOut", 16, 24, "", True), ("AOut_1", 16, 26, "", True)])  # fmt: skip


def dio(position: int, suffix: str = "") -> dict[str, Any]:
    """Its inputs and outputs as bits that reach into the second byte, its counters, its PWM."""
    return module("LEFT_RIGHT", 96, position, f"RevPi DIO{suffix}", [
        *((f"I_{n + 1}{suffix}", 1, 0, str(n), True) for n in range(14)),
        ("InputStatus" + suffix, 16, 2, "", False), ("OutputStatus" + suffix, 16, 4, "", False),
        *((f"Counter_{n + 1}{suffix}", 32, 6 + 4 * n, "", False) for n in range(16)),
    ], [
        *((f"O_{n + 1}{suffix}", 1, 70, str(n), True) for n in range(14)),
        *((f"PWM_{n + 1}{suffix}", 8, 72 + n, "", False) for n in range(16)),
    ], [("InputMode_1" + suffix, 8, 88, "", False)])  # fmt: skip


def aio(position: int, suffix: str = "") -> dict[str, Any]:
    return module("LEFT_RIGHT", 103, position, f"RevPi AIO{suffix}", [
        *((f"InputValue_{n + 1}{suffix}", 16, 2 * n, "", True) for n in range(4)),
        *((f"InputStatus_{n + 1}{suffix}_a", 8, 8 + n, "", False) for n in range(4)),
        *((f"RTDValue_{n + 1}{suffix}", 16, 12 + 2 * n, "", True) for n in range(2)),
    ], [*((f"OutputValue_{n + 1}{suffix}", 16, 16 + 2 * n, "", True) for n in range(2))])  # fmt: skip


def mio(position: int) -> dict[str, Any]:
    return module("LEFT_RIGHT", 118, position, "RevPi MIO", [
        *((f"DigitalInput_{n + 1}", 1, 0, str(n), True) for n in range(8)),
        *((f"PulseLength_{n + 1}", 16, 1 + 2 * n, "", True) for n in range(4)),
        *((f"Fpwm_Pulse_{n + 1}", 16, 9 + 2 * n, "", True) for n in range(4)),
        *((f"AnalogInput_{n + 1}", 16, 17 + 2 * n, "", True) for n in range(8)),
    ], [*((f"AnalogOutput_{n + 1}", 16, 33 + 2 * n, "", True) for n in range(8))])  # fmt: skip


def virtual(position: int, registers: int = 8) -> dict[str, Any]:
    ios = [(f"Modbus_{n}", 16, 2 * n, "", True) for n in range(registers)]
    return module(
        "VIRTUAL", 24579, position, "Modbus TCP Client", [*ios, ("Label", 128, 2 * registers, "", True)]
    )


def gate(position: int) -> dict[str, Any]:
    return module("EDGE", 77, position, "Gateway PROFIBUS", [("Gate_In", 32, 0, "", True)])


def size(made: dict[str, Any]) -> int:
    ios = [io for part in ("inp", "out", "mem") for io in made[part].values()]
    return max(int(io[3]) + (int(io[7]) // 8 + 1 if io[7] else int(io[2]) // 8) for io in ios)


def configuration(*modules: dict[str, Any]) -> dict[str, Any]:
    """Lay the modules one after another into the image."""
    offset = 0
    for made in modules:
        made["offset"] = offset
        offset += size(made)
    app = {"name": "PiCtory", "version": "2.1.2", "saveTS": "20261031130813", "language": "en", "layout": {}}
    return {
        "App": app, "Summary": {"inpTotal": 0, "outTotal": 0}, "Devices": list(modules), "Connections": []
    }  # fmt: skip


def save(path: Path, *modules: dict[str, Any]) -> Path:
    """Save as PiCtory does: a new file each time."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(configuration(*modules), indent=2))
    new.replace(path)
    return path


class Box:
    """A box with its modules: files that the gateway reads, and values that a test sets by name."""

    def __init__(self, folder: Path, *modules: dict[str, Any]) -> None:
        self.rsc = folder / "config.rsc"
        self.image = folder / "piControl0"
        self.memory = bytearray(4096)
        self.configure(*modules)
        self.place("RevPiStatus", RUNNING)

    def configure(self, *modules: dict[str, Any]) -> None:
        """PiCtory: save as start configuration."""
        save(self.rsc, *modules)
        self.places = variables(self.rsc)

    def place(self, name: str, value: int) -> None:
        """Set a value by its PiCtory name where the newest configuration has it."""
        if name not in self.places:
            return
        offset, bit, bits = self.places[name]
        if bits == 1:
            self.memory[offset] = self.memory[offset] & ~(1 << bit) | bool(value) << bit
        else:
            length = bits // 8
            self.memory[offset : offset + length] = (value % (1 << bits)).to_bytes(length, "little")
        # In place and at once, as the driver's memory is: never truncated.
        fd = os.open(self.image, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, self.memory, 0)
        os.close(fd)

    def settings(self, **others: Any) -> revpi.Settings:
        fast = {"poll_interval_ms": 10, "keep_interval_ms": 0} | others
        return revpi.Settings(image=str(self.image), configuration=str(self.rsc), **fast)


def variables(rsc: Path) -> dict[str, tuple[int, int, int]]:
    """Return byte, bit and number of bits of every name, as the driver's piConfigParse finds them."""
    found = {}
    for made in json.loads(rsc.read_text())["Devices"]:
        for part in ("inp", "out", "mem"):
            for name, _default, bits, byte, _exported, _index, _comment, bit in made[part].values():
                position = int(bit) if int(bits) == 1 else 0
                found[name] = (int(byte) + made["offset"] + position // 8, position % 8, int(bits))
    return found


class Driver:
    """What the kernel adds to the image file: a cycle that may stand still, a configuration of its own."""

    def __init__(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        self.box = box
        self.running = True
        self.missing: set[int] = set()
        self.calls: list[int] = []
        self.reads = 0
        self.reset()
        self._pread = os.pread
        monkeypatch.setattr("gateway.protocols.revpi.image.os.pread", self._read)
        monkeypatch.setattr("gateway.protocols.revpi.image.fcntl.ioctl", self._ioctl)

    def reset(self) -> None:
        """`piTest -x`: read the configuration anew."""
        self.variables = {name[:31]: place for name, place in variables(self.box.rsc).items()}
        self.positions = [int(m["position"]) for m in json.loads(self.box.rsc.read_text())["Devices"]]

    def _read(self, fd: int, length: int, offset: int) -> bytes:
        self.reads += 1
        if not self.running:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._pread(fd, length, offset)

    def _ioctl(self, fd: int, request: int, argument: bytearray) -> int:
        self.calls.append(request)
        if not self.running:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if request == 0x4B0D:  # KB_GET_DEVICE_INFO_LIST
            for n, position in enumerate(self.positions):
                argument[72 * n], argument[72 * n + 39] = position, position not in self.missing
            return len(self.positions)
        assert request == 0x4B11, "KB_FIND_VARIABLE: nothing else may be asked of the driver"
        name = bytes(argument[:32]).split(b"\0")[0].decode()
        if name not in self.variables:  # of a longer name it knows the first 31 bytes only
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        offset, bit, bits = self.variables[name]
        argument[32:38] = struct.pack("<HBxH", offset, bit, bits)
        return 0


@asynccontextmanager
async def collecting(
    link: RecordingLink, settings: revpi.Settings, tags: dict[str, revpi.TagSettings] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Enter while the protocol runs once; a failure of it fails the test at the end."""
    where = {name: f"gateway.yaml:{line}" for line, name in enumerate(tags or {}, 10)}
    task = asyncio.create_task(revpi.run(Device(link.device, tags or {}, where), settings, link))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def supervised(link: RecordingLink, settings: revpi.Settings) -> AsyncIterator[Keeper]:
    """Enter while the protocol is kept running as in the daemon."""

    async def run(keeper: Keeper) -> None:
        link.keeper = keeper
        await revpi.run(Device(link.device), settings, link)

    keeper = Supervisor(link.clock).keep(link.device, run, backoff=Backoff(0.05, 0.1))
    try:
        yield keeper
    finally:
        await keeper.stop()


async def failure(link: RecordingLink, settings: revpi.Settings) -> DeviceProblem:
    """Return the problem with which one attempt ends."""
    try:
        await revpi.run(Device(link.device), settings, link)
    except DeviceProblem as problem:
        return problem
    raise AssertionError("it ended without a problem")
