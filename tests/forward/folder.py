"""A folder of files as the measurements' would be, and an upload of it as the daemon keeps it."""

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.controls.files import FileState
from gateway.forward import FileLane, Forwarder
from gateway.model import GatewayError
from gateway.store import Store
from gateway.supervise import Backoff, Supervisor
from gateway.uploaders.dataspace import Settings
from tests.forward.plant import dataspace_settings
from tests.peers.receiver import Receiver

DIALECTS = ("management", "s3")


@dataclass
class Folder:
    """A FileSource."""

    path_of: Path
    names: list[str] = field(default_factory=list)
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def recorded(self) -> list[str]:
        return list(self.names)

    def path(self, name: str) -> Path:
        return self.path_of / name

    async def about(self, name: str) -> Mapping[str, Any]:
        if not name.endswith(".hdf5"):
            raise GatewayError("not a measurement")
        return {"pre_metadata": {"profile": "turning"}, "device": "tools"}

    @contextlib.contextmanager
    def listen(self, told: Callable[[], None]) -> Iterator[None]:
        self.listeners.append(told)
        try:
            yield
        finally:
            self.listeners.remove(told)

    def write(self, name: str, size: int = 300_000, seed: int = 1) -> str:
        """Put a file into place as the measurements do; return its MD5."""
        content = random.Random(seed).randbytes(size)
        draft = self.path_of / f".{name}.part"
        draft.write_bytes(content)
        draft.replace(self.path_of / name)
        if name not in self.names:
            self.names.append(name)
        for told in self.listeners:
            told()
        return hashlib.md5(content).hexdigest()


def file_settings(peer: Receiver, dialect: str = "management", **more: Any) -> Settings:
    bucket = "demo" if dialect == "s3" else ""
    return dataspace_settings(peer, dialect=dialect, bucket=bucket, **more)


@asynccontextmanager
async def uploading(
    store: Store, folder: Folder, settings: Settings
) -> AsyncIterator[tuple[FileLane, Forwarder]]:
    clock = SystemClock()
    store.pin(["cloud"])
    backoff = Backoff(first_s=0.05, cap_s=0.1)
    forwarder = Forwarder("cloud", "dataspace", settings, store, clock, "gw-1", backoff, folder)
    lane = forwarder.files
    assert lane is not None
    supervisor = Supervisor(clock)
    supervisor.keep("upload cloud", forwarder.run)
    supervisor.keep("files of upload cloud", lane.run)
    try:
        yield lane, forwarder
    finally:
        await supervisor.close()


async def state_of(lane: FileLane, name: str) -> FileState:
    return (await lane.states()).get(name, FileState("none"))


async def until_state(lane: FileLane, name: str, state: str, seconds: float = 30) -> FileState:
    end = time.monotonic() + seconds
    while (found := await state_of(lane, name)).state != state or (state == "up_to_date" and found.queued):
        assert time.monotonic() < end, f"{name} is not {state} but {found}"
        await asyncio.sleep(0.03)
    return found


async def the_only_object(peer: Receiver, name: str, md5: str) -> None:
    """The promise: exactly one object with the right bytes."""
    files = [file for file in await peer.files() if file["name"] == name]
    assert [(file["state"], file["etag"]) for file in files] == [("available", md5)], files
