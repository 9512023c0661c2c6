"""A gateway with one file to send, for kills: each life is a fork that ends as by `kill -9` at a chosen step.

Steps are the requests to the target, before each and after its answer, and the commits of the file's rows.
`python -m tests.forward.file_child FOLDER URL DIALECT [blind]` prints the step of each kill.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from gateway.clock import SystemClock
from gateway.controls.files import RemoteFile
from gateway.forward import files
from gateway.settings import Secret
from gateway.store import Store, StoreSettings
from gateway.uploaders import account, dataspace
from tests.forward.folder import Folder, state_of, uploading

T = TypeVar("T")


class Steps:
    """Counts down to the end."""

    def __init__(self, left: int) -> None:
        self.left, self.what = left, ""

    def at(self, what: str) -> None:
        if not self.left:
            os.write(1, f"{what}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def _between(steps: Steps, what: str, call: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    async def called(*args: Any, **more: Any) -> T:
        named = " ".join(arg.split("?")[0] for arg in args[1:3] if isinstance(arg, str) and "://" not in arg)
        steps.at(f"before {what} {named}")
        result = await call(*args, **more)
        steps.at(f"after {what} {named}")
        return result

    return called


async def _blind(self: dataspace.Target, file: Any) -> RemoteFile | None:
    """The mutant: it looks only at what it has stored just now."""
    found = [each async for each in self.files() if each.name == file.name and each.stored]
    return found[-1] if getattr(self, "sent", False) and found else setattr(self, "sent", True)


async def _nothing(_: files.FileLane) -> None:
    """Do not ask the target by the way: steps are those of the file alone."""
    await asyncio.Event().wait()


async def _life(folder: Path, name: str, url: str, dialect: str, left: int) -> None:
    steps = Steps(left)
    account.Account.put = _between(steps, "PUT", account.Account.put)  # type: ignore[method-assign]
    account.Account.ask = _between(steps, "request", account.Account.ask)  # type: ignore[method-assign]
    files.FileLane._ride = _between(steps, "commit", files.FileLane._ride)  # type: ignore[method-assign]
    pace = files.FileLane._paced

    async def paced(self: files.FileLane, content: Any) -> None:
        if content.tell():
            steps.at("in the middle of the bytes")
        await pace(self, content)

    files.FileLane._paced = paced  # type: ignore[method-assign]
    files.FileLane._check = _nothing  # type: ignore[method-assign]
    settings = dataspace.Settings(
        url=url, user="u", password=Secret("x", "right"), dialect=dialect, timeout_s=5.0,
        bucket="demo" if dialect == "s3" else "",
    )  # fmt: skip
    source = Folder(folder / "files", [name])
    chosen = StoreSettings(commit_interval_s=0.02)
    async with (
        Store.open(folder / "store", chosen, SystemClock()) as store,
        uploading(store, source, settings) as (lane, _),
    ):
        while (state := await state_of(lane, name)).state != "up_to_date" or state.queued:
            await asyncio.sleep(0.01)


def main(folder: str, url: str, dialect: str, *control: str) -> None:
    """Kill at step 0, 1, 2... until a life gets to its end, each with a file of its own, and send it then.

    Every other file is changed after the kill: bytes of before must not be taken for those of now.
    """
    if control:
        dataspace.Target._there = _blind  # type: ignore[method-assign]
    for left in range(100):
        for kind in ("same", "changed")[: 1 if control else 2]:
            path = Path(folder) / "files" / f"{left}-{kind}.hdf5"
            path.write_bytes(os.urandom(300_000))
            if not _forked(Path(folder), path.name, url, dialect, left):
                return
            if kind == "changed":
                path.write_bytes(os.urandom(300_000))
            assert not _forked(Path(folder), path.name, url, dialect, 10_000)


def _forked(folder: Path, name: str, url: str, dialect: str, left: int) -> bool:
    """Live in a process of its own; say whether it was killed."""
    pid = os.fork()
    if not pid:
        asyncio.run(_life(folder, name, url, dialect, left))
        os._exit(0)
    ended = os.waitpid(pid, 0)[1]
    assert ended in (0, signal.SIGKILL)
    return bool(ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
