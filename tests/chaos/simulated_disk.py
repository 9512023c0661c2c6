"""A disk under SQLite: the unix VFS with writes, syncs and removals passing through here.

SQLite's own file methods stay, but four: so locks, shared memory and reads are the real ones. What was not
synced is known to `Disk`, which gives a legal picture of the folder after a power cut. Nothing here is
random but by the generator that is handed in.
"""

import ctypes
import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from gateway.store import renew
from tests.chaos.disk import Disk, write_state
from tests.chaos.traced import Operation

_OK, _IOERR_WRITE, _FULL, _IOERR_SYNC = 0, 778, 13, 1034
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_OPEN = ctypes.CFUNCTYPE(_I, _P, _P, _P, _I, _P)
_DELETE = ctypes.CFUNCTYPE(_I, _P, _P, _I)
_RANDOMNESS = ctypes.CFUNCTYPE(_I, _P, _I, _P)
_WRITE = ctypes.CFUNCTYPE(_I, _P, _P, _I, _L)
_TRUNCATE = ctypes.CFUNCTYPE(_I, _P, _L)
_SYNC = ctypes.CFUNCTYPE(_I, _P, _I)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs` (sqlite.org/c3ref/vfs.html), version 3."""

    _fields_: ClassVar = [
        ("version", _I), ("file_bytes", _I), ("path_bytes", _I), ("next", _P), ("name", ctypes.c_char_p),
        ("data", _P), ("open", _P), ("delete", _P), ("access", _P), ("full_path", _P), ("dl", _P * 4),
        ("randomness", _P), ("rest", _P * 7),
    ]  # fmt: skip


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, version 3."""

    _fields_: ClassVar = [
        ("version", _I), ("close", _P), ("read", _P), ("write", _P), ("truncate", _P), ("sync", _P),
        ("rest", _P * 13),
    ]  # fmt: skip


class _File(ctypes.Structure):
    _fields_: ClassVar = [("methods", ctypes.POINTER(_Methods))]


class SimulatedDisk:
    """One for the process, installed as SQLite's default; `folder` changes with each life of the box."""

    def __init__(self, rng: random.Random, passed: Callable[[float], None]) -> None:
        self._rng, self._passed = rng, passed
        self.folder = Path()
        self.most_bytes: int | None = None
        """The disk is full where files would grow beyond this."""
        self.failing = 0.0
        """The share of writes and syncs that fail with EIO."""
        self.slow_s = 0.0
        """A sync takes up to so long."""
        self.dead = False
        """The power is gone: nothing is written any more."""
        self.refused = self.written_bytes = self.syncs = 0
        self._disk = Disk()
        self._names: dict[int, str] = {}
        self._fresh: set[str] = set()
        self._fuse: tuple[int, bool] | None = None
        self._left: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}
        self._kept: list[Any] = []
        self._methods: dict[int, Any] = {}
        self._install()

    def _install(self) -> None:
        library = ctypes.CDLL("libsqlite3.so.0")
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        real = library.sqlite3_vfs_find(b"unix").contents
        mine = _Vfs.from_buffer_copy(real)
        mine.name = b"simulated"
        real_open, real_delete = _OPEN(real.open), _DELETE(real.delete)

        def opened(vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
            # The pointer itself goes on: SQLite keeps it, and reads parameters behind the name.
            fresh = name is not None and not _path(name).exists()
            code: int = real_open(vfs, name, file, flags, out)
            if code == _OK and name is not None:
                self._opened(file, self._name(name), fresh=fresh)
            return code

        def deleted(vfs: int, name: int, dir_sync: int) -> int:
            if self._refuses():
                return _IOERR_WRITE
            code: int = real_delete(vfs, name, dir_sync)
            if code == _OK:
                self._take("unlink", self._name(name))
                self._sizes.pop(self._name(name), None)
                if dir_sync:
                    self._sync_folder(self._name(name))
            return code

        def randomness(_vfs: int, count: int, to: int) -> int:
            ctypes.memmove(to, self._rng.randbytes(count), count)
            return count

        for slot, call in (
            ("open", _OPEN(opened)), ("delete", _DELETE(deleted)), ("randomness", _RANDOMNESS(randomness)),
        ):  # fmt: skip
            self._kept.append(call)
            setattr(mine, slot, ctypes.cast(call, _P))
        self._kept += [mine, real_open, real_delete]
        assert library.sqlite3_vfs_register(ctypes.byref(mine), 1) == _OK
        library.sqlite3_randomness(0, None)  # seeded anew, by us
        for call in ("sync", "_rename", "_remove"):
            setattr(renew, call, self._past_sqlite(call, getattr(renew, call)))

    def _name(self, path: int) -> str:
        where = _path(path)
        return str(where.relative_to(self.folder)) if where.is_relative_to(self.folder) else ""

    def _opened(self, file: int, name: str, *, fresh: bool) -> None:
        if not name:
            return
        self._names[file] = name
        if (fresh or name not in self._disk) and Path(self.folder / name).exists():
            self._take("create", name)
            if name.endswith(("-wal", "-journal")):  # SQLite syncs the folder with their first sync
                self._fresh.add(name)
        handle = ctypes.cast(file, ctypes.POINTER(_File)).contents
        address = ctypes.addressof(handle.methods.contents)
        if address not in self._methods:
            self._methods[address] = self._wrapped(handle.methods.contents)
        handle.methods = ctypes.pointer(self._methods[address])

    def _wrapped(self, real: Any) -> Any:
        mine = _Methods.from_buffer_copy(real)
        real_write, real_truncate, real_sync = _WRITE(real.write), _TRUNCATE(real.truncate), _SYNC(real.sync)

        def write(file: int, data: int, size: int, at: int) -> int:
            name = self._names[file]
            end = max(self._sizes.get(name, 0), at + size)
            if self._full(name, end):
                self.refused += 1
                return _FULL
            if self._refuses():
                return _IOERR_WRITE
            code: int = real_write(file, data, size, at)
            if code == _OK:
                self._sizes[name] = end
                self.written_bytes += size
                self._take("write", name, at, ctypes.string_at(data, size))
            return code

        def truncate(file: int, size: int) -> int:
            if self._refuses():
                return _IOERR_WRITE
            code: int = real_truncate(file, size)
            if code == _OK:
                self._sizes[self._names[file]] = size
                self._take("truncate", self._names[file], size)
            return code

        def sync(file: int, flags: int) -> int:
            self._passed(self._rng.uniform(0, self.slow_s) if self.slow_s else 0.0005)
            if self._refuses():
                if not self.dead:
                    self._disk.failed_sync(self._names[file], self._rng)
                return _IOERR_SYNC
            code: int = real_sync(file, flags)
            if code == _OK:
                self.syncs += 1
                self._take("sync", self._names[file])
                if self._names[file] in self._fresh:
                    self._fresh.discard(self._names[file])
                    self._sync_folder(self._names[file])
            return code

        for slot, call in (
            ("write", _WRITE(write)), ("truncate", _TRUNCATE(truncate)), ("sync", _SYNC(sync))
        ):  # fmt: skip
            self._kept.append(call)
            setattr(mine, slot, ctypes.cast(call, _P))
        self._kept += [real_write, real_truncate, real_sync]
        return mine

    def _past_sqlite(self, call: str, real: Callable[..., None]) -> Callable[..., None]:
        """What a file is made anew by, which is not for SQLite to do."""

        def taken(path: Path, *to: Path) -> None:
            name = str(path.relative_to(self.folder))
            if (path.exists() or call == "sync") and self._refuses():
                raise OSError(errno.EIO, "simulated")
            there = path.exists()
            if call == "_rename":
                path.rename(to[0])
                new = str(to[0].relative_to(self.folder))
                self._take("rename", name, data=new.encode())
                self._sizes[new] = self._sizes.pop(name)
                self._sync_folder(new)
            elif call == "sync":
                real(path)
                self._take("sync", "" if name == "." else f"{name}/" if path.is_dir() else name)
            elif there:
                real(path)
                self._take("unlink", name)
                self._sizes.pop(name, None)

        return taken

    def _take(self, call: str, name: str, at: int = 0, data: bytes = b"") -> None:
        if self.dead:
            return
        self._disk.take(Operation(call, name, at, data))
        if self._fuse is not None:
            left, whole = self._fuse
            self._fuse = (left - 1, whole) if left else None
            if not left:
                self._left = self.cut(whole=whole)

    def cut_after(self, operations: int, *, whole: bool) -> None:
        """Let the power go (or the process) in the middle of what is written, so many operations from now."""
        self._fuse = operations, whole

    def _sync_folder(self, name: str) -> None:
        folder = str(Path(name).parent)
        self._take("sync", "" if folder == "." else f"{folder}/")

    def _refuses(self) -> bool:
        refuses = self.dead or (self.failing > 0 and self._rng.random() < self.failing)
        self.refused += refuses
        return refuses

    def _full(self, name: str, end: int) -> bool:
        if self.most_bytes is None or end <= self._sizes.get(name, 0):
            return False
        reserve = 0 if (self.folder / "reserve").exists() else 1 << 20
        return self.used_bytes + end - self._sizes.get(name, 0) > self.most_bytes + reserve

    @property
    def used_bytes(self) -> int:
        return sum(self._sizes.values())

    def sizes(self) -> dict[str, int]:
        return dict(self._sizes)

    def cut(self, *, whole: bool) -> dict[str, bytes]:
        """The power goes (or, `whole`, only the process): return what is on the disk; nothing follows."""
        if self.dead:
            return self._left
        self._fuse = None
        there = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*.db*")}
        for name in list(self._sizes):
            if name not in there:  # removed past SQLite, and the folder was not synced
                self._take("unlink", name)
        if whole:
            files = {name: path.read_bytes() for name, path in there.items() if not name.endswith("-shm")}
        else:
            files = {name: content.data for name, content in self._disk.state(self._rng)[0].items()}
        self.dead = True
        return files

    def begin(self, folder: Path, files: dict[str, bytes]) -> None:
        """A new life in a new folder that holds these files, all of them on the disk for good."""
        folder.mkdir()
        write_state(folder, files)
        self.folder, self._disk, self.dead = folder, Disk(), False
        self._names.clear()
        self._fresh.clear()
        self._sizes = {name: len(content) for name, content in files.items()}
        for name, content in files.items():
            self._take("create", name)
            self._take("write", name, 0, content)
            self._take("sync", name)


def _path(name: int) -> Path:
    return Path(ctypes.string_at(name).decode())
