"""What a disk may hold after a power cut: all before the last sync of a file, any part of what came after."""

import hashlib
import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.chaos.traced import Operation

SECTOR = 512


class Content:
    """What a file holds; its digest is made once."""

    __slots__ = ("_digest", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._digest = b""

    @property
    def digest(self) -> bytes:
        self._digest = self._digest or hashlib.sha256(self.data).digest()
        return self._digest


@dataclass(slots=True)
class _File:
    synced: bytearray | None = None
    """None: the file itself may not be there, its directory entry was never made to last."""
    after: list[Operation] = field(default_factory=list)
    settled: Content | None = None
    """What was synced, where it is known as such."""

    def sync(self) -> None:
        self.synced = self.synced or bytearray()
        for pending in self.after:
            _apply(self.synced, pending)
        if self.after:
            self.settled = None
        self.after.clear()

    def content(self, kept: list[Operation]) -> Content:
        """Return what it holds with these of its pending writes."""
        if kept:
            content = bytearray(self.synced or b"")
            for operation in kept:
                _apply(content, operation)
            return Content(bytes(content))
        if self.settled is None:
            self.settled = Content(bytes(self.synced or b""))
        return self.settled


class _Move(NamedTuple):
    """A file that a rename took along, and the file whose name it took."""

    old: str
    new: str
    replaced: _File | None


class Disk:
    """Takes operations one by one; `state` is one legal picture of the folder at that moment."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._ghosts: dict[str, _File] = {}
        """Removed files whose removal may not have reached the disk."""
        self._renames: list[list[_Move]] = []
        """Those that may not have reached the disk, or only the first: a journal keeps them in order."""
        self.report = b""

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def take(self, operation: Operation, rng: random.Random | None = None) -> None:
        """`rng`: chooses what is left of what a failed sync was to write."""
        name = operation.file
        match operation.call:
            case "report":
                self.report += operation.data
            case "create":
                self._files.setdefault(name, _File())
            case "unlink":
                self._settle_renames(name)
                gone = self._files.pop(name, None)
                if gone is not None and gone.synced is not None:
                    self._ghosts[name] = gone
                    gone.after.clear()
            case "rename":
                self._rename(name, operation.data.decode())
            case "sync" if not name or name.endswith("/"):
                self._sync_folder(name.removesuffix("/"))
            case "sync":
                self._files[name].sync()
                self._ghosts.pop(name, None)
            case "failed sync":
                self.failed_sync(name, rng or random.Random(0))
            case _:
                self._files[name].after.append(operation)

    def _rename(self, old: str, new: str) -> None:
        """Rename a file, or a folder with what is in it."""
        within = f"{old}/"
        names = [each for each in self._files if each == old or each.startswith(within)]
        assert names, f"{old} is not known"
        moves = []
        for name in names:
            to = new + name.removeprefix(old)
            self._settle_renames(name)
            self._settle_renames(to)
            moves.append(_Move(name, to, self._files.get(to)))
            file = self._files[to] = self._files.pop(name)
            file.synced = bytearray() if file.synced is None else file.synced
            self._ghosts.pop(name, None)
            self._ghosts.pop(to, None)
        self._renames.append(moves)

    def _settle_renames(self, name: str) -> None:
        """Take renames of a name for done: what comes is not undone along with them."""
        if any(name in (move.old, move.new) for moves in self._renames for move in moves):
            self._renames.clear()

    def _sync_folder(self, folder: str) -> None:
        """Make entries and removals last; "" is the folder itself."""
        for name in [name for name in self._ghosts if os.path.dirname(name) == folder]:  # noqa: PTH120
            del self._ghosts[name]
        for name, file in self._files.items():
            if os.path.dirname(name) == folder and file.synced is None:  # noqa: PTH120
                file.synced = bytearray()
        self._renames = [
            moves
            for moves in self._renames
            if os.path.dirname(_top(moves)) != folder  # noqa: PTH120
        ]

    def failed_sync(self, name: str, rng: random.Random) -> None:
        """A sync failed: Linux forgets what it did not write, and later syncs do not write it either."""
        self._files[name].after = _survivors(self._files[name].after, rng)[0]

    def state(self, rng: random.Random) -> tuple[dict[str, Content], bool]:
        """Return file contents by name, and whether a write was torn within."""
        found, torn = {}, False
        for name, ghost in self._ghosts.items():
            if rng.random() < 0.5:
                found[name] = ghost.content([])
        for name, file in self._names(rng).items():
            kept, tore = _survivors(file.after, rng)
            torn = torn or tore
            if file.synced is None and not kept and rng.random() < 0.5:
                continue
            found[name] = file.content(kept)
        return found, torn

    def _names(self, rng: random.Random) -> dict[str, _File]:
        """Return the files by the names that they have on the disk."""
        if not self._renames:
            return self._files
        files = dict(self._files)
        for moves in reversed(self._renames[rng.randint(0, len(self._renames)) :]):
            for old, new, replaced in moves:
                files[old] = files.pop(new)
                if replaced is not None:
                    files[new] = replaced
        return files


def _top(moves: list[_Move]) -> str:
    """Return the name that was renamed, of a file or of a folder."""
    if len(moves) == 1:
        return moves[0].new
    return os.path.commonpath([move.new for move in moves])


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


def write_state(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder hold these files and no others."""
    top, wanted = str(folder), {os.path.join(str(folder), name): name for name in files}  # noqa: PTH118
    for place, folders, names in os.walk(top, topdown=False):
        for name in names:
            if (path := f"{place}/{name}") not in wanted:
                os.unlink(path)  # noqa: PTH108
        for name in folders:
            if not any(path.startswith(f"{place}/{name}/") for path in wanted):
                os.rmdir(f"{place}/{name}")  # noqa: PTH106
    for path, name in wanted.items():
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(file, files[name])
        os.close(file)
    folder.mkdir(parents=True, exist_ok=True)
