"""A disk with a volatile write cache, served over NBD: a power cut takes what was not flushed, or parts.

A write is done at once, and what stood there before is remembered until the next flush. A cut puts that back,
then does a random choice of those writes anew, in their order, some of them torn at a sector: a disk that
reorders may leave any of that. The protocol is the NBD project's (doc/proto.md, fixed newstyle).
"""

import enum
import os
import random
import socket
import struct
import threading
from io import BufferedRWPair
from pathlib import Path
from typing import NamedTuple

SECTOR_BYTES = 512
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_HAS_FLAGS, _SEND_FLUSH = 1, 4
_OPTION_REPLY, _REQUEST, _ANSWER = 0x3E889045565A9, 0x25609513, 0x67446698
_EINVAL = 22


class _Option(enum.IntEnum):
    ABORT, GO = 2, 7


class _Reply(enum.IntEnum):
    ACK, INFO, UNSUPPORTED = 1, 3, 0x80000001


class _Command(enum.IntEnum):
    READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3


class Write(NamedTuple):
    """A write that no flush followed yet, and what it replaced."""

    offset: int
    before: bytes
    data: bytes


class Cut(NamedTuple):
    """How many writes of the cache a power cut left whole, in part, and not at all."""

    kept: int
    torn: int
    lost: int


class VolatileDisk:
    """Serves a file to one client after another, on a Unix socket."""

    def __init__(self, file: Path, address: Path) -> None:
        self.flushes = 0
        self._cache: list[Write] = []
        self._fd = os.open(file, os.O_RDWR)
        self._size_bytes = os.fstat(self._fd).st_size
        self._unused = threading.Event()
        self._unused.set()
        self._held, self._reached, self._released = (threading.Event() for _ in range(3))
        self._dead = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(address))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def hold(self, within_s: float) -> bool:
        """Answer nothing more from the next flush on; say whether there was one so soon."""
        self._held.set()
        return self._reached.wait(within_s)

    def go_on(self) -> None:
        """Answer again."""
        self._held.clear()
        self._reached.clear()
        self._released.set()

    def leave(self, file: Path, chance: random.Random) -> Cut:
        """Write what a power cut now would leave into another file. The disk is held."""
        assert self._reached.is_set()
        with Path(f"/proc/self/fd/{self._fd}").open("rb") as here, file.open("wb") as there:
            there.truncate(self._size_bytes)
            _copy(here.fileno(), there.fileno(), self._size_bytes)
            return _lose(there.fileno(), self._cache, chance)

    def cut(self, chance: random.Random) -> Cut:
        """Lose the cache, or parts of it. The client has been killed."""
        self._dead = True
        self._released.set()
        assert self._unused.wait(10), "the machine still has its disk"
        done = _lose(self._fd, self._cache, chance)
        self._cache.clear()
        self._dead = False
        self.go_on()
        self._released.clear()
        return done

    def close(self) -> None:
        self._dead = True
        self._released.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        self._listener.close()
        self._thread.join(10)
        os.close(self._fd)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._unused.clear()
            try:
                with client, client.makefile("rwb", buffering=1 << 20) as stream:
                    self._shake_hands(stream)
                    self._answer(stream)
            except (EOFError, OSError):
                pass  # QEMU was killed
            finally:
                self._unused.set()

    def _shake_hands(self, stream: BufferedRWPair) -> None:
        _send(stream, b"NBDMAGICIHAVEOPT" + struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES))
        _exactly(stream, 4)
        while True:
            _magic, option, length = struct.unpack(">QII", _exactly(stream, 16))
            _exactly(stream, length)
            if option == _Option.GO:
                export = struct.pack(">HQH", 0, self._size_bytes, _HAS_FLAGS | _SEND_FLUSH)
                _reply(stream, option, _Reply.INFO, export)
                _reply(stream, option, _Reply.ACK)
                return
            _reply(stream, option, _Reply.ACK if option == _Option.ABORT else _Reply.UNSUPPORTED)

    def _answer(self, stream: BufferedRWPair) -> None:
        while not self._dead:
            magic, _flags, command, handle, offset, length = struct.unpack(">IHHQQI", _exactly(stream, 28))
            assert magic == _REQUEST, hex(magic)
            error, answer = 0, b""
            match command:
                case _Command.READ:
                    answer = os.pread(self._fd, length, offset)
                case _Command.WRITE:
                    self._write(offset, _exactly(stream, length))
                case _Command.FLUSH:
                    self._wait()
                    if self._dead:
                        return
                    self.flushes += 1
                    self._cache.clear()
                case _Command.DISCONNECT:
                    return
                case _:
                    error = _EINVAL
            _send(stream, struct.pack(">IIQ", _ANSWER, error, handle) + answer)

    def _wait(self) -> None:
        if self._held.is_set():
            self._released.clear()
            self._reached.set()
            self._released.wait()

    def _write(self, offset: int, data: bytes) -> None:
        self._cache.append(Write(offset, os.pread(self._fd, len(data), offset), data))
        os.pwrite(self._fd, data, offset)


def _exactly(stream: BufferedRWPair, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _lose(fd: int, cache: list[Write], chance: random.Random) -> Cut:
    for write in reversed(cache):
        os.pwrite(fd, write.before, write.offset)
    likely = chance.random()  # one disk had nearly done, another had done next to nothing
    kept = torn = 0
    for write in cache:
        if chance.random() < likely:
            os.pwrite(fd, write.data, write.offset)
            kept += 1
        elif len(write.data) > SECTOR_BYTES and chance.random() < 0.3:
            first, last = sorted(chance.sample(range(len(write.data) // SECTOR_BYTES + 1), 2))
            part = slice(first * SECTOR_BYTES, last * SECTOR_BYTES)
            os.pwrite(fd, write.data[part], write.offset + part.start)
            torn += 1
    return Cut(kept, torn, len(cache) - kept - torn)


def _copy(source: int, target: int, size_bytes: int) -> None:
    at = 0
    while at < size_bytes:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            return  # a hole up to the end
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            at += os.pwrite(target, os.pread(source, min(end - at, 1 << 22), at), at)


def _send(stream: BufferedRWPair, data: bytes) -> None:
    stream.write(data)
    stream.flush()


def _reply(stream: BufferedRWPair, option: int, kind: _Reply, data: bytes = b"") -> None:
    _send(stream, struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data)
