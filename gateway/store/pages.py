"""The pages of a SQLite file as bytes, also of one that SQLite cannot read, and records found in them.

A record is a BLOB that begins with one of our magics. SQLite keeps the beginning of a long one on a leaf page
and the rest on a chain of overflow pages (https://sqlite.org/fileformat2.html, 1.6). How much is on the leaf
depends on the columns before it, which are not known here: what is possible is tried, the record's own
checksum decides. A WAL beside the file is laid over it: the newest frame of a page whose checksum holds.
"""

import os
import re
import struct
from array import array
from collections.abc import Iterator
from functools import cache
from operator import mul
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = 1024
"""Of all our files."""
_MAGIC = re.compile(rb"\xeeGW[bcrt]")
_LEAST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_MOST_LOCAL = (PAGE_BYTES - 35, (PAGE_BYTES - 12) * 64 // 255 - 23)
"""Of a table's leaf, of an index page."""
_PREFIXES = range(3, 72)
"""Bytes of a row before its BLOB: record header and the integers before it."""
_FRAME_BYTES = 24 + PAGE_BYTES
_WAL_HEADER = 32
_READ_BYTES = 256 * PAGE_BYTES
_IN_WAL = 1 << 62


class Found(NamedTuple):
    """Where a magic stands: `at` is opaque, for `PagedFile.record`; `head` the bytes from it on its page."""

    at: int
    head: bytes


class PagedFile:
    """A file that nobody writes; OSError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._db = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._wal: int | None = None
        self._newest: dict[int, int] = {}
        self.size = os.fstat(self._db).st_size
        wal = path.with_name(path.name + "-wal")
        if wal.exists():
            self._wal = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
            self.size = max(self.size, os.fstat(self._wal).st_size)

    def close(self) -> None:
        for fd in (self._db, self._wal):
            if fd is not None:
                os.close(fd)

    def scan(self) -> Iterator[Found | None]:
        """Yield each place where a magic stands, and None now and then: a slice of some ms has passed."""
        yield from self._scan_wal()
        for start in range(0, self.size, _READ_BYTES):
            content = os.pread(self._db, _READ_BYTES, start)
            yield from self._magics(content, start)
            yield None

    def _scan_wal(self) -> Iterator[Found | None]:
        if self._wal is None:
            return
        salts: bytes | None = None
        for number, frame in enumerate(frames(self._wal)):
            if frame.sound:
                salts = salts or frame.salts  # those of an earlier round stand behind, with other salts
                if frame.salts == salts:
                    self._newest[frame.page] = frame.at + 24
            yield from self._magics(frame.content, _IN_WAL | frame.at + 24)
            if number % 64 == 63:
                yield None

    @staticmethod
    def _magics(content: bytes, start: int) -> Iterator[Found]:
        for match in _MAGIC.finditer(content):
            end = match.start() - match.start() % PAGE_BYTES + PAGE_BYTES
            yield Found(start + match.start(), content[match.start() : end])

    def record(self, at: int, size: int) -> Iterator[bytes]:
        """Yield what may be the `size` bytes of the record at a place; whose checksum holds is it."""
        fd = self._wal if at & _IN_WAL else self._db
        if fd is None:
            return
        at &= ~_IN_WAL
        base = _WAL_HEADER + 24 if fd == self._wal else 0
        stride = _FRAME_BYTES if fd == self._wal else PAGE_BYTES
        left = PAGE_BYTES - (at - base) % stride
        head = os.pread(fd, left, at)
        if size <= left:
            yield head[:size]
        seen: set[int] = set()
        for local in _locals(size):
            if local in seen or local + 4 > left or local >= size:
                continue
            seen.add(local)
            (first,) = struct.unpack_from(">I", head, local)
            for over in (True, False) if self._newest else (False,):
                rest = self._chain(first, size - local, over=over)
                if rest is not None:
                    yield head[:local] + rest

    def _chain(self, number: int, left: int, *, over: bool) -> bytes | None:
        """Return what a chain of overflow pages holds, `over`: with the WAL laid over the file."""
        parts = []
        while left > 0:
            page = self._page(number, over=over) if number > 1 else b""
            if len(page) < PAGE_BYTES:
                return None
            number = int.from_bytes(page[:4], "big")
            parts.append(page[4 : 4 + left])
            left -= PAGE_BYTES - 4
        return b"".join(parts)

    def _page(self, number: int, *, over: bool) -> bytes:
        at = self._newest.get(number) if over else None
        if at is not None and self._wal is not None:
            return os.pread(self._wal, PAGE_BYTES, at)
        return os.pread(self._db, PAGE_BYTES, (number - 1) * PAGE_BYTES)


def _locals(size: int) -> Iterator[int]:
    """Yield how many bytes of a BLOB may stand on its leaf page."""
    for prefix in _PREFIXES:
        payload = prefix + size
        local = _LEAST_LOCAL + (payload - _LEAST_LOCAL) % (PAGE_BYTES - 4)
        for most in _MOST_LOCAL:
            if payload > most:
                yield (local if local <= most else _LEAST_LOCAL) - prefix


class Frame(NamedTuple):
    """A frame of a WAL. `sound`: its checksum holds after that of the frame before it."""

    at: int
    page: int
    commit: bool
    salts: bytes
    sound: bool
    content: bytes


def frames(fd: int, first: int = 0) -> Iterator[Frame]:
    """Yield the frames of a WAL from the number `first` on, whatever SQLite makes of them.

    The checksum of each goes on from what is stored with the one before (https://sqlite.org/walformat.html),
    so that those behind a damaged one are still told from what is none.
    """
    header = os.pread(fd, _WAL_HEADER, 0)
    at = _WAL_HEADER + first * _FRAME_BYTES
    before = header if not first else os.pread(fd, 24, at - _FRAME_BYTES)
    while len(raw := os.pread(fd, _FRAME_BYTES, at)) == _FRAME_BYTES and len(before) >= 24:
        seed = struct.unpack(">II", before[24:32] if at == _WAL_HEADER else before[16:24])
        sound = checksum(raw[:8] + raw[24:], seed) == struct.unpack_from(">II", raw, 16)
        page, commit = struct.unpack_from(">II", raw)
        yield Frame(at, page, commit > 0, raw[8:16], sound, raw[24:])
        before, at = raw[:24], at + _FRAME_BYTES


def checksum(data: bytes, seed: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return SQLite's checksum of little-endian words: s0 += x0 + s1, s1 += x1 + s0 for each two of them.

    Both are sums of the words, each times a Fibonacci number: C loops do it.
    """
    words = array("I", data)
    numbers = _fibonacci(len(words))
    low, high = numbers[-2], numbers[-1]
    first = sum(map(mul, words, numbers[-2::-1])) + seed[0] * low + seed[1] * high
    second = sum(map(mul, words, numbers[:0:-1])) + seed[0] * high + seed[1] * (low + high)
    return first & 0xFFFFFFFF, second & 0xFFFFFFFF


@cache
def _fibonacci(count: int) -> list[int]:
    """Return the numbers 0 to `count`, modulo 2**32."""
    found = [0, 1]
    while len(found) <= count:
        found.append(found[-1] + found[-2] & 0xFFFFFFFF)
    return found
