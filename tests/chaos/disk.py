"""What a disk may hold after a power cut: all before the last sync of a file, any part of what came after."""

import os
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.traced import Operation

SECTOR = 512


@dataclass(slots=True)
class _File:
    synced: bytearray | None = None
    """None: the file itself may not be there, its directory entry was never made to last."""
    after: list[Operation] = field(default_factory=list)


class Disk:
    """Takes operations one by one; `state` is one legal picture of the folder at that moment."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._ghosts: dict[str, bytearray] = {}
        """Removed files whose removal may not have reached the disk."""
        self.report = b""

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def take(self, operation: Operation) -> None:
        name = operation.file
        match operation.call:
            case "report":
                self.report += operation.data
            case "create":
                self._files.setdefault(name, _File())
            case "unlink":
                gone = self._files.pop(name, None)
                if gone is not None and gone.synced is not None:
                    self._ghosts[name] = gone.synced
            case "rename":  # on the disk at once, with all that it moves: a journal keeps names in order
                to = operation.data.decode()
                self._files[to] = self._files.pop(name)
                self._files[to].synced = self._files[to].synced or bytearray()
                self._ghosts.pop(name, None)
                self._ghosts.pop(to, None)
            case "sync" if not name or name.endswith("/"):
                self._sync_folder(name.removesuffix("/"))
            case "sync":
                file = self._files[name]
                file.synced = file.synced or bytearray()
                for pending in file.after:
                    _apply(file.synced, pending)
                file.after.clear()
                self._ghosts.pop(name, None)
            case _:
                self._files[name].after.append(operation)

    def _sync_folder(self, folder: str) -> None:
        """Make entries and removals last; "" is the store's folder."""
        for name in [name for name in self._ghosts if os.path.dirname(name) == folder]:  # noqa: PTH120
            del self._ghosts[name]
        for name, file in self._files.items():
            if os.path.dirname(name) == folder and file.synced is None:  # noqa: PTH120
                file.synced = bytearray()

    def failed_sync(self, name: str, rng: random.Random) -> None:
        """A sync failed: Linux forgets what it did not write, and later syncs do not write it either."""
        self._files[name].after = _survivors(self._files[name].after, rng)[0]

    def state(self, rng: random.Random) -> tuple[dict[str, bytes], bool]:
        """Return file contents by name, and whether a write was torn within."""
        found, torn = {}, False
        for name, ghost in self._ghosts.items():
            if rng.random() < 0.5:
                found[name] = bytes(ghost)
        for name, file in self._files.items():
            kept, tore = _survivors(file.after, rng)
            torn = torn or tore
            if file.synced is None and not kept and rng.random() < 0.5:
                continue
            content = bytearray(file.synced or b"")
            for operation in kept:
                _apply(content, operation)
            found[name] = bytes(content)
        return found, torn


def _survivors(after: list[Operation], rng: random.Random) -> tuple[list[Operation], bool]:
    """Choose what reached the disk: nothing, all, a beginning, or any sectors of any writes."""
    way = rng.randrange(6)
    if way == 0 or not after:
        return [], False
    if way == 1:
        return after, False
    if way == 2:
        return after[: rng.randrange(len(after) + 1)], False
    share, torn = rng.random(), False
    kept: list[Operation] = []
    for operation in after:
        if operation.call != "write":
            kept += [operation] if rng.random() < share else []
            continue
        sectors = list(_sectors(operation))
        chosen = [sector for sector in sectors if rng.random() < share]
        if len(chosen) == len(sectors) or (chosen and way == 3):
            chosen = sectors  # whole writes only
        torn = torn or 0 < len(chosen) < len(sectors)
        kept += chosen
    return kept, torn


def _sectors(operation: Operation) -> Iterable[Operation]:
    """Cut a write at the sectors of the file."""
    at, end = operation.at, operation.at + len(operation.data)
    while at < end:
        edge = min(end, at - at % SECTOR + SECTOR)
        data = operation.data[at - operation.at : edge - operation.at]
        yield Operation("write", operation.file, at, data)
        at = edge


def _apply(content: bytearray, operation: Operation) -> None:
    match operation.call:
        case "write":
            if len(content) < operation.at:
                content.extend(bytes(operation.at - len(content)))
            content[operation.at : operation.at + len(operation.data)] = operation.data
        case "truncate":
            del content[operation.at :]
            content.extend(bytes(operation.at - len(content)))
        case "extend":
            content.extend(bytes(max(0, operation.at - len(content))))


def write_state(folder: Path, files: dict[str, bytes]) -> None:
    """Make a folder hold these files and no others."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
